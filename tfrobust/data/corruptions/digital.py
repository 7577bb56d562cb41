"""Digital corruptions. Each takes images [B, H, W, 3], a severity and seeds [B, 2]."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tfrobust.data.augment import uniform
from tfrobust.data.corruptions.geometry import (
    along_axes,
    gaussian,
    grid,
    parameters_at,
    sample,
)
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

_AFFINE, _ELASTIC = 180, 181

_CONTRAST = {32: (0.75, 0.5, 0.4, 0.3, 0.15), 64: (0.4, 0.3, 0.2, 0.1, 0.05)}
# Size and smoothness of the displacements, and the corners' displacement, in image sides.
_ELASTIC_TRANSFORM = {
    32: ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    64: ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
}
# Side after shrinking, as a share of the side.
_PIXELATE = {32: (0.95, 0.9, 0.85, 0.75, 0.65), 64: (0.9, 0.8, 0.7, 0.6, 0.5)}
_JPEG_QUALITY = {32: (80, 65, 58, 50, 40), 64: (65, 58, 50, 40, 25)}


def contrast(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """The distance from each channel's mean, scaled down. Deterministic."""
    factor, _ = parameters_at(_CONTRAST, x, severity)
    mean = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
    return (x - mean) * factor + mean


def elastic_transform(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """A random affine map, then smooth random displacements; bilinear, mirrored outside.

    In the authors' parameters, severity trades the affine part for the displacements: the
    distance to the clean image need not increase with it.
    """
    (strength, smoothness, corner), _ = parameters_at(_ELASTIC_TRANSFORM, x, severity)
    side = min(x.shape[1:3])
    height, width = x.shape[1:3]
    rows, columns = (tf.cast(each, tf.float32) for each in _pixel_grid(height, width))
    x = sample(x, *_affine(seeds, rows, columns, corner * side, side))
    if strength == 0:
        return x
    draws = 2 * grid(uniform(seeds, _ELASTIC, 2 * height * width), height, width, 2) - 1
    shifts = gaussian(draws, smoothness * side, mode="reflect", truncate=3.0) * strength * side
    return sample(x, rows + shifts[..., 0], columns + shifts[..., 1])


def _pixel_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    rows, columns = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    return rows[None], columns[None]


def _affine(
    seeds: Tensor, rows: Tensor, columns: Tensor, reach: float, side: int
) -> tuple[Tensor, Tensor]:
    """The source of each pixel when three corners are displaced by up to `reach` pixels."""
    height, width = rows.shape[1:]
    middle, arm = np.array([height // 2, width // 2], np.float32), side // 3
    fixed = middle + arm * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    moved = fixed + reach * (2 * grid(uniform(seeds, _AFFINE, 6), 3, 2) - 1)
    ones = tf.ones_like(moved[..., :1])
    # (row, column, 1) @ map: the moved corners come from the fixed ones.
    fixed = tf.broadcast_to(tf.constant(fixed, tf.float32), tf.shape(moved))
    matrix = tf.linalg.solve(tf.concat([moved, ones], axis=2), fixed)
    places = tf.stack([rows, columns, tf.ones_like(rows)], axis=-1)
    origin = tf.reshape(places, [1, -1, 3]) @ matrix
    back = tf.reshape(origin, [-1, height, width, 2])
    return back[..., 0], back[..., 1]


def pixelate(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Shrunk and enlarged again, each with a box filter (like Pillow's). Deterministic."""
    part, _ = parameters_at(_PIXELATE, x, severity)
    return along_axes(x, *(_box_map(side, int(side * part)) for side in x.shape[1:3]))


def _box_map(side: int, small: int) -> np.ndarray:
    """Shrinking to `small` and enlarging back, as a linear map [side, side]."""
    image = Image.fromarray(np.eye(side, dtype=np.float32))
    image = image.resize((side, small), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def jpeg_compression(x: Tensor, severity: int, seeds: Tensor) -> Tensor:
    """Encoded as JPEG, with halved colour resolution, and decoded. Deterministic."""
    quality, _ = parameters_at(_JPEG_QUALITY, x, severity)

    def compress(image: Tensor) -> Tensor:
        data = tf.io.encode_jpeg(image, quality=quality, chroma_downsampling=True)
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    images = tf.cast(tf.round(x * 255), tf.uint8)
    return tf.cast(tf.map_fn(compress, images, fn_output_signature=tf.uint8), tf.float32) / 255
