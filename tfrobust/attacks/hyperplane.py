"""The exact shortest step onto a hyperplane inside a box, in linf, l2 and l1.

The box projection of the FAB attack (Croce and Hein, 2020, appendix of
https://arxiv.org/abs/1907.02044), for whole batches and without Python state.
"""

from __future__ import annotations

from tfrobust.attacks.active_rows import where
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

NORMS = ("linf", "l2", "l1")
# Stands for infinity in products: 0 * inf is NaN.
_HUGE = 1e30


def dual_norm(slope: Tensor, norm: str) -> Tensor:
    """The dual norm of each row: the growth of a linear function per unit distance.

    Args:
      slope: float32 [M, N].
      norm: the norm that measures distances, a name of `NORMS`.

    Returns:
      float32 [M].
    """
    _check(norm)
    if norm == "linf":
        return tf.reduce_sum(tf.abs(slope), axis=1)
    return tf.norm(slope, axis=1) if norm == "l2" else tf.reduce_max(tf.abs(slope), axis=1)


def step_onto_hyperplane(
    x: Tensor, slope: Tensor, value: Tensor, norm: str, bounds: tuple[float, float]
) -> Tensor:
    """The shortest step d with ``value + slope . d = 0`` and ``x + d`` inside the bounds.

    If the hyperplane misses the box, every coordinate with a slope goes to the bound nearer to
    the hyperplane. Coordinates of slope 0 do not move.

    Args:
      x: points inside the bounds, float32 [M, N].
      slope: gradient of a linear function, float32 [M, N].
      value: its value at x, float32 [M].
      norm: the norm in which the step is shortest, a name of `NORMS`.
      bounds: (low, high) of every coordinate.

    Returns:
      The steps, float32 [M, N].

    Raises:
      UsageError: unknown norm.
    """
    _check(norm)
    # All in units of the largest slope: products of tiny gradients underflow.
    scale = tf.reduce_max(tf.abs(slope), axis=1)
    weight = tf.math.divide_no_nan(tf.abs(slope), scale[:, None])
    needed = tf.minimum(tf.math.divide_no_nan(tf.abs(value), scale), _HUGE)
    direction = -tf.sign(slope) * tf.sign(value)[:, None]
    low, high = bounds
    room = tf.maximum(where(direction > 0, high - x, x - low), 0.0) * tf.abs(direction)
    if norm == "l1":
        return direction * _heaviest_first(weight, room, needed)
    if norm == "linf":
        # All coordinates move at the same speed; those without a slope have no room.
        level = _level(weight, weight * room, room, needed)
        return direction * tf.minimum(level[:, None], room)
    level = _level(weight * weight, weight * room, _ends(room, weight), needed)
    return direction * tf.minimum(level[:, None] * weight, room)


def _check(norm: str) -> None:
    if norm not in NORMS:
        raise UsageError(f"norm: expected one of {', '.join(NORMS)}, found {norm!r}.")


def _ends(room: Tensor, speed: Tensor) -> Tensor:
    """The level at which each coordinate meets its bound; 0 where it does not move."""
    return tf.minimum(tf.math.divide_no_nan(room, speed), _HUGE)


def _level(rate: Tensor, full: Tensor, ends: Tensor, needed: Tensor) -> Tensor:
    """The level at which the coordinates' gains sum to what is needed, float32 [M].

    Coordinate i gains ``rate_i * level`` up to ``ends_i``, and ``full_i`` from there on. The sum
    is concave and piecewise linear: Newton's method from below never overshoots, fixes more
    coordinates at their bounds in each pass, and is exact once that set stops changing. This
    takes a handful of passes, less than sorting thousands of breakpoints.
    """
    reachable = needed < tf.reduce_sum(full, axis=1)
    # From below: as if there were no bounds. If out of reach, all go to their bounds.
    start = tf.where(reachable, _share(needed, tf.reduce_sum(rate, axis=1)), _HUGE)

    def newton(level: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        ended = tf.cast(ends <= level[:, None], rate.dtype)
        left = needed - tf.reduce_sum(full * ended, axis=1)
        target = _share(left, tf.reduce_sum(rate * (1.0 - ended), axis=1))
        # Rounding must not lower the level: the set of bounded coordinates would oscillate.
        target = tf.maximum(level, target)
        return target, tf.reduce_any(target > level)

    state = (start, tf.constant(True))
    return tf.while_loop(lambda _, moves: moves, newton, state, parallel_iterations=1)[0]


def _share(needed: Tensor, growth: Tensor) -> Tensor:
    """The level needed at `growth` per unit of level, capped."""
    return tf.where(growth > 0, tf.minimum(needed / growth, _HUGE), _HUGE)


def _heaviest_first(weight: Tensor, room: Tensor, needed: Tensor) -> Tensor:
    """In l1 the steepest coordinates move first, each as far as it has room."""
    order = tf.argsort(weight, axis=1, direction="DESCENDING", stable=True)
    gain = tf.gather(weight * room, order, batch_dims=1)
    spent = tf.minimum(tf.maximum(needed[:, None] - _before(gain), 0.0), gain)
    length = tf.math.divide_no_nan(spent, tf.gather(weight, order, batch_dims=1))
    return tf.gather(length, tf.argsort(order, axis=1), batch_dims=1)


def _before(gain: Tensor) -> Tensor:
    return tf.cumsum(gain, axis=1, exclusive=True)
