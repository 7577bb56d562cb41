"""Saliency maps: the gradient of one logit with respect to the pixels, with its sign."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.runtime import import_legacy, keras, tf

# Pixels per call, unless the images themselves have more: 128 images of 64x64.
_PIXELS = 128 * 64 * 64


def saliency(model: keras.Model, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The gradient d logit[target] / dx, in inference mode (Simonyan et al. 2013).

    Args:
      model: image in [0, 1] -> logits [N, K]. Probabilities would flatten the gradient
        towards 0.
      x: float32 [N, H, W, C] in [0, 1], one batch.
      target: int [N], the class of each image to explain.

    Returns:
      float32 [N, H, W, C], signed: logits per unit of pixel value; 0 everywhere if the logit does
      not depend on the image.

    Raises:
      UsageError: `x` or `target` is invalid.
      TFRobustError: the gradient is not finite.
    """
    check(model, x, target)
    return _gradient(model, x, target)


def smoothgrad(
    model: keras.Model,
    x: np.ndarray,
    target: np.ndarray,
    *,
    noise: float = 0.15,
    samples: int = 25,
    seed: int = 0,
) -> np.ndarray:
    """SmoothGrad: the mean gradient over noisy copies of the image (Smilkov et al. 2017).

    All images of a batch get the same noise, scaled by their own contrast. So an image's map does
    not depend on the others in its batch, and the maps of a clean and its adversarial image
    differ by the images and not by the noise.

    Args:
      model, x, target: as in `saliency`.
      noise: standard deviation of the Gaussian noise, as a fraction of the image's range (maximum
        - minimum); the paper recommends 0.1 to 0.2.
      samples: number of noisy copies, each with one gradient; at least 1.
      seed: the same seed gives the same maps.

    Returns:
      float32 [N, H, W, C], signed.

    Raises:
      UsageError: an argument is invalid.
      TFRobustError: a gradient is not finite.
    """
    check(model, x, target)
    if noise < 0 or samples < 1:
        raise UsageError(
            f"Expected noise of 0 or more and at least 1 sample, found {noise} and {samples}."
        )
    generator = np.random.default_rng(seed)
    pixels = tuple(range(1, x.ndim))
    scale = noise * np.ptp(x, axis=pixels, keepdims=True)
    total = np.zeros(x.shape, np.float64)
    # Copies are batched: an eager call on few pixels is mostly overhead.
    at_once = max(1, _PIXELS // x[..., 0].size)
    for done in range(0, samples, at_once):
        count = min(at_once, samples - done)
        draws = generator.standard_normal((count, 1, *x.shape[1:]), dtype=np.float32)
        copies = (x + scale * draws).reshape(-1, *x.shape[1:])
        found = _gradient(model, copies, np.tile(target, count))
        total += found.reshape(count, *x.shape).sum(axis=0, dtype=np.float64)
    return (total / samples).astype(np.float32)


def parts(signed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positive and the negative part, both non-negative; positive - negative is `signed`."""
    return np.maximum(signed, 0), np.maximum(-signed, 0)


def sum_channels(maps: np.ndarray) -> np.ndarray:
    """[N, H, W, C] -> [N, H, W]; a sum, so that it commutes with the difference of parts."""
    return maps.sum(axis=-1)


def heat(maps: np.ndarray) -> np.ndarray:
    """The weight of each pixel, [N, H, W], 0 or more: absolute values summed over channels."""
    return np.abs(maps).sum(axis=-1) if maps.ndim == 4 else maps


def scale(maps: np.ndarray, percentile: float = 99.0) -> np.ndarray:
    """Scales each map to [0, 1] for display, however small its values are.

    Each map is divided by its own percentile, so that a few extreme pixels do not darken the
    rest; if the percentile is 0 (a sparse map), by its maximum; a map of zeros stays zero. Maps
    scaled separately cannot be compared in strength.

    Args:
      maps: [N, H, W] or [N, H, W, C], >= 0.
      percentile: in (0, 100]; higher values are shown as 1.

    Returns:
      float32, of the shape of `maps`.

    Raises:
      UsageError: a value is negative, or `percentile` is not in (0, 100].
    """
    if not 0 < percentile <= 100:
        raise UsageError(f"Expected a percentile in (0, 100], found {percentile}.")
    if maps.size and not maps.min() >= 0:
        raise UsageError(
            f"Expected maps of 0 or more, found {maps.min():g}: take parts(...) or np.abs first."
        )
    # float64 can divide even by the smallest float32.
    values = maps.astype(np.float64)
    pixels = tuple(range(1, maps.ndim))
    top = np.percentile(values, percentile, axis=pixels, keepdims=True)
    top = np.where(top > 0, top, values.max(axis=pixels, keepdims=True))
    return np.clip(values / np.where(top > 0, top, 1), 0, 1).astype(np.float32)


def _gradient(model: keras.Model, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    if not isinstance(model, keras.Model):
        return _by_tape(model, x, target)
    index = tf.constant(target, tf.int32)
    signed = import_legacy("tf_keras_vis.saliency").Saliency(model, clone=False)(
        lambda logits: tf.gather(logits, index, batch_dims=1),
        tf.constant(x, tf.float32),
        keepdims=True,
        gradient_modifier=None,
        normalize_map=False,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    found = np.asarray(signed)
    if not np.isfinite(found).all():
        raise TFRobustError(
            "Expected finite gradients of the logits, found NaN or infinity: "
            "explain an earlier checkpoint, or one trained in float32."
        )
    return found


def _by_tape(model: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The same for a function, or for a `Classifier` without accessible layers."""
    index, pixels = tf.constant(target, tf.int32), tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        logits = tf.gather(model(pixels), index, batch_dims=1)
    zero = tf.UnconnectedGradients.ZERO
    found: np.ndarray = tape.gradient(logits, pixels, unconnected_gradients=zero).numpy()
    if not np.isfinite(found).all():
        raise TFRobustError("Expected finite gradients of the logits, found NaN or infinity.")
    return found


def check(model: keras.Model, x: np.ndarray, target: np.ndarray) -> None:
    """Checks the arguments that all explainers share.

    Raises:
      UsageError: x is not float [N, H, W, C] in [0, 1], or target is not one class of the
        model for each image.
    """
    if not np.issubdtype(x.dtype, np.floating) or x.ndim != 4 or len(x) == 0:
        raise UsageError(
            f"Expected images as float [N, H, W, C] in [0, 1], N >= 1, found {x.dtype} "
            f"{list(x.shape)}: divide uint8 images by 255, and add a batch axis to a single image."
        )
    if not (x.min() >= 0 and x.max() <= 1):
        raise UsageError(
            f"Expected images in [0, 1], found {x.min():g} to {x.max():g}: "
            "divide pixels in 0..255 by 255."
        )
    target = np.asarray(target)
    if target.shape != (len(x),) or not np.issubdtype(target.dtype, np.integer):
        raise UsageError(
            f"Expected {len(x)} integer targets, one for each image, found {target.dtype} "
            f"{list(target.shape)}: repeat a single class with np.full(len(x), ...)."
        )
    classes = model.classes if hasattr(model, "around") else model.output_shape[-1]
    if not (target.min() >= 0 and target.max() < classes):
        raise UsageError(
            f"Expected targets in 0..{classes - 1}, the model's classes, "
            f"found {target.min()} to {target.max()}."
        )
