"""Windows of images, and the pyramids that the Square attack writes into them in l2 and l1.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049; for l1 Croce and Hein (2021),
https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from typing import Any

from tfrobust.runtime import tf
from tfrobust.typing import Tensor

_TINY = 1e-12
# A pyramid's steps decay with this power of the distance from its centre.
_FALL = {"l2": 2, "l1": 4}


def signs(draws: Tensor) -> Tensor:
    """-1 or 1 for each draw from [0, 1)."""
    return tf.where(draws < 0.5, -1.0, 1.0)


def size_of(x: Tensor, norm: str, axis: Any = None) -> Tensor:
    """The sum of absolute values (l1) or of squares (l2) over the axes, which are kept."""
    each = tf.abs(x) if norm == "l1" else tf.square(x)
    return tf.reduce_sum(each, axis=axis, keepdims=axis is not None)


def normalised(x: Tensor, norm: str, axis: Any = None) -> Tensor:
    """x divided by its l1 or l2 norm over the axes; 0 stays 0."""
    size = tf.maximum(size_of(x, norm, axis), _TINY)
    return x / size if norm == "l1" else x * tf.math.rsqrt(size)


def corners(draws: Tensor, x: Tensor, size: Tensor) -> Tensor:
    """(row, column) of random windows, int32 [M, 2], from the first two draws of [M, ...]."""
    height, width = x.shape[1:3]
    places = tf.cast(tf.stack([height - size + 1, width - size + 1]), tf.float32)
    return tf.cast(draws[:, :2] * places, tf.int32)


def place_of(corner: Tensor, x: Tensor, size: Tensor) -> Tensor:
    """Indices of each window's pixels among all pixels of the batch, int32 [M, size^2].

    Windows are read and written pixel by pixel, because most of them are small: masks of
    whole images would cost more than a small model does.
    """
    height, width = x.shape[1:3]
    first = (tf.range(tf.shape(x)[0]) * height + corner[:, 0]) * width + corner[:, 1]
    side = tf.range(size)
    return first[:, None] + tf.reshape(side[:, None] * width + side, [1, -1])


def read(images: Tensor, place: Tensor) -> Tensor:
    """The pixels at `place`, [M, size^2, C]."""
    return tf.gather(tf.reshape(images, [-1, images.shape[3]]), place)


def write(images: Tensor, place: Tensor, pixels: Tensor) -> Tensor:
    """`images` with `pixels` [M, size^2, C] at `place`."""
    flat = tf.reshape(images, [-1, images.shape[3]])
    flat = tf.tensor_scatter_nd_update(flat, place[..., None], pixels)
    return tf.reshape(flat, [-1, *images.shape[1:]])


def shared(corner: Tensor, other: Tensor, size: Tensor) -> Tensor:
    """Which pixels of the window at `other` also lie in that at `corner`, bool [M, size^2]."""
    offset = (other - corner)[:, None, :] + tf.range(size)[None, :, None]
    inside = (offset >= 0) & (offset < size)
    both = inside[:, :, None, 0] & inside[:, None, :, 1]
    return tf.reshape(both, [-1, size * size])


def pyramids(x: Tensor, norm: str, seed: Tensor) -> Tensor:
    """A grid of about 5 x 5 pyramids with random orientations and signs, [M, H, W, C]."""
    height, width, channels = x.shape[1:]
    size = max(min(height, width) // 5, 1)
    grid = height // size, width // size
    draws = tf.random.stateless_uniform([tf.shape(x)[0], *grid, channels + 1], seed)
    draws = tf.repeat(tf.repeat(draws, size, axis=1), size, axis=2)
    kernel = pyramid(size, norm)
    upright, turned = (tf.tile(each, grid) for each in (kernel, tf.transpose(kernel)))
    shape = tf.where(draws[..., 0] < 0.5, upright, turned)[..., None] * signs(draws[..., 1:])
    margins = [(side - size * n) // 2 for side, n in zip((height, width), grid, strict=True)]
    return tf.image.pad_to_bounding_box(shape, *margins, height, width)


def pyramid(size: Tensor | int, norm: str) -> Tensor:
    """The paper's kernel eta: a positive and a negative pyramid, norm 1, [size, size]."""
    upper = size // 2
    levels = tf.range(1, size // 2 + 2, dtype=tf.int32)
    heights = tf.cumsum(1 / tf.cast(levels, tf.float32) ** _FALL[norm], reverse=True)

    def half(rows: Any) -> Tensor:
        down, across = (tf.abs(tf.range(n) - n // 2) for n in (rows, size))
        return normalised(tf.gather(heights, tf.maximum(down[:, None], across[None, :])), norm)

    return normalised(tf.concat([half(upper), -half(size - upper)], axis=0), norm)
