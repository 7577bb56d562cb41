"""The projection onto an l1 ball inside a box, against a slow exact one and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.l1_projection import project_l1_in_box
from tfrobust.runtime import tf
from tfrobust.threat_model import L1


def slow(v, room, eps):
    """One example in float64, by trying every piece of the piecewise linear sum."""
    size = np.abs(v).astype("float64")

    def spent(level):
        return np.minimum(np.maximum(size - level, 0), room)

    if spent(0).sum() <= eps:
        return np.sign(v) * spent(0)
    ends = np.unique(np.concatenate([[0.0], size, np.maximum(size - room, 0)]))
    for low, high in zip(ends[:-1], ends[1:], strict=True):
        over, under = spent(low).sum(), spent(high).sum()
        if under <= eps < over:
            return np.sign(v) * spent(low + (over - eps) / (over - under) * (high - low))
    raise AssertionError("no piece holds the radius")


def cases(width, seed=0):
    """Changes and rooms of many kinds, some of them at a bound, float32 [6, width] each."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(6, width)) * np.array([[0.01], [0.1], [1], [1], [3], [20]])
    x = rng.uniform(size=(6, width))
    x[3] = rng.integers(0, 2, width)  # Black and white: half of the values cannot move.
    v[5] = np.round(v[5])  # Ties.
    return v.astype("float32"), np.where(v > 0, 1 - x, x).astype("float32")


@pytest.mark.parametrize("width", [1, 7, 300])
@pytest.mark.parametrize("eps", [0.05, 1.0, 12.0])
def test_it_is_the_exact_projection(width, eps):
    v, room = cases(width)
    found = project_l1_in_box(v, room, eps).numpy()
    for row, one in enumerate(found):
        np.testing.assert_allclose(one, slow(v[row], room[row], eps), atol=2e-5)
    assert (np.abs(found).sum(axis=1) <= eps).all() and (np.abs(found) <= room).all()


def test_by_hand():
    # Onto a radius of 1 with rooms .2, 1, 1: the first is held, the others share .8: level .5.
    v, room = np.float32([[[0.9, -1.1, 0.7]], [[0.2, 1.0, 1.0]]])
    np.testing.assert_allclose(project_l1_in_box(v, room, 1.0), [[0.2, -0.6, 0.2]], atol=1e-5)
    # The ball alone, then clipped, would be (.2, -.53, .13): .13 of the radius unused.
    assert np.array_equal(project_l1_in_box(v, room, 9.0), np.float32([[0.2, -1.0, 0.7]]))
    assert not np.any(project_l1_in_box(v, room, 0.0))


def test_no_point_of_both_is_nearer():
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(1, 5)).astype("float32")
    far = (x + rng.normal(size=x.shape)).astype("float32")
    ball = L1(0.7)
    nearest = np.linalg.norm(ball.project(far, x) - far)
    others = np.clip(x + rng.laplace(size=(20_000, 5)) * 0.2, 0, 1).astype("float32")
    others = others[np.abs(others - x).sum(axis=1) <= 0.7]
    assert len(others) > 1000 and np.linalg.norm(others - far, axis=1).min() >= nearest - 1e-6


def test_rows_have_radii_of_their_own_and_do_not_influence_each_other():
    v, room = cases(50)
    radii = np.linspace(0.1, 4, 6).astype("float32")[:, None]
    together = tf.function(project_l1_in_box)(v, room, tf.constant(radii)).numpy()
    for row in range(6):
        one = slice(row, row + 1)
        alone = project_l1_in_box(v[one], room[one], float(radii[row, 0]))
        np.testing.assert_allclose(together[one], alone, atol=1e-6)


@pytest.mark.parametrize("eps", [0.5, 12.0, 60.0])
def test_what_it_returns_is_in_the_ball_however_many_values_change(eps):
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(4, 64, 64, 3)).astype("float32")
    ball = L1(eps)
    for far in (x + rng.normal(size=x.shape), x + rng.laplace(size=x.shape) / 9, 1 - x):
        found = ball.project(far.astype("float32"), x)
        assert ball.contains(found, x).numpy().all()
        np.testing.assert_allclose(ball.distance(found, x), eps, rtol=2e-5)
