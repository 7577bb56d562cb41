"""Blur corruptions. Each takes images [B, H, W, 3], a severity and seeds [B, 2]."""

from __future__ import annotations

import numpy as np

from tfrobust.data.augment import uniform
from tfrobust.data.corruptions.geometry import (
    clipped_zoom,
    gaussian,
    grid,
    motion,
    parameters_at,
)
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

_MOTION, _GLASS = 110, 120

# Radius of the disk, and standard deviation of the Gaussian that smooths its edge.
_DEFOCUS = {
    32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
}
# Standard deviation of the Gaussian before and after, maximum distance, repetitions.
_GLASS_BLUR = {
    32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
}
# Radius and standard deviation of the streaks.
_MOTION_BLUR = {
    32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
}
# Zooms from 1 to this (counted as by numpy.arange), in steps of 0.01.
_ZOOM_BLUR = dict.fromkeys((32, 64), (1.06, 1.11, 1.16, 1.21, 1.26))


def defocus_blur(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Convolution with a smoothed disk; the image is mirrored at its edges. Deterministic."""
    (radius, smoothing), scale = parameters_at(_DEFOCUS, x, severity)
    kernel = _disk(radius * scale, smoothing)
    pad = len(kernel) // 2
    padded = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]], mode="REFLECT")
    filters = tf.constant(np.repeat(kernel[:, :, None, None], 3, axis=2), tf.float32)
    return tf.nn.depthwise_conv2d(padded, filters, [1, 1, 1, 1], "VALID")


def _disk(radius: float, smoothing: float) -> np.ndarray:
    reach = int(np.ceil(radius)) + 2
    squares = np.arange(-reach, reach + 1) ** 2
    disk = (squares[:, None] + squares <= radius**2).astype(float)
    # A Gaussian truncated to 3x3 pixels (5x5 for large disks), whatever its width.
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-(taps**2) / (2 * smoothing**2))
    weights /= weights.sum()
    smooth = np.apply_along_axis(np.convolve, 0, disk, weights, mode="same")
    smooth = np.apply_along_axis(np.convolve, 1, smooth, weights, mode="same")
    return np.asarray(smooth / smooth.sum())


def glass_blur(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Gaussian blur, pixels taken from random nearby positions, and Gaussian blur again.

    The authors' code is written as swaps, one pixel after the other, but copies: each pixel
    takes the colour of a random nearby one. Here all pixels do so at once.
    """
    (sigma, reach, rounds), scale = parameters_at(_GLASS_BLUR, x, severity)
    sigma, reach = sigma * scale, max(round(reach * scale), 1)
    # In the published method the shuffled image has 8 bits.
    x = tf.floor(gaussian(x, sigma) * 255) / 255
    for i in range(rounds):
        x = _shuffle(x, reach, seeds, _GLASS + i)
    return gaussian(x, sigma)


def _shuffle(x: Tensor, reach: int, seeds: Tensor, stream: int) -> Tensor:
    height, width, channels = x.shape[1:]
    draws = grid(uniform(seeds, stream, 2 * height * width), height, width, 2)
    # From -reach to reach - 1, as published; a border is unchanged.
    offsets = tf.cast(draws * (2 * reach), tf.int32) - reach
    inner = np.zeros((height, width), np.int32)
    inner[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = 1
    places = np.arange(height * width).reshape(height, width)
    places = places + inner * (offsets[..., 0] * width + offsets[..., 1])
    flat = tf.reshape(x, [-1, height * width, channels])
    index = tf.reshape(places, [-1, height * width])
    return tf.reshape(tf.gather(flat, index, axis=1, batch_dims=1), tf.shape(x))


def motion_blur(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Streaks in one direction, at an angle uniform in +-45 degrees from the horizontal."""
    (radius, sigma), scale = parameters_at(_MOTION_BLUR, x, severity)
    angle = 90 * uniform(seeds, _MOTION, 1)[:, 0] - 45
    return motion(x, radius * scale, sigma * scale, angle)


def zoom_blur(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """The mean of the image and of itself at increasing zooms. Deterministic."""
    last, _ = parameters_at(_ZOOM_BLUR, x, severity)
    factors = np.arange(1, last, 0.01)
    total = x
    for factor in factors:
        total += clipped_zoom(x, float(factor))
    return total / (len(factors) + 1)
