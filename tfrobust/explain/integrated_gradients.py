"""Integrated gradients: attributions that sum to what they explain."""

from __future__ import annotations

import numpy as np

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.explain.saliency import check
from tfrobust.models.inference import inference
from tfrobust.runtime import keras, tf
from tfrobust.typing import Tensor


def integrated_gradients(
    model: keras.Model,
    x: np.ndarray,
    target: np.ndarray,
    *,
    baseline: float = 0.0,
    steps: int = 50,
) -> np.ndarray:
    """The gradient of the target's logit, averaged along the path from a baseline to x.

    Sundararajan et al. (2017), https://arxiv.org/abs/1703.01365: (x - baseline) times the
    integral of the gradient along the straight line between them, by the midpoint rule.
    Completeness: the attributions of an image sum to the difference of the logit at x and at the
    baseline, up to the error of the rule, which `measures.completeness` measures.

    Args:
      model: image in [0, 1] -> logits [N, K].
      x: float32 [N, H, W, C] in [0, 1], one batch.
      target: int [N], the class of each image to explain.
      baseline: the value of every pixel of the baseline image, in [0, 1]; 0 is black.
      steps: number of points on the path, each with one gradient; at least 1.

    Returns:
      float32 [N, H, W, C], signed, in logits.

    Raises:
      UsageError: an argument is invalid.
      TFRobustError: a gradient is not finite.
    """
    check(model, x, target)
    if not 0 <= baseline <= 1 or steps < 1:
        raise UsageError(
            f"Expected a baseline in [0, 1] and at least 1 step, found {baseline} and {steps}."
        )
    plain = tf.fill(x.shape, tf.constant(baseline, tf.float32))
    way = tf.constant(x, tf.float32) - plain
    mean = _mean_gradient(model, plain, way, tf.constant(target, tf.int32), steps)
    found = (way * mean).numpy()
    if not np.isfinite(found).all():
        raise TFRobustError(
            "Expected finite gradients of the logits, found NaN or infinity: "
            "explain an earlier checkpoint, or one trained in float32."
        )
    return np.asarray(found, np.float32)


def _mean_gradient(
    model: keras.Model, plain: Tensor, way: Tensor, target: Tensor, steps: int
) -> Tensor:
    """The gradient's mean at the midpoints of `steps` equal parts of the path."""
    classify = inference(model)

    def gradient(part: Tensor) -> Tensor:
        point = plain + part * way
        with tf.GradientTape() as tape:
            tape.watch(point)
            logits = tf.gather(classify(point), target, batch_dims=1)
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(logits, point, unconnected_gradients=zero)

    @tf.function(autograph=False)
    def total() -> Tensor:
        def step(i: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, found + gradient((tf.cast(i, tf.float32) + 0.5) / steps)

        begin = (tf.constant(0), tf.zeros_like(way))
        return tf.while_loop(lambda i, _: i < steps, step, begin, parallel_iterations=1)[1]

    return total() / steps
