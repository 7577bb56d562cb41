"""One perturbation for all images: on linear models it is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.universal import universal
from tfrobust.errors import UsageError
from tfrobust.threat_model import ThreatModel


@pytest.fixture
def problem(linear_model):
    """A linear model, its direction from class 0 to 1, and images of class 0 alone."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 2))
    w = weights[:, 1] - weights[:, 0]
    # Every image is 0.05 inside class 0, in L-infinity, at mid grey.
    bias = np.array([0.0, -0.5 * w.sum() - 0.05 * np.abs(w).sum()])
    x = 0.5 + 1e-3 * rng.uniform(-1, 1, (20, 2, 2, 3)).astype("float32")
    return linear_model(weights, bias), w.reshape(2, 2, 3), (x, np.zeros(20, "int32"))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_is_the_steepest_direction(norm, problem):
    model, w, data = problem
    direction = np.sign(w) if norm == "linf" else w / np.linalg.norm(w)
    found = universal(model, data, ThreatModel(norm, 0.1), epochs=12, batch_size=5)
    np.testing.assert_allclose(found.delta, 0.1 * direction, atol=1e-5)
    assert (found.train.images, found.test.images) == (10, 10)


def test_it_fools_all_above_the_radius_and_none_below(problem):
    model, _, data = problem
    for eps, share in ((0.06, 1.0), (0.04, 0.0)):
        found = universal(model, data, ThreatModel("linf", eps), test=data, epochs=12)
        for each in (found.train, found.test):
            assert (each.fooling, each.clean_accuracy, each.accuracy) == (share, 1.0, 1.0 - share)
        moved = found.apply(data[0])
        classes = np.argmax(model(moved), axis=1)
        np.testing.assert_array_equal(classes, np.full(20, share))
    assert np.abs(found.delta).max() <= 0.04 + 1e-6


def test_the_same_seed_gives_the_same(problem):
    model, _, (x, _) = problem
    y = np.arange(20) % 2
    ball = ThreatModel("linf", 0.1)
    one, two = (universal(model, (x, y), ball, epochs=2, batch_size=3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.delta, two.delta)
    assert one.train == two.train


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"step_size": 0.0}, {"batch_size": 0}])
def test_values_out_of_range_are_refused(wrong, problem):
    with pytest.raises(UsageError):
        universal(problem[0], problem[2], ThreatModel("linf", 0.1), **wrong)


def test_what_does_not_fit_is_refused(problem):
    model, _, (x, y) = problem
    with pytest.raises(UsageError):
        universal(model, (x, y), ThreatModel("l0", 2))
    with pytest.raises(UsageError):
        universal(model, (x[:1], y[:1]), ThreatModel("linf", 0.1))
