"""Decision boundaries of a model: linearised around a point, or located on a segment.

All functions take a `model` from images float32 [M, H, W, C] to logits [M, K], K static.
"""

from __future__ import annotations

from typing import Any

from tfrobust.attacks.active_rows import is_correct, where
from tfrobust.attacks.hyperplane import dual_norm
from tfrobust.attacks.losses import margin, targeted_margin
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor


def boundary_with(model: Model, z: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The boundary between y and `target`: one forward and one backward pass.

    Non-finite values count as 0.

    Args:
      model: the classifier.
      z: where to linearise, float32 [M, H, W, C].
      y: the right classes, int [M].
      target: the other classes, int [M].

    Returns:
      The target's logit less the right one's, float32 [M], and its gradient, like z.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(z)
        logits = model(z)
    return _linearised(tape, logits, z, y, target)


def nearest_boundary(
    model: Model, z: Tensor, y: Tensor, norm: str, candidates: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The boundary of y whose linearisation is nearest to z, in the form of `boundary_with`.

    One forward pass serves all classes; each candidate class takes one backward pass. Only the
    nearest boundary so far is kept: neither the memory nor the graph grows with the number of
    classes.

    Args:
      model: the classifier.
      z: where to linearise, float32 [M, H, W, C].
      y: the right classes, int [M].
      norm: of distances: linf, l2 or l1.
      candidates: the wrong classes to consider, int like y [M, n]; None is all.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(z)
        logits = model(z)
    classes = int(logits.shape[1])
    count = classes - 1 if candidates is None else int(candidates.shape[1])

    def look(k: Tensor, nearest: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
        target = (y + 1 + k) % classes if candidates is None else candidates[:, k]
        other, grad = _linearised(tape, logits, z, y, target)
        growth = dual_norm(tf.reshape(grad, [tf.shape(grad)[0], -1]), norm)
        away = tf.abs(other) / tf.maximum(growth, 1e-30)
        better = away < nearest
        slope = where(better, grad, slope)
        return k + 1, tf.where(better, away, nearest), tf.where(better, other, value), slope

    zero = tf.zeros_like(logits[:, 0])
    state = (tf.constant(0, y.dtype), zero + float("inf"), zero, tf.zeros_like(z))
    found = tf.while_loop(lambda k, *_: k < count, look, state, parallel_iterations=1)
    return found[2], found[3]


def likely_classes(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The most likely wrong classes in order, at most `count`, int32 [M, min(count, K - 1)].

    Raises:
      UsageError: K is unknown or below 2.
    """
    classes = logits.shape[1]
    if classes is None or classes < 2:
        raise UsageError(f"Expected logits of at least 2 classes, found {classes!r}.")
    own = tf.one_hot(y, classes, on_value=True, off_value=False, dtype=tf.bool)
    return tf.math.top_k(tf.where(own, -float("inf"), logits), min(count, classes - 1)).indices


def search_segment(model: Model, x: Tensor, x_adv: Tensor, y: Tensor, steps: int) -> Tensor:
    """Misclassified points between x and x_adv, nearer to x than x_adv, or x_adv itself.

    False position on the margin, the final search of Croce and Hein (2020),
    https://arxiv.org/abs/1907.02044: `steps` + 2 forward passes. The margin of the end that
    stays is halved each time; otherwise, on a convex margin, the outer end would never move. The
    point tried stops 1 % short of the expected zero of the margin: on a straight margin, rounding
    would otherwise put it on either side.

    Args:
      model: the classifier.
      x: points classified as y, float32 [M, H, W, C], M of 1 or more.
      x_adv: misclassified points, like x.
      y: the right classes, int [M].
      steps: number of points to try.
    """

    def step(
        i: Tensor, inner: Tensor, outer: Tensor, below: Tensor, above: Tensor
    ) -> tuple[Tensor, ...]:
        share = tf.clip_by_value(tf.math.divide_no_nan(above, above - below), 0.0, 1.0) * 0.99
        tried = outer + column(share) * (inner - outer)
        logits = model(tried)
        value, wrong = margin(logits, y), ~is_correct(logits, y)
        inner = where(wrong, inner, tried)
        outer = where(wrong, tried, outer)
        below = tf.where(wrong, 0.5 * below, value)
        return i + 1, inner, outer, below, tf.where(wrong, value, 0.5 * above)

    # Both ends in one pass: each further pass is traced and optimised separately.
    ends = margin(model(tf.concat([x, x_adv], axis=0)), tf.concat([y, y], axis=0))
    state = (tf.constant(0), x, x_adv, *tf.split(ends, 2))
    found = tf.while_loop(lambda i, *_: i < steps, step, state, parallel_iterations=1)
    return found[2]


def column(values: Tensor) -> Tensor:
    """One value per example, [M], reshaped to broadcast with images: [M, 1, 1, 1]."""
    return values[:, None, None, None]


def _linearised(
    tape: Any, logits: Tensor, z: Tensor, y: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    classes = tf.shape(logits)[1]
    difference = tf.one_hot(target, classes) - tf.one_hot(y, classes)
    grad = tape.gradient(
        logits,
        z,
        output_gradients=difference,
        # A model that blocks its gradient (by rounding) has gradient 0; it is no error.
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return _finite(targeted_margin(logits, y, target)), _finite(grad)


def _finite(values: Tensor) -> Tensor:
    return where(tf.math.is_finite(values), values, tf.zeros_like(values))
