"""Augmentation of whole batches: stateless, with random draws from each example's own seed.

An example's result depends, to the last bit, only on its pixels, its seed and the
configuration: never on its neighbours in the batch, the number of threads or earlier draws. The
draws come from a counter-based hash of (seed, step, pixel), which unlike TensorFlow's stateless
generators takes one seed per example, so that one operation serves the whole batch. Noise is
looked up in tables of quantiles.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import ndtri, pdtr

from tfrobust.config import AugmentConfig
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

# One stream of draws per step: enabling a step does not change the others' draws.
FLIP, CROP, COLOUR, POISSON, GAUSSIAN, SALT_PEPPER = range(6)
_LEVELS = 256
_QUANTILE_BITS = 12


def augment(images: Tensor, seeds: Tensor, config: AugmentConfig) -> Tensor:
    """Augments a batch: flip and crop, colour jitter, noise; a strength of 0 skips a step.

    The steps, in this order:

    * flip: left to right, with probability 1/2.
    * crop: a random window of the image padded with `crop_padding` black pixels on each
      side, of the image's own size (He et al. 2016, https://arxiv.org/abs/1512.03385).
    * brightness, contrast, saturation, hue: see `adjust_colour`; factors are uniform in
      1 +- strength, the turn of the hue uniform in +- strength of the colour circle.
    * Poisson noise: see `add_poisson_noise`; Gaussian noise: of the given standard
      deviation, independent for each value. Clipped once, after both.
    * salt and pepper: a pixel turns black or white (all channels alike), each with half of the
      given probability.

    Args:
      images: float32 [B, H, W, 3] in [0, 1]; H and W are known when traced.
      seeds: int32 [B, 2], one seed for each example.
      config: the strengths.

    Returns:
      float32 [B, H, W, 3] in [0, 1].

    Raises:
      UsageError: images or seeds are of another type or shape.
    """
    images, seeds = _checked(images, seeds)
    if config.flip or config.crop_padding:
        images = _flip_and_crop(images, seeds, config.flip, config.crop_padding)
    images = _jitter_colour(images, seeds, config)
    if config.poisson_noise or config.gaussian_noise:
        images = _add_noise(images, seeds, config)
    if config.salt_pepper:
        images = _add_salt_pepper(images, seeds, config.salt_pepper)
    return images


def _checked(images: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    images, seeds = tf.convert_to_tensor(images), tf.convert_to_tensor(seeds)
    shape = images.shape
    if images.dtype != tf.float32 or shape.rank != 4 or None in shape[1:] or shape[3] != 3:
        raise UsageError(
            "augment: expected float32 images [B, H, W, 3] in [0, 1], found "
            f"{images.dtype.name} {shape}: cast them and divide by 255."
        )
    if seeds.dtype != tf.int32 or not seeds.shape.is_compatible_with([shape[0], 2]):
        raise UsageError(
            f"augment: expected int32 seeds [B, 2] for images {shape}, found "
            f"{seeds.dtype.name} {seeds.shape}: give each example two integers."
        )
    return images, seeds


def _flip_and_crop(images: Tensor, seeds: Tensor, flip: bool, padding: int) -> Tensor:
    height, width = images.shape[1:3]
    columns = tf.range(width)[None]
    if flip:
        flipped = uniform(seeds, FLIP, 1) < 0.5
        columns = tf.where(flipped, width - 1 - columns, columns)
    if padding:
        places = 2 * padding + 1
        offsets = tf.cast(uniform(seeds, CROP, 2) * places, tf.int32)
        images = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
        rows = tf.range(height)[None] + offsets[:, :1]
        images = tf.gather(images, rows, axis=1, batch_dims=1)
        columns = columns + offsets[:, 1:]
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _jitter_colour(images: Tensor, seeds: Tensor, config: AugmentConfig) -> Tensor:
    draws = 2 * uniform(seeds, COLOUR, 4) - 1
    changes = {}
    for i, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        strength = getattr(config, name)
        if strength:
            change = strength * draws[:, i]
            changes[name] = change if name == "hue" else 1 + change
    return adjust_colour(images, **changes) if changes else images


def adjust_colour(
    images: Tensor,
    *,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
    hue: Tensor | None = None,
) -> Tensor:
    """Adjusts the colours of each image of a batch; steps that are None are skipped.

    In this order, and clipped to [0, 1] once at the end: brightness multiplies; contrast
    scales the distance from each channel's mean (as `tf.image.adjust_contrast`);
    saturation scales chroma, and hue rotates it, in the YIQ space of `tf.image.rgb_to_yiq`,
    which preserves the brightness Y and is one 3 x 3 matrix per image.

    Args:
      images: float32 [B, H, W, 3] in [0, 1].
      brightness: float32 [B], factor; 1 changes nothing.
      contrast: float32 [B], factor; 1 changes nothing.
      saturation: float32 [B], factor; 0 gives grey, 1 changes nothing.
      hue: float32 [B], rotations of the colour circle, positive from red towards green.

    Returns:
      float32 [B, H, W, 3] in [0, 1].
    """
    if brightness is not None:
        images = images * _per_image(brightness)
    if contrast is not None:
        mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
        images = (images - mean) * _per_image(contrast) + mean
    if saturation is not None or hue is not None:
        scale, turns = 1.0 if saturation is None else saturation, 0.0 if hue is None else hue
        pixels = tf.reshape(images, [-1, math.prod(images.shape[1:3]), 3])
        images = _like(images, pixels @ _chroma_matrix(scale, turns))
    return tf.clip_by_value(images, 0.0, 1.0)


def _per_image(values: Tensor) -> Tensor:
    return tf.reshape(values, [-1, 1, 1, 1])


def _chroma_matrix(scale: Tensor, turns: Tensor) -> Tensor:
    """Scales and rotates (I, Q): float32 [B, 3, 3], to multiply rows (R, G, B) from the right."""
    # RGB to NTSC's Y, I, Q (the columns): I and Q of grey are 0.
    to_yiq = np.array(
        [
            [0.299, 0.59590059, 0.21153661],
            [0.587, -0.27455667, -0.52273616],
            [0.114, -0.32134392, 0.31119955],
        ]
    )
    from_yiq = np.linalg.inv(to_yiq)
    luma = np.outer(to_yiq[:, 0], from_yiq[0])
    straight = to_yiq[:, 1:] @ from_yiq[1:]
    crossed = to_yiq[:, 1:] @ np.array([[0, -1], [1, 0]]) @ from_yiq[1:]
    # In float64, because the last bit of a float32 cosine depends on the position in the batch,
    # and that of a sum on how TensorFlow rewrites the graph.
    scale, turns = (tf.reshape(tf.cast(one, tf.float64), [-1, 1, 1]) for one in (scale, turns))
    angle = 2 * math.pi * turns
    chroma = straight * tf.cos(angle) + crossed * tf.sin(angle)
    return tf.cast(luma + scale * chroma, tf.float32)


def _add_noise(images: Tensor, seeds: Tensor, config: AugmentConfig) -> Tensor:
    if config.poisson_noise:
        images = add_poisson_noise(images, seeds, config.poisson_noise)
    if config.gaussian_noise:
        images = images + config.gaussian_noise * normal(seeds, GAUSSIAN, images)
    return tf.clip_by_value(images, 0.0, 1.0)


def add_poisson_noise(images: Tensor, seeds: Tensor, strength: float) -> Tensor:
    """Shot noise, like that of a camera that counts 1 / strength^2 photons for a white pixel.

    A value x becomes strength^2 * Poisson(x / strength^2): its mean is x, its standard
    deviation strength * sqrt(x). Exact for 8-bit values (up to the 4,096 quantiles of the
    tabulated distribution); a value in between uses the noise of the nearest one. Not clipped.

    Args:
      images: float32 [B, H, W, 3] in [0, 1].
      seeds: int32 [B, 2].
      strength: standard deviation at white, above 0.

    Returns:
      float32 [B, H, W, 3], at least 0 for 8-bit values.
    """
    bits = _like(images, _bits(seeds, POISSON, _values(images)))
    quantile = tf.bitcast(tf.bitwise.right_shift(bits, _uint(32 - _QUANTILE_BITS)), tf.int32)
    level = tf.cast(tf.round(images * (_LEVELS - 1)), tf.int32)
    table = tf.constant(_poisson_table(strength))
    return images + tf.gather(table, level * 2**_QUANTILE_BITS + quantile)


@functools.lru_cache(maxsize=4)
def _poisson_table(strength: float) -> np.ndarray:
    """Noise by (level, quantile), float32, flat."""
    probabilities = (np.arange(2**_QUANTILE_BITS) + 0.5) / 2**_QUANTILE_BITS
    levels = np.arange(_LEVELS) / (_LEVELS - 1)
    counts = [_poisson_quantiles(mean, probabilities) for mean in levels / strength**2]
    return np.asarray(np.stack(counts) * strength**2 - levels[:, None], np.float32).ravel()


def _poisson_quantiles(mean: float, probabilities: np.ndarray) -> np.ndarray:
    spread = 6 * math.sqrt(mean) + 10
    # Every count, until there are so many that skipping some is far below a grey level.
    step = math.ceil(spread / 4096)
    counts = np.arange(max(0, math.floor(mean - spread)), mean + spread, step)
    return counts[np.searchsorted(pdtr(counts, mean), probabilities)]


def _add_salt_pepper(images: Tensor, seeds: Tensor, part: float) -> Tensor:
    height, width = images.shape[1:3]
    draw = tf.reshape(uniform(seeds, SALT_PEPPER, height * width), [-1, height, width, 1])
    # Arithmetic, because `tf.where` takes twice as long to broadcast over the channels.
    kept, salt = (tf.cast(one, tf.float32) for one in (draw >= part, draw < part / 2))
    return images * kept + salt


def normal(seeds: Tensor, stream: int, images: Tensor) -> Tensor:
    """Standard normal draws of the shape of `images`, at 2^16 quantiles (4.3 the largest)."""
    count = _values(images)
    # Each hash of 32 bits gives two draws.
    bits = _bits(seeds, stream, (count + 1) // 2)
    high, low = tf.bitwise.right_shift(bits, _uint(16)), tf.bitwise.bitwise_and(bits, _uint(0xFFFF))
    quantile = tf.bitcast(tf.concat([high, low], axis=1)[:, :count], tf.int32)
    return _like(images, tf.gather(tf.constant(_normal_table()), quantile))


@functools.lru_cache(maxsize=1)
def _normal_table() -> np.ndarray:
    return np.asarray(ndtri((np.arange(2**16) + 0.5) / 2**16), np.float32)


def uniform(seeds: Tensor, stream: int, count: int) -> Tensor:
    """float32 [B, count], uniform in [0, 1)."""
    # 24 bits: more would round up to 1.
    high = tf.bitwise.right_shift(_bits(seeds, stream, count), _uint(8))
    return tf.cast(high, tf.float32) / 2**24


def _bits(seeds: Tensor, stream: int, count: int) -> Tensor:
    """uint32 [B, count]: a hash of (seed, stream, position)."""
    first, second = tf.unstack(tf.bitcast(seeds, tf.uint32), axis=1)
    # (first, second) -> (key, other) is injective: all 64 bits of the seed matter.
    key = _mix(tf.bitwise.bitwise_xor(_mix(first + _uint(stream * 0x9E3779B9)), second))
    other = _mix(tf.bitwise.bitwise_xor(key, first))
    position = _mix(tf.cast(tf.range(count), tf.uint32))
    return _mix(tf.bitwise.bitwise_xor(position, key[:, None]) + other[:, None])


def _mix(x: Tensor) -> Tensor:
    """A bijection of uint32 in which each bit of `x` affects half of the result's bits.

    The multiply and shift constants are Wellons's 'lowbias32', found by search
    (https://nullprogram.com/blog/2018/07/31/).
    """
    shift, xor = tf.bitwise.right_shift, tf.bitwise.bitwise_xor
    x = xor(x, shift(x, _uint(16))) * _uint(0x7FEB352D)
    x = xor(x, shift(x, _uint(15))) * _uint(0x846CA68B)
    return xor(x, shift(x, _uint(16)))


def _uint(value: int) -> Tensor:
    return tf.constant(value % 2**32, tf.uint32)


def _values(images: Tensor) -> int:
    return math.prod(images.shape[1:])


def _like(images: Tensor, flat: Tensor) -> Tensor:
    return tf.reshape(flat, [-1, *images.shape[1:]])
