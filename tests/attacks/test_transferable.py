"""Transfer attacks: each with settings off is the simpler one; by hand on linear models."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import BIM
from tfrobust.attacks.transferable import Transferable, gaussian_kernel, shrunk
from tfrobust.errors import UsageError
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.models import ensemble
from tfrobust.runtime import tf
from tfrobust.testing import small_images, small_model
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
LINF = ThreatModel("linf", 0.1)


@pytest.fixture(scope="module")
def problem():
    model = small_model()
    return model, *(tf.constant(each) for each in small_images(model))


def made(problem, norm=LINF, **settings):
    return Transferable(steps=3, **settings)(*problem, norm, SEED).numpy()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_with_momentum_0_it_is_bim_to_the_bit(problem, norm):
    ball = ThreatModel(norm, 0.3)
    bim = BIM(steps=3, early_stop=False)(*problem, ball, SEED).numpy()
    np.testing.assert_array_equal(made(problem, ball, momentum=0.0), bim)
    np.testing.assert_array_equal(made(problem, ball, momentum=0.0, nesterov=True), bim)
    np.testing.assert_array_equal(made(problem, ball, momentum=0.0, kernel=1), bim)


def test_each_setting_off_is_mi_and_on_is_not(problem):
    plain = made(problem)
    off = {"diversity": 0.0, "kernel": 1, "scales": 1, "draws": 0}
    np.testing.assert_array_equal(made(problem, **off), plain)
    on = {"nesterov": True, "diversity": 1.0, "kernel": 3, "scales": 3, "draws": 3}
    for name, value in on.items():
        settings = {name: value, "least_share": 0.5, "step_size": 0.05}
        assert np.any(made(problem, **settings) != made(problem, step_size=0.05)), name


def test_on_a_linear_model_every_gradient_is_the_same(linear_model):
    # The margin's gradient is w everywhere: momentum, scales and variance change nothing.
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 2))
    model = linear_model(weights, np.zeros(2))
    x = tf.constant(rng.uniform(0.3, 0.7, (4, 2, 2, 3)), tf.float32)
    w = (weights[:, 1] - weights[:, 0]).reshape(2, 2, 3)
    for settings in ({}, {"nesterov": True}, {"scales": 3}, {"draws": 2}):
        attack = Transferable(loss="margin", **settings)
        found = attack(model, x, tf.zeros([4], tf.int32), LINF, SEED)
        np.testing.assert_allclose(found, x + 0.1 * np.sign(w), atol=1e-6)


def test_shrunk_images_keep_their_mass_in_a_smaller_square():
    x = tf.ones([50, 20, 20, 1])
    np.testing.assert_array_equal(shrunk(x, SEED, 0.0, 0.5), x)
    share = tf.reduce_mean(shrunk(x, SEED, 1.0, 0.5), axis=[1, 2, 3]).numpy()
    # A square of a side of 1/2 to 1 of the image's, to a pixel.
    assert (share >= 0.45**2).all() and share.max() <= 1 and share.std() > 0.05
    some = tf.reduce_mean(shrunk(x, SEED, 0.5, 0.5), axis=[1, 2, 3]).numpy() < 0.99
    assert 10 < some.sum() < 40


def test_the_kernel_of_three_by_hand():
    row = np.array([np.exp(-4.5), 1, np.exp(-4.5)])
    expected = np.outer(row, row) / row.sum() ** 2
    np.testing.assert_allclose(gaussian_kernel(3), expected, rtol=1e-5)


def test_an_ensemble_is_the_mean_of_its_logits(problem):
    model, x, y = problem
    other = small_model(seed=5)
    both = ensemble([model, other])
    np.testing.assert_allclose(both(x), (model(x) + other(x)) / 2, atol=1e-6)
    np.testing.assert_array_equal(made((ensemble([model]), x, y)), made(problem))
    with pytest.raises(UsageError):
        ensemble([])


@pytest.mark.parametrize("wrong", [
    {"steps": 0}, {"momentum": -1.0}, {"kernel": 2}, {"scales": 0}, {"diversity": 1.5},
    {"draws": -1}, {"loss": "x"}, {"least_share": 0.0}, {"step_size": 0.0},
])  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        Transferable(**wrong)


def test_an_attack_without_restarts_is_evaluated(problem):
    model, x, y = (problem[0], *(each.numpy() for each in problem[1:]))
    found = evaluate(model, (x, y), LINF, "mi:steps=3")
    broken = np.argmax(model(Transferable(steps=3).perturb(model, x, y, LINF)), axis=1) != y
    assert found.robust_accuracy == pytest.approx(1 - broken.mean())
