"""Each guarantee of the threat model, with values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.config import NORMS
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

EPS = {"linf": 0.1, "l2": 0.7, "l1": 3.0, "l0": 5.0}


def images(seed: int = 0, batch: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (batch, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("norm", NORMS)
def test_projection_lands_in_ball_and_bounds_and_keeps_members(norm):
    threat, x = ThreatModel(norm, EPS[norm]), images()
    far = x + np.random.default_rng(1).normal(0, 2, x.shape).astype("float32")
    projected = threat.project(far, x)
    assert np.all(threat.contains(projected, x))
    assert not np.any(threat.contains(far, x))
    # A member of the ball stays where it is.
    np.testing.assert_allclose(threat.project(projected, x), projected, atol=2e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_inside_seeded_and_differs_by_example(norm):
    threat, x = ThreatModel(norm, EPS[norm]), np.full((5, 8, 8, 3), 0.5, "float32")
    start = threat.random_start(x, tf.constant([1, 2])).numpy()
    assert np.all(threat.contains(start, x))
    assert np.array_equal(start, threat.random_start(x, tf.constant([1, 2])))
    assert not np.array_equal(start, threat.random_start(x, tf.constant([1, 3])))
    assert not np.array_equal(start[0], start[1])
    assert np.all(threat.distance(start, x) > 0)


def test_distances_by_hand():
    # One example of 1x2 pixels; delta = (.3, -.4, 0 | 0, 0, 0).
    x = np.full((1, 1, 2, 3), 0.5, "float32")
    x_adv = x + np.array([0.3, -0.4, 0, 0, 0, 0], "float32").reshape(x.shape)
    expected = {"linf": 0.4, "l2": 0.5, "l1": 0.7, "l0": 1.0}
    for norm, value in expected.items():
        np.testing.assert_allclose(ThreatModel(norm, 1.0).distance(x_adv, x), [value], atol=1e-6)


def test_l1_projection_by_hand():
    # Onto the simplex of radius 1: (.9, .5, .1) - level .2 = (.7, .3, 0), sum 1.
    threat = ThreatModel("l1", 1.0, bounds=(-9.0, 9.0))
    x, far = np.zeros((1, 3), "float32"), np.array([[0.9, -0.5, 0.1]], "float32")
    np.testing.assert_allclose(threat.project(far, x), [[0.7, -0.3, 0.0]], atol=1e-5)


def test_l0_keeps_the_pixels_that_changed_most():
    threat = ThreatModel("l0", 1, bounds=(-9.0, 9.0))
    x = np.zeros((1, 1, 2, 3), "float32")
    far = np.array([0.5, 0.5, 0.5, 0.8, 0, 0], "float32").reshape(x.shape)
    # Squared changes: .75 against .64.
    expected = np.array([0.5, 0.5, 0.5, 0, 0, 0], "float32").reshape(x.shape)
    np.testing.assert_array_equal(threat.project(far, x), expected)


def test_l0_keeps_the_pixels_that_change_most_inside_the_bounds():
    threat = ThreatModel("l0", 1)
    x = np.array([0.9, 0.5], "float32").reshape(1, 1, 2, 1)
    # Kept, a pixel brings the image nearer by what it changes, less what lies beyond the bounds:
    # 2^2 - 1.9^2 = .39 of the first against .8^2 - .3^2 = .55 of the second.
    far = np.array([2.9, 1.3], "float32").reshape(x.shape)
    np.testing.assert_allclose(threat.project(far, x).numpy().ravel(), [0.9, 1.0], atol=1e-6)
    # 4^2 - 3.9^2 = .79.
    far = np.array([4.9, 1.3], "float32").reshape(x.shape)
    np.testing.assert_allclose(threat.project(far, x).numpy().ravel(), [1.0, 0.5], atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_radii_of_their_own_are_as_one_ball_after_another(norm):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(3, 4, 4, 3)).astype("float32")
    far = rng.uniform(size=x.shape).astype("float32")
    radii = np.array([0.5, 1.0, 2.0], "float32") * EPS[norm]
    ball = ThreatModel(norm, 1.0)
    together = ball.with_radii(tf.constant(radii)).project(tf.constant(far), tf.constant(x))
    for row, eps in enumerate(radii):
        alone = ThreatModel(norm, float(eps)).project(far[row : row + 1], x[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)
    assert ball.with_radii(tf.constant(radii)).contains(together, x).numpy().all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_steepest_step_reaches_the_dual_norm(norm):
    # max of <g, d> over ||d|| <= s is s * ||g||_dual; l1 shares it out by design.
    grad = np.random.default_rng(3).normal(size=(4, 50)).astype("float32")
    step = ThreatModel(norm, 1.0).steepest_step(grad, 0.3).numpy()
    dual = {
        "linf": np.abs(grad).sum(1),
        "l2": np.linalg.norm(grad, axis=1),
        "l1": np.abs(grad).max(1),
    }[norm]
    np.testing.assert_allclose((grad * step).sum(1), 0.3 * dual, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_step_ignores_the_gradients_scale_and_survives_zero(norm):
    grad, threat = images(4) - 0.5, ThreatModel(norm, EPS[norm])
    np.testing.assert_allclose(
        threat.steepest_step(grad * 1e-20, 0.1), threat.steepest_step(grad, 0.1), rtol=1e-4
    )
    assert np.array_equal(threat.steepest_step(np.zeros_like(grad), 0.1), np.zeros_like(grad))


@pytest.mark.parametrize(
    ("norm", "radius"), [("linf", 1.0), ("l2", 48**0.5), ("l1", 48.0), ("l0", 16.0)]
)
def test_the_largest_radius_reaches_from_black_to_white(norm, radius):
    ball = ThreatModel(norm, radius)
    assert ball.largest_radius((4, 4, 3)) == pytest.approx(radius)
    black, white = (np.full((1, 4, 4, 3), value, np.float32) for value in (0, 1))
    assert float(ball.distance(white, black)[0]) == pytest.approx(radius)


def test_nan_is_outside():
    threat, x = ThreatModel("linf", 0.1), images()
    assert not np.any(threat.contains(np.full_like(x, np.nan), x))


@pytest.mark.parametrize(
    "wrong", [{"norm": "l3"}, {"eps": -1.0}, {"eps": float("nan")}, {"bounds": (1.0, 0.0)}]
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ThreatModel(**wrong)
