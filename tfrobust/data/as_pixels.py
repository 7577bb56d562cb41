"""The pixels of a batch as floats, inside a graph."""

from __future__ import annotations

from tfrobust.runtime import tf
from tfrobust.typing import Tensor


def as_pixels(images: Tensor) -> Tensor:
    """Images as an `ImageSet` has them (uint8, or float32 in [0, 1]) as float32 in [0, 1].

    Floats are returned as they are.
    """
    return tf.cast(images, tf.float32) / 255 if images.dtype == tf.uint8 else images
