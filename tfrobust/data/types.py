"""The types of the data room: decoded images, splits, and the log of reading them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ImageSet:
    """Decoded images of one split.

    Attributes:
      images: uint8 [N, H, W, C] in 0..255, or float32 in [0, 1] if a model is to be evaluated on
        exactly those values; an array, or a memory map on a file cache.
      labels: int32 [N], each in 0..len(label_names)-1.
      label_names: the classes' names (words), by label.
      names: the origin of each image (a path inside the source), or empty.
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        height, width, channels = self.images.shape[1:]
        return int(height), int(width), int(channels)

    def pixels(self, index: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The images at `index`, by default all, as float32 [M, H, W, C] in [0, 1]."""
        images = self.images[index].astype(np.float32)
        return images / np.float32(255) if self.images.dtype == np.uint8 else images

    def subset(self, index: np.ndarray) -> ImageSet:
        """The images at `index` (int [M]), in that order; images are copied."""
        names = tuple(self.names[i] for i in index) if self.names else ()
        return ImageSet(self.images[index], self.labels[index], self.label_names, names)

    def sample(self, count: int, seed: int) -> ImageSet:
        """`count` random images, the same for the same seed; itself if there are no more.

        Splits are ordered by class, so their first images are not a sample.
        """
        if len(self) <= count:
            return self
        return self.subset(np.random.default_rng(seed).permutation(len(self))[:count])


@dataclass
class ReadLog:
    """What a reader found: the data for the printed summary.

    Attributes:
      sizes: (width, height) of the original files -> count.
      modes: original Pillow mode ('RGB', 'L', 'P', 'I;16', 'RGBA', ...) -> count.
      skipped: 'file: reason' of each image skipped with `skip_broken`.
      notes: assumptions made while reading, one sentence each.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RawData:
    """What every reader returns, with the official split if there is one.

    Attributes:
      train: all training images (before 'select' is split off).
      test: the official test images, or None if the source has no split.
      log: what was found while reading.
    """

    train: ImageSet
    test: ImageSet | None
    log: ReadLog


@dataclass(frozen=True)
class ReadOptions:
    """How to read a source.

    Attributes:
      image_size: side in pixels that all images are resized to; None keeps the most common size
        of the source (images of other sizes are resized to it).
      skip_broken: skip broken images and list them, instead of failing.
      cache_dir: folder for unpacked archives and file caches; None is the user's cache folder
        (``~/.cache/tfrobust``).
      memory_limit: bytes of decoded images kept in memory; above it they are stored in a
        memory-mapped file in `cache_dir`.
      channels: number of channels that the model expects; None is 3.
      pixel_range: (black, white) of the source's pixels, if it is not that of their type.

    Examples:
      >>> tr.ReadOptions(memory_limit=1 << 30).image_size is None
      True
    """

    image_size: int | None = None
    skip_broken: bool = False
    cache_dir: str | None = None
    memory_limit: int = 4 << 30
    channels: int | None = None
    pixel_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Splits:
    """The three disjoint parts of a data set; model selection never uses `test`."""

    train: ImageSet
    select: ImageSet
    test: ImageSet
    log: ReadLog
