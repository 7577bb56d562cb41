"""A Python user's images, as arrays or a `tf.data.Dataset`, as one `ImageSet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from tfrobust.data.archives import cache_folder
from tfrobust.data.arrays import as_labels
from tfrobust.data.mapped import MappedFile
from tfrobust.data.pixels import checked_images, plain_pixels
from tfrobust.data.types import ImageSet, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError, UsageError

_IMAGE_KEYS = ("image", "images", "x", "input", "inputs", "features")
_LABEL_KEYS = ("label", "labels", "y", "target", "targets")


def images_in_memory(
    source: Any, labels: Any, class_names: Sequence[str] | None, options: ReadOptions
) -> ImageSet:
    """Arrays or a `tf.data.Dataset` as an `ImageSet` with the same channels.

    Args:
      source: (x, y), or x with `labels`, or a `tf.data.Dataset` of such pairs or of dicts.
      labels: of x, if `source` does not include them.
      class_names: by label; None numbers them.
      options: how to read.

    Raises:
      UsageError: the source has another form.
      TFRobustError: images or labels are invalid.
    """
    if isinstance(source, ImageSet):
        return source
    if hasattr(source, "as_numpy_iterator"):
        source = _of_dataset(source, options)
    elif labels is not None:
        source = (source, labels)
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        raise UsageError(
            f"Expected images and labels: (x, y), a tf.data.Dataset of such pairs, a data set's "
            f"name or a path, found {type(source).__name__}."
        )
    x, y = source
    return _of_arrays(x, y, class_names, options)


def _of_dataset(source: Any, options: ReadOptions) -> tuple[np.ndarray, np.ndarray]:
    """All of a `tf.data.Dataset` of pairs or dicts, batched or not, read once."""
    with closing(_Growing(options)) as images:
        labels = []
        for element in source.as_numpy_iterator():
            x, y = _pair(element)
            # Three axes are one image, unless they are grey images without a channel axis.
            grey = np.ndim(x) == 3 and np.shape(x)[2] not in (1, 3, 4)
            batched = np.ndim(x) == 4 or (grey and np.ndim(y) >= 1 and len(x) == len(y))
            images.add(np.asarray(x) if batched else np.asarray(x)[None])
            labels.append(np.asarray(y) if batched else np.asarray(y)[None])
        return images.finish(), np.concatenate(labels)


class _Growing:
    """Images collected batch by batch: in memory, and above the limit in a file."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._rows: list[np.ndarray] = []
        self._bytes = 0
        self._file: MappedFile | None = None
        self._first: np.ndarray | None = None

    def add(self, rows: np.ndarray) -> None:
        if self._first is None:
            self._first = rows[:1]
        if (rows.shape[1:], rows.dtype) != (self._first.shape[1:], self._first.dtype):
            raise TFRobustError(
                "Expected images of one size and type in the tf.data.Dataset, found "
                f"{list(self._first.shape[1:])} ({self._first.dtype}) and {list(rows.shape[1:])} "
                f"({rows.dtype}): resize them."
            )
        self._bytes += rows.nbytes
        if self._file is not None:
            self._file.add(rows)
            return
        self._rows.append(rows)
        if self._bytes > self._options.memory_limit:
            self._file = MappedFile(cache_folder(self._options))
            for kept in self._rows:
                self._file.add(kept)
            self._rows.clear()

    def finish(self) -> np.ndarray:
        if self._first is None:
            raise UsageError("Expected images, found an empty tf.data.Dataset.")
        if self._file is not None:
            return self._file.finish(self._first.shape[1:], self._first.dtype)
        return np.concatenate(self._rows)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _pair(element: Any) -> tuple[Any, Any]:
    if isinstance(element, Mapping):
        found = [next((k for k in keys if k in element), None)
                 for keys in (_IMAGE_KEYS, _LABEL_KEYS)]  # fmt: skip
        if None not in found:
            return element[found[0]], element[found[1]]
        raise UsageError(
            f"Expected a dict with 'image' and 'label', found {', '.join(map(str, element))}."
        )
    # A third element is the sample weight.
    if isinstance(element, tuple) and len(element) in (2, 3):
        return element[0], element[1]
    raise UsageError("Expected a tf.data.Dataset of (image, label) pairs or of dicts.")


def _of_arrays(x: Any, y: Any, class_names: Sequence[str] | None, options: ReadOptions) -> ImageSet:
    images, log = np.asarray(x), ReadLog()
    channels = images.shape[-1] if images.ndim == 4 else 1
    options = dataclasses.replace(options, channels=channels)
    pixels = plain_pixels("x", checked_images("x", images, options, log), channels, log)
    names = list(class_names) if class_names is not None else None
    found, own = as_labels("y", np.asarray(y), len(pixels), names, log)
    listed = np.array(found, np.int32)
    count = int(listed.max(initial=0)) + 1
    known = names or own or [str(k) for k in range(count)]
    if listed.min() < 0 or count > len(known):
        raise TFRobustError(
            f"y: expected labels in 0..{len(known) - 1}, found {listed.min()} to {listed.max()}."
        )
    return ImageSet(pixels, listed, tuple(known))
