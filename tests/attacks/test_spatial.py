"""Rotation and translation: by hand on models that look at one place."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.spatial import moved, spatial_accuracy
from tfrobust.errors import UsageError
from tfrobust.runtime import tf


def dots(*places, side=9):
    """Images that are black but for one white pixel each, at (row, column)."""
    x = np.zeros((len(places), side, side, 1), "float32")
    for image, (row, column) in zip(x, places, strict=True):
        image[row, column] = 1
    return x


def left_or_right(x):
    """Class 1 where the right-hand columns (from the sixth) are brighter than the rest."""
    right, left = tf.reduce_sum(x[:, :, 5:], axis=[1, 2, 3]), tf.reduce_sum(x[:, :, :5], [1, 2, 3])
    return tf.stack([left, right], axis=1)


def test_nothing_moved_is_clean_accuracy():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(20, 9, 9, 1)).astype("float32"), np.arange(20) % 2
    for settings in ({"grid": (3, 3)}, {"draws": 3}):
        found = spatial_accuracy(left_or_right, (x, y), degrees=0, pixels=0, **settings)
        np.testing.assert_array_equal(found.clean, found.robust)
        assert 0 < found.clean_accuracy < 1 and not found.broken_at.any()
    np.testing.assert_array_equal(moved(tf.constant(x), tf.zeros([20, 3])), x)


def test_a_shift_breaks_exactly_what_lies_near_the_line():
    # Columns 0..4 are class 0: a shift of 2 takes 3 and 4 over the line, and 5, 6 back.
    x, y = dots(*((4, column) for column in range(2, 7))), np.array([0, 0, 0, 1, 1])
    found = spatial_accuracy(left_or_right, (x, y), degrees=0, pixels=2, grid=(1, 5), batch_size=2)
    assert found.clean_accuracy == 1 and found.tried == 25
    assert found.robust.tolist() == [True, False, False, False, False]
    assert (np.abs(found.broken_at[1:, 1]) >= 1).all() and not found.broken_at[0].any()


def test_turns_and_shifts_go_where_they_say():
    x = tf.constant(dots((4, 7)))
    quarter = moved(x, tf.constant([[np.pi / 2, 0.0, 0.0]])).numpy()
    # Counter-clockwise, from the right of the centre to above it.
    np.testing.assert_allclose(quarter, dots((1, 4)), atol=1e-5)
    np.testing.assert_allclose(moved(x, tf.constant([[0.0, 1.0, 2.0]])), dots((6, 8)), atol=1e-6)


def test_draws_repeat_and_find_no_more_than_is_there():
    x, y = dots((4, 2), (4, 4)), np.array([0, 0])
    one, two = (spatial_accuracy(left_or_right, (x, y), degrees=0, pixels=2, draws=20, seed=1)
                for _ in range(2))  # fmt: skip
    np.testing.assert_array_equal(one.broken_at, two.broken_at)
    assert one.robust.tolist() == [True, False] and 0.5 < one.broken_at[1, 1] <= 2


@pytest.mark.parametrize("wrong", [
    {"degrees": -1}, {"pixels": -1}, {"grid": (0, 5)}, {"draws": 0}, {"batch_size": 0},
])  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        spatial_accuracy(left_or_right, (dots((1, 1)), np.array([0])), **wrong)
