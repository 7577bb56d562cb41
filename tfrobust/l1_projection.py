"""The Euclidean projection onto the intersection of an l1 ball and a box.

Croce and Hein (2021), "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", https://arxiv.org/abs/2103.01208: projecting onto the ball and then clipping uses
only part of the radius near the bounds, and makes attacks look weaker than they are.
"""

from __future__ import annotations

from typing import Any

from tfrobust.runtime import tf
from tfrobust.typing import Tensor

# A sum of thousands of changes, each rounded when added to a pixel, may exceed the radius by this
# share of it.
_SLACK = 2e-6
_TURNS = 90


def project_l1_in_box(delta: Tensor, room: Tensor, eps: Any) -> Tensor:
    """The nearest change whose absolute values sum to at most eps, each within its room.

    Each value shrinks by the same level, down to 0, and is then limited by its room: the level is
    0 if that is enough, else the one at which the sum is eps.

    Args:
      delta: changes, float32 [B, N].
      room: how far each may go in its own direction, 0 or more, like delta.
      eps: the radius, scalar or [B, 1].

    Returns:
      float32 [B, N], with the signs of delta.
    """
    size, room = tf.abs(delta), tf.maximum(room, 0.0)
    eps = tf.reshape(tf.cast(eps, delta.dtype), [-1])
    level = tf.stop_gradient(_level(size, room, eps))
    return tf.sign(delta) * _spent(size, room, level)


def _spent(size: Tensor, room: Tensor, level: Tensor) -> Tensor:
    return tf.minimum(tf.maximum(size - level[:, None], 0.0), room)


def _level(size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """The level by which each example's values shrink, float32 [B].

    The sum is piecewise linear and decreasing in the level: Newton's steps, which reach the right
    piece after a few passes, kept inside a bracket that every third step bisects. No sorting.
    """
    most = eps * (1.0 - _SLACK)
    least, goal = most * (1.0 - _SLACK), most * (1.0 - _SLACK / 2)

    def turn(
        i: Tensor, low: Tensor, high: Tensor, level: Tensor, going: Tensor
    ) -> tuple[Tensor, ...]:
        left = size - level[:, None]
        total = tf.reduce_sum(_spent(size, room, level), axis=1)
        slope = tf.reduce_sum(tf.cast((left > 0) & (left < room), size.dtype), axis=1)
        fits = total <= most
        high = tf.where(going & fits, level, high)
        low = tf.where(going & ~fits, level, low)
        newton = level + tf.math.divide_no_nan(total - goal, slope)
        usable = (newton > low) & (newton < high) & (i % 3 < 2)
        new = tf.where(usable, newton, 0.5 * (low + high))
        # Stops at a sum that is near enough, or if no number lies in between.
        going = going & ~(fits & (total >= least)) & (new > low) & (new < high)
        return i + 1, low, high, tf.where(going, new, level), going

    beyond = tf.reduce_sum(tf.minimum(size, room), axis=1) > eps
    nothing = tf.zeros(tf.shape(size)[:1], size.dtype)
    state = (tf.constant(0), nothing, tf.reduce_max(size, axis=1), nothing, beyond)
    high: Tensor = tf.while_loop(
        lambda i, *rest: (i < _TURNS) & tf.reduce_any(rest[-1]), turn, state, parallel_iterations=1
    )[2]
    return tf.where(beyond, high, 0.0)
