"""Images of any form that Python users have, as one `ImageSet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.data import DATASETS, load, read_all, with_channels
from tfrobust.data.in_memory import images_in_memory
from tfrobust.data.types import ImageSet, ReadOptions
from tfrobust.errors import UsageError
from tfrobust.typing import Labels, Source


class Batches:
    """Batches of pixels and labels, in order, which can be iterated repeatedly.

    Iterating yields (x, y): float32 [B, H, W, C] in [0, 1] and int32 [B]; the last batch may be
    smaller. Images on disk are read on access.

    Args:
      images: the images to batch.
      batch_size: images in a batch, at least 1.
    """

    def __init__(self, images: ImageSet, batch_size: int = 128) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size: expected a number from 1 on, found {batch_size}.")
        self.images, self.batch_size = images, batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, len(self.images), self.batch_size):
            part = slice(first, first + self.batch_size)
            yield self.images.pixels(part), self.images.labels[part].astype(np.int32)


def as_batches(
    source: Any, labels: Any = None, *, batch_size: int = 128, options: ReadOptions | None = None
) -> Batches:
    """Any source of images as batches of pixels in [0, 1] and integer labels.

    Args:
      source: as for `as_images`.
      labels: if `source` is an array of images.
      batch_size: images in a batch.
      options: as for `as_images`.

    Raises:
      UsageError: the source is not supported.
      TFRobustError: images or labels are invalid.

    Examples:
      >>> [len(labels) for _, labels in tr.as_batches(x[:50], y[:50], batch_size=32)]
      [32, 18]
    """
    return Batches(as_images(source, labels, options=options), batch_size)


def as_images(
    source: Source, labels: Labels | Sequence[str] | None = None, *,
    class_names: Sequence[str] | None = None, channels: int | None = None,
    options: ReadOptions | None = None,
) -> ImageSet:  # fmt: skip
    """The images and labels of a source, decoded.

    They are kept in memory or, if they take more than `options.memory_limit` (4 GiB), in an
    unnamed file in the cache folder, from which batches are read on access. Arrays that are maps
    of a file (`numpy.load(file, mmap_mode="r")`) stay where they are.

    Args:
      source: an `ImageSet`; a pair (x, y) of arrays or tensors, or x alone with `labels`; a
        `tf.data.Dataset` of (x, y) pairs or of dicts with 'image' and 'label', batched or not;
        the name of a built-in data set (its test split); or the path of a folder, .zip, .npz
        or .pt file. Images are [N, H, W] or [N, H, W, C]: uint8, floats in [0, 1], or whole
        numbers in 0..255. Labels are integers, one-hot rows, or names.
      labels: if `source` is an array of images.
      class_names: the classes' names, by label.
      channels: number of channels to convert to, if the model expects another.
      options: how to read, and how much to keep in memory; None is the defaults of `ReadOptions`.

    Raises:
      UsageError: the source is not supported.
      TFRobustError: images or labels are invalid.

    Examples:
      >>> images = tr.as_images((x, y))
      >>> len(images) == len(y), images.image_shape == x.shape[1:]
      (True, True)
      >>> from_dataset = tr.as_images(tf.data.Dataset.from_tensor_slices((x, y)).batch(32))
      >>> bool((from_dataset.labels == y).all())
      True
    """
    if isinstance(source, ImageSet):
        return source
    options = options or ReadOptions()
    if isinstance(source, (str, Path)):
        if str(source) in DATASETS:
            return with_channels(load(str(source), options=options).test, channels)
        return read_all(str(source), dataclasses.replace(options, channels=channels))[0]
    found = images_in_memory(source, labels, class_names, options)
    return with_channels(found, channels)
