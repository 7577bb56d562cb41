"""Shared helpers of the corruptions: filters, zooms and resampling of whole batches."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from tfrobust.data.augment import uniform
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

Parameters = Mapping[int, tuple[Any, ...]]


def parameters_at(table: Parameters, x: Tensor, severity: int) -> tuple[Any, float]:
    """The parameters for images of this size, and the factor for lengths in pixels.

    Args:
      table: image side, 32 or 64 -> parameters by severity.
      x: [B, H, W, C].
      severity: 1 to 5.
    """
    side = min(x.shape[1:3])
    # The geometric mean of 32 and 64 divides the two.
    reference = 32 if side < 45 else 64
    # Below 32, shorter lengths would soon be less than a pixel, without effect.
    return table[reference][severity - 1], max(side, 32) / reference


def grid(values: Tensor, *shape: int) -> Tensor:
    """[B, n] as [B, *shape]."""
    return tf.reshape(values, [-1, *shape])


def along_axes(x: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Linear maps [out, in] applied to the rows and to the columns of [B, H, W, C]."""
    x = tf.einsum("oh,bhwc->bowc", tf.constant(rows, tf.float32), x)
    return tf.einsum("ow,bhwc->bhoc", tf.constant(columns, tf.float32), x)


def gaussian(x: Tensor, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> Tensor:
    """Gaussian blur of [B, H, W, C]; `mode` and `truncate` as in SciPy."""
    maps = [_gaussian_map(side, sigma, mode, truncate) for side in x.shape[1:3]]
    return along_axes(x, *maps)


@functools.lru_cache(maxsize=64)
def _gaussian_map(side: int, sigma: float, mode: str, truncate: float) -> np.ndarray:
    return np.asarray(
        ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode=mode, truncate=truncate)
    )


def clipped_zoom(x: Tensor, factor: float) -> Tensor:
    """The centre of [B, H, W, C], enlarged by `factor` >= 1 (linear) to the same size."""
    return along_axes(x, *(_zoom_map(side, factor) for side in x.shape[1:3]))


@functools.lru_cache(maxsize=256)
def _zoom_map(side: int, factor: float) -> np.ndarray:
    inner = int(np.ceil(side / factor))
    top = (side - inner) // 2
    zoomed = ndimage.zoom(np.eye(side)[top : top + inner], (factor, 1), order=1)
    trim = (len(zoomed) - side) // 2
    return np.asarray(zoomed[trim : trim + side])


def motion(x: Tensor, radius: float, sigma: float, angle: Tensor) -> Tensor:
    """One-sided Gaussian streaks, as ImageMagick's motion blur; the edge is repeated.

    Args:
      x: [B, H, W, C].
      radius: a streak has 2 * radius + 1 pixels, fewer if the Gaussian vanishes earlier.
      sigma: its standard deviation, in pixels.
      angle: float32 [B], degrees from the horizontal.
    """
    taps = min(2 * round(radius) + 1, int(np.ceil(5 * sigma)) + 1)
    weights = np.exp(-(np.arange(taps) ** 2) / (2 * sigma**2))
    radians = angle * (np.pi / 180)
    total = tf.zeros_like(x)
    for i, weight in enumerate(weights / weights.sum()):
        down = tf.cast(tf.math.ceil(i * tf.sin(radians) - 0.5), tf.int32)
        across = tf.cast(tf.math.ceil(i * tf.cos(radians) - 0.5), tf.int32)
        total += float(weight) * _shifted(x, down, across)
    return total


def _shifted(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    for axis, offset in ((1, down), (2, across)):
        side = x.shape[axis]
        index = tf.clip_by_value(tf.range(side)[None] + offset[:, None], 0, side - 1)
        x = tf.gather(x, index, axis=axis, batch_dims=1)
    return x


def sample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[B, H, W, C] sampled between pixels (bilinear), mirrored at the edges.

    Args:
      x: [B, H, W, C].
      rows: float32 [B, H, W], in pixels.
      columns: like rows.
    """
    height, width, channels = x.shape[1:]
    flat = tf.reshape(x, [-1, height * width, channels])
    top, left = tf.floor(rows), tf.floor(columns)
    total = tf.zeros_like(x)
    for down in (0, 1):
        for right in (0, 1):
            weight = tf.abs(1 - down - (rows - top)) * tf.abs(1 - right - (columns - left))
            place = _mirror(top + down, height) * width + _mirror(left + right, width)
            index = tf.reshape(place, [-1, height * width])
            values = tf.gather(flat, index, axis=1, batch_dims=1)
            total += weight[..., None] * tf.reshape(values, tf.shape(x))
    return total


def _mirror(index: Tensor, side: int) -> Tensor:
    period = 2 * (side - 1)
    index = tf.math.floormod(tf.cast(index, tf.int32), period)
    return tf.minimum(index, period - index)


def plasma(seeds: Tensor, stream: int, side: int, decay: float) -> Tensor:
    """Cloud-like height maps by the diamond-square algorithm, [B, side, side] in [0, 1].

    Each level halves the spacing, and divides the size of the random part by decay^2.
    """
    levels = int(np.ceil(np.log2(side)))
    heights, wibble = tf.zeros([tf.shape(seeds)[0], 1, 1]), 1.0
    for level in range(levels):
        draws = 2 * grid(uniform(seeds, stream + level, 3 * 4**level), 3, 2**level, 2**level) - 1
        heights = _diamond_square(heights, wibble * draws)
        wibble /= decay
    heights = heights[:, :side, :side]
    low = tf.reduce_min(heights, axis=[1, 2], keepdims=True)
    span = tf.reduce_max(heights, axis=[1, 2], keepdims=True) - low
    return (heights - low) / span


def _diamond_square(corners: Tensor, noise: Tensor) -> Tensor:
    """[B, n, n] on a torus, and noise [B, 3, n, n] -> [B, 2n, 2n]."""
    below = tf.roll(corners, -1, axis=1)
    right = tf.roll(corners, -1, axis=2)
    middle = (corners + below + right + tf.roll(below, -1, axis=2)) / 4 + noise[:, 0]
    upper = (middle + tf.roll(middle, 1, axis=1) + corners + right) / 4 + noise[:, 1]
    side = (middle + tf.roll(middle, 1, axis=2) + corners + below) / 4 + noise[:, 2]
    rows = [tf.stack(pair, axis=3) for pair in ((corners, upper), (side, middle))]
    n = corners.shape[1]
    return tf.reshape(tf.stack(rows, axis=2), [-1, 2 * n, 2 * n])
