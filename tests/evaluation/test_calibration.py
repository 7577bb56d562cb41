"""Calibration against hand-made cases."""

import json

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.errors import UsageError
from tfrobust.evaluation.calibration import brier_of, expected_calibration_error
from tfrobust.runtime import tf


def test_confidence_that_is_worth_what_it_says_has_no_error():
    confidences = np.repeat([0.6, 0.8], 10)
    correct = np.concatenate([np.arange(10) < 6, np.arange(10) < 8])
    assert expected_calibration_error(confidences, correct) == pytest.approx(0, abs=1e-12)


def test_the_error_is_the_mean_gap_of_the_bins():
    # Sure and always wrong, and .5 and always right, as many of each.
    confidences = np.repeat([1.0, 0.5], 7)
    correct = np.repeat([False, True], 7)
    assert expected_calibration_error(confidences, correct) == pytest.approx((1 + 0.5) / 2)
    # In one bin they are told apart no more: mean confidence .75, accuracy .5.
    assert expected_calibration_error(confidences, correct, bins=1) == pytest.approx(0.25)
    # A confidence on an edge is in the bin below it: .5 and .45 share one of two bins.
    mixed = expected_calibration_error(np.array([0.5, 0.45]), np.array([True, False]), bins=2)
    assert mixed == pytest.approx(abs(0.475 - 0.5))


def test_brier_s_score_of_plain_cases():
    logits = tf.constant([[50.0, 0, 0], [50.0, 0, 0], [0.0, 0, 0], [float("nan"), 0, 0]])
    found = brier_of(logits, tf.constant([0, 1, 2, 0]))
    np.testing.assert_allclose(found, [0, 2, 2 * (1 / 3) ** 2 + (2 / 3) ** 2, 2], atol=1e-6)


def test_no_images_and_no_bins_are_refused():
    with pytest.raises(UsageError):
        expected_calibration_error(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(UsageError):
        expected_calibration_error(np.ones(3), np.ones(3, bool), bins=0)


def test_an_evaluation_reports_it():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(50, 2, 2, 3)).astype(np.float32)
    w = rng.normal(size=(12, 3)).astype(np.float32)
    y = rng.integers(0, 3, 50)
    model = lambda images: tf.reshape(images, [-1, 12]) @ w  # noqa: E731
    report = tr.evaluate(model, (x, y), tr.Linf(0.01), attacks="fgsm", batch_size=16)
    p = tf.nn.softmax(model(x)).numpy()
    brier = ((p - np.eye(3)[y]) ** 2).sum(axis=1).mean()
    assert report.calibration.brier == pytest.approx(brier, abs=1e-5)
    error = expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == y)
    values = json.loads(json.dumps(report.as_dict()))["calibration"]
    assert values["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    assert str(report.calibration) in report.as_text()
