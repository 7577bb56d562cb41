"""What travels inside the data room: decoded images, and what was seen while reading them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ImageSet:
    """Decoded images of one split.

    Attributes:
      images: uint8 [N, H, W, C] in 0..255, or float32 in [0, 1] where a model is to be
        evaluated on exactly those values; an array, or a memory map on a file cache.
      labels: int32 [N], each in 0..len(label_names)-1.
      label_names: the classes' names (words), by label.
      names: where each image came from (a path inside the source), or empty.
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
        """The images at `index`, all if it is left out, as float32 [M, H, W, C] in [0, 1]."""
        images = self.images[index].astype(np.float32)
        return images / np.float32(255) if self.images.dtype == np.uint8 else images

    def subset(self, index: np.ndarray) -> ImageSet:
        """The images at `index` (int [M]), in that order; images are copied."""
        names = tuple(self.names[i] for i in index) if self.names else ()
        return ImageSet(self.images[index], self.labels[index], self.label_names, names)

    def sample(self, count: int, seed: int) -> ImageSet:
        """`count` random images, the same for the same seed; itself where there are no more.

        Splits are ordered by class, so their first images are no sample.
        """
        if len(self) <= count:
            return self
        return self.subset(np.random.default_rng(seed).permutation(len(self))[:count])


@dataclass
class ReadLog:
    """What a reader saw: the raw material of the printed summary.

    Attributes:
      sizes: (width, height) of the files as found -> count.
      modes: Pillow mode as found ('RGB', 'L', 'P', 'I;16', 'RGBA', ...) -> count.
      skipped: 'file: reason' of each image left out with `skip_broken`.
      notes: what was taken for what, a sentence each.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RawData:
    """What every reader returns: the official split where there is one.

    Attributes:
      train: all training images (before 'select' is cut off).
      test: the official test images, or None where the source has no split.
      log: what was seen while reading.
    """

    train: ImageSet
    test: ImageSet | None
    log: ReadLog


@dataclass(frozen=True)
class ReadOptions:
    """How to read a source.

    Attributes:
      image_size: side in pixels that all images are resized to; None keeps the
        most common size of the source (images of other sizes are resized to it).
      skip_broken: leave broken images out, with a list, instead of failing.
      cache_dir: where archives are unpacked and file caches are kept; None is
        the user's cache folder (``~/.cache/tfrobust``).
      memory_limit: bytes of decoded images kept in memory; above it a memory-mapped
        file in `cache_dir` holds them.
      channels: of the images, as the model takes them; None is 3.
      pixel_range: (black, white) of the source's pixels, where it is not that of their type.

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
    """The three disjoint parts of a data set; model selection never sees `test`."""

    train: ImageSet
    select: ImageSet
    test: ImageSet
    log: ReadLog
