"""What attacks without gradients ask a model, and what they draw."""

from __future__ import annotations

import numpy as np

from tfrobust.attacks.queries import ask, ask_each, at_once, cosines
from tfrobust.runtime import tf

X = tf.reshape(tf.range(12, dtype=tf.float32), [4, 1, 1, 3])
Y = tf.constant([2, 0, 2, 2])


class Model:
    """The image itself is its logits; notes what it is shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, x):
        self.shown += x[:, 0, 0, 0].numpy().tolist()
        return x[:, 0, 0]


def test_only_rows_that_are_wanted_are_shown():
    model = Model()
    loss, wrong = ask(model, X, Y, tf.constant([True, True, False, False]))
    assert model.shown == [0.0, 3.0]
    np.testing.assert_allclose(loss, [-1, 2, -np.inf, -np.inf])
    np.testing.assert_array_equal(wrong, [False, True, False, False])
    loss, wrong = ask(model, X, Y, tf.fill([4], False))
    assert len(model.shown) == 2 and not wrong.numpy().any()


def test_several_points_of_a_row_are_asked_with_its_label():
    points = tf.stack([X, -X], axis=1)
    wanted = tf.constant([[True, True], [False, False], [False, True], [True, False]])
    loss, wrong = ask_each(Model(), points, Y, wanted)
    np.testing.assert_allclose(loss, [[-1, 2], [-np.inf] * 2, [-np.inf, 2], [-1, -np.inf]])
    np.testing.assert_array_equal(wrong, [[0, 1], [0, 0], [0, 1], [0, 0]])


def test_what_is_not_finite_is_wrong_and_no_loss():
    loss, wrong = ask(lambda x: x[:, 0, 0] * np.nan, X, Y, tf.fill([4], True))
    assert wrong.numpy().all() and np.isneginf(loss).all()


def test_cosines_are_orthonormal():
    for side in (1, 5, 8):
        waves = cosines(side).numpy()
        np.testing.assert_allclose(waves @ waves.T, np.eye(side), atol=1e-5)
        # The first wave is flat.
        assert np.ptp(waves[0]) < 1e-6


def test_small_images_go_many_at_once_and_large_ones_alone():
    assert at_once(tf.zeros([1, 8, 8, 3]), 99) == 16
    assert at_once(tf.zeros([1, 8, 8, 3]), 5) == 5
    assert at_once(tf.zeros([1, 224, 224, 3]), 99) == 1
