"""Weather corruptions. Each takes images [B, H, W, 3], a severity and seeds [B, 2]."""

from __future__ import annotations

import math

from tfrobust.data.augment import normal, uniform
from tfrobust.data.corruptions.geometry import (
    clipped_zoom,
    motion,
    parameters_at,
    plasma,
)
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

_SNOW, _SNOW_ANGLE, _FROST, _FROST_HAZE, _FOG = 130, 131, 132, 140, 160

# Mean and deviation of the flakes' noise, zoom, threshold, radius and deviation of the streaks,
# and the share of the image's own colour that remains.
_FLAKES = (
    (0.1, 0.2, 1, 0.6, 8, 3),
    (0.1, 0.2, 1, 0.5, 10, 4),
    (0.15, 0.3, 1.75, 0.55, 10, 4),
    (0.25, 0.3, 2.25, 0.6, 12, 6),
    (0.3, 0.3, 1.25, 0.65, 14, 12),
)
_COLOUR_LEFT = {32: (0.95, 0.9, 0.9, 0.85, 0.8), 64: (0.8, 0.8, 0.7, 0.65, 0.6)}
_SNOW_LAYER = {
    side: tuple((*f, left) for f, left in zip(_FLAKES, lefts, strict=True))
    for side, lefts in _COLOUR_LEFT.items()
}
# Weights of the image and of the texture.
_FROST_WEIGHTS = {
    32: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    64: ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
}
# Thickness, and decay of the fine structure of the clouds.
_FOG_LAYER = {
    32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
}
_BRIGHTNESS = {32: (0.05, 0.1, 0.15, 0.2, 0.3), 64: (0.1, 0.2, 0.3, 0.4, 0.5)}
_CRYSTALS = 14
# Ice rays are bluish white.
_ICE = (0.86, 0.94, 1.0)


def snow(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Streaks of flakes over a whitened image, falling 45 to 135 degrees from the horizontal."""
    parameters, scale = parameters_at(_SNOW_LAYER, x, severity)
    mean, deviation, zoom, threshold, radius, sigma, left = parameters
    flakes = clipped_zoom(mean + deviation * normal(seeds, _SNOW, x[..., :1]), zoom)
    flakes = tf.where(flakes < threshold, 0.0, tf.minimum(flakes, 1.0))
    angle = 90 * uniform(seeds, _SNOW_ANGLE, 1)[:, 0] - 135
    flakes = motion(flakes, radius * scale, sigma * scale, angle)
    whitened = tf.maximum(x, tf.image.rgb_to_grayscale(x) * 1.5 + 0.5)
    x = left * x + (1 - left) * whitened
    return tf.clip_by_value(x + flakes + tf.reverse(flakes, axis=[1, 2]), 0.0, 1.0)


def frost(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Ice crystals on a window in front of the image.

    The authors overlay photographs of frost. Here the texture is generated: six-rayed crystals
    with side branches at random positions, with random sizes and orientations, on a cloudy haze.
    """
    (own, ice), _ = parameters_at(_FROST_WEIGHTS, x, severity)
    height, width = x.shape[1:3]
    side = max(height, width)
    haze = plasma(seeds, _FROST_HAZE, side, 1.6)[:, :height, :width]
    rays = _crystals(seeds, height, width)
    texture = tf.minimum(0.15 + 0.4 * haze + (0.35 + 0.4 * haze) * rays, 1.0)
    return tf.clip_by_value(own * x + ice * texture[..., None] * tf.constant(_ICE), 0.0, 1.0)


def _crystals(seeds: Tensor, height: int, width: int) -> Tensor:
    """The brightest crystal at each pixel, [B, H, W] in [0, 1]."""
    draws = tf.reshape(uniform(seeds, _FROST, 4 * _CRYSTALS), [-1, 4, 1, 1, _CRYSTALS])
    rows = (tf.range(height, dtype=tf.float32) + 0.5)[None, :, None, None] / height
    columns = (tf.range(width, dtype=tf.float32) + 0.5)[None, None, :, None] / width
    down, right = rows - draws[:, 0], columns - draws[:, 1]
    size = 0.15 + 0.35 * draws[:, 3]
    distance = tf.sqrt(down**2 + right**2) / size
    # Folded into the sixth of the circle around the nearest ray.
    sixth = math.pi / 3
    angle = tf.math.floormod(tf.atan2(down, right) + draws[:, 2] * sixth, sixth) - sixth / 2
    along, aside = distance * tf.cos(angle), tf.abs(distance * tf.sin(angle))
    # Branches leave the ray at 60 degrees, seven per ray.
    branch = tf.abs(tf.math.floormod(7 * (along - aside / math.tan(sixth)), 1.0) - 0.5) / 7
    reach = tf.cast(aside < 0.35 * (1 - along), tf.float32)
    light = tf.maximum(_line(aside), 0.8 * _line(branch) * reach)
    return tf.reduce_max(light * tf.nn.relu(1 - distance**2), axis=3)


def _line(distance: Tensor) -> Tensor:
    return tf.exp(-((distance / 0.05) ** 2))


def fog(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Clouds added, and the sum scaled back to the image's own maximum."""
    (thickness, decay), _ = parameters_at(_FOG_LAYER, x, severity)
    height, width = x.shape[1:3]
    clouds = plasma(seeds, _FOG, max(height, width), decay)[:, :height, :width, None]
    brightest = tf.reduce_max(x, axis=[1, 2, 3], keepdims=True)
    return (x + thickness * clouds) * brightest / (brightest + thickness)


def brightness(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """A constant added to the value (of hue, saturation, value), clipped. Deterministic."""
    change, _ = parameters_at(_BRIGHTNESS, x, severity)
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(x), axis=3)
    value = tf.minimum(value + change, 1.0)
    return tf.image.hsv_to_rgb(tf.stack([hue, saturation, value], axis=3))
