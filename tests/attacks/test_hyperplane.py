"""The step onto a hyperplane, against general solvers and against optimality itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from tfrobust.attacks.hyperplane import NORMS, dual_norm, step_onto_hyperplane
from tfrobust.errors import UsageError
from tfrobust.runtime import tf

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def problems(rows=24, size=7, seed=0):
    """Points with some coordinates at their bounds, slopes with some zeros, near planes."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.3, 1.3, (rows, size)), 0, 1)
    slope = rng.normal(size=(rows, size)) * (rng.uniform(size=(rows, size)) < 0.8)
    slope[:, 0] += 0.1
    # A point of the box lies on each plane: it can be reached.
    value = -np.sum(slope * (rng.uniform(0, 1, (rows, size)) - x), axis=1)
    return x.astype("float32"), slope.astype("float32"), value.astype("float32")


def linear_program(x, slope, value, norm):
    """The least length of a step, by scipy: linf and l1 are linear programs."""
    n = len(x)
    low, high = -x, 1 - x
    if norm == "linf":
        cost, bounds = [*np.zeros(n), 1], [*zip(low, high, strict=True), (0, None)]
        above = np.c_[np.r_[np.eye(n), -np.eye(n)], -np.ones(2 * n)]
        plane = np.r_[slope, 0]
    else:
        cost = np.r_[np.zeros(n), np.ones(n)]
        bounds = [*zip(low, high, strict=True), *[(0, None)] * n]
        above = np.block([[np.eye(n), -np.eye(n)], [-np.eye(n), -np.eye(n)]])
        plane = np.r_[slope, np.zeros(n)]
    found = linprog(cost, above, np.zeros(2 * n), plane[None], [-value], bounds=bounds)
    assert found.success
    return found.fun


def quadratic_program(x, slope, value):
    constraint = {"type": "eq", "fun": lambda d: value + slope @ d, "jac": lambda d: slope}
    found = minimize(
        lambda d: d @ d,
        np.zeros(len(x)),
        jac=lambda d: 2 * d,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints=constraint,
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    return np.sqrt(found.fun)


@pytest.mark.parametrize("norm", NORMS)
def test_reaches_the_plane_inside_the_box_with_the_shortest_step(norm):
    x, slope, value = problems()
    step = step_onto_hyperplane(x, slope, value, norm, (0.0, 1.0)).numpy()
    np.testing.assert_allclose(value + np.sum(slope * step, axis=1), 0, atol=1e-5)
    assert (x + step).min() >= -1e-6 and (x + step).max() <= 1 + 1e-6
    for row in range(len(x)):
        problem = [v[row].astype(float) for v in (x, slope, value)]
        least = quadratic_program(*problem) if norm == "l2" else linear_program(*problem, norm)
        assert np.linalg.norm(step[row], ORDER[norm]) == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_exact_for_images_with_thousands_of_breakpoints(norm):
    x, slope, value = problems(rows=8, size=3072, seed=1)
    step = step_onto_hyperplane(x, slope, value, norm, (0.0, 1.0)).numpy()
    missed = np.abs(value + np.sum(slope.astype(float) * step, axis=1))
    assert np.all(missed < 1e-5 * np.abs(slope).sum(axis=1))
    # Optimal exactly if all coordinates that are not at a bound share one level:
    # the same length in linf, the same multiple of the slope in l2.
    room = np.where(slope * value[:, None] < 0, 1 - x, x)
    free = (slope != 0) & (np.abs(step) < room - 1e-6)
    level = np.abs(step) / (np.maximum(np.abs(slope), 1e-9) if norm == "l2" else 1)
    for row in range(len(x)):
        assert np.ptp(level[row][free[row]]) < 1e-5 * level[row][free[row]].max()
        ended = (slope[row] != 0) & ~free[row]
        reach = level[row][free[row]].max() * (np.abs(slope[row]) if norm == "l2" else 1)
        assert np.all((room[row] <= reach + 1e-5)[ended])


@pytest.mark.parametrize("norm", NORMS)
def test_goes_to_the_bounds_where_the_plane_is_out_of_reach(norm):
    x = np.array([[0.25, 0.5, 1.0]], "float32")
    slope = np.array([[1.0, -2.0, 0.0]], "float32")
    step = step_onto_hyperplane(x, slope, np.array([-100.0], "float32"), norm, (0.0, 1.0))
    np.testing.assert_allclose(step, [[0.75, -0.5, 0.0]], atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_stays_where_there_is_nothing_to_do(norm):
    x = np.full((2, 3), 0.5, "float32")
    slope = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], "float32")
    step = step_onto_hyperplane(x, slope, np.array([1.0, 0.0], "float32"), norm, (0.0, 1.0))
    np.testing.assert_array_equal(step, np.zeros((2, 3)))


@pytest.mark.parametrize("norm", NORMS)
def test_scale_of_the_function_does_not_matter(norm):
    x, slope, value = problems()
    step = step_onto_hyperplane(x, slope, value, norm, (0.0, 1.0))
    tiny = step_onto_hyperplane(x, slope * 1e-30, value * 1e-30, norm, (0.0, 1.0))
    np.testing.assert_allclose(step, tiny, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_bounds_are_those_given_and_rows_are_independent(norm):
    x, slope, value = problems()
    wide = step_onto_hyperplane(x, slope, value * 5, norm, (-99.0, 99.0)).numpy()
    # Without bounds in the way the length is |value| / dual norm.
    np.testing.assert_allclose(
        np.linalg.norm(wide, ORDER[norm], axis=1),
        np.abs(value * 5) / dual_norm(tf.constant(slope), norm),
        rtol=1e-4,
    )
    alone = step_onto_hyperplane(x[3:4], slope[3:4], value[3:4] * 5, norm, (-99.0, 99.0))
    np.testing.assert_allclose(wide[3:4], alone, rtol=1e-5, atol=1e-7)


def test_unknown_norm_is_named():
    with pytest.raises(UsageError, match="l0"):
        step_onto_hyperplane(*problems(rows=1), "l0", (0.0, 1.0))
