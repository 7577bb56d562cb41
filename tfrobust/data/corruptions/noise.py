"""Noise corruptions. Each takes images [B, H, W, 3], a severity and seeds [B, 2]."""

from __future__ import annotations

import math

from tfrobust.data.augment import add_poisson_noise, normal, uniform
from tfrobust.data.corruptions.geometry import grid, parameters_at
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

_GAUSSIAN, _IMPULSE = 100, 101

# Standard deviation.
_GAUSSIAN_NOISE = {32: (0.04, 0.06, 0.08, 0.09, 0.10), 64: (0.04, 0.08, 0.12, 0.15, 0.18)}
# Number of photons counted for a white pixel.
_SHOT_NOISE = {32: (500, 250, 100, 75, 50), 64: (250, 100, 50, 30, 15)}
# Share of the values that are replaced.
_IMPULSE_NOISE = {32: (0.01, 0.02, 0.03, 0.05, 0.07), 64: (0.01, 0.02, 0.05, 0.08, 0.14)}


def gaussian_noise(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Independent normal noise on each value, clipped to [0, 1]."""
    deviation, _ = parameters_at(_GAUSSIAN_NOISE, x, severity)
    return tf.clip_by_value(x + deviation * normal(seeds, _GAUSSIAN, x), 0.0, 1.0)


def shot_noise(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Poisson noise of a photon count (exact for 8-bit values), clipped to [0, 1]."""
    photons, _ = parameters_at(_SHOT_NOISE, x, severity)
    return tf.clip_by_value(add_poisson_noise(x, seeds, 1 / math.sqrt(photons)), 0.0, 1.0)


def impulse_noise(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Salt and pepper: values (each channel separately) become 0 or 1 with equal probability."""
    part, _ = parameters_at(_IMPULSE_NOISE, x, severity)
    draws = grid(uniform(seeds, _IMPULSE, math.prod(x.shape[1:])), *x.shape[1:])
    return tf.where(draws < part, tf.cast(draws < part / 2, x.dtype), x)
