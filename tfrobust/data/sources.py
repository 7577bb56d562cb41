"""Images of any form that Python users have, as one `ImageSet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.data import load, read_all
from tfrobust.data.arrays import as_labels
from tfrobust.data.types import ImageSet, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError, UsageError

_IMAGE_KEYS = ("image", "images", "x", "input", "inputs", "features")
_LABEL_KEYS = ("label", "labels", "y", "target", "targets")


def as_images(
    source: Any, labels: Any = None, *, class_names: Sequence[str] | None = None,
    channels: int | None = None,
) -> ImageSet:  # fmt: skip
    """The images and labels of a source, decoded, in memory.

    Args:
      source: an `ImageSet`; a pair (x, y) of arrays or tensors, or x alone with `labels`; a
        `tf.data.Dataset` of (x, y) pairs or of dicts with 'image' and 'label', batched or not;
        the name of a built-in data set (its test split); or the path of a folder, .zip, .npz
        or .pt file. Images are [N, H, W] or [N, H, W, C]: uint8, floats in [0, 1], or whole
        numbers in 0..255. Labels are integers, one-hot rows, or names.
      labels: where `source` is an array of images.
      class_names: the classes' names, by label.
      channels: of the images, where the model takes another number.

    Raises:
      UsageError: it is nothing of that.
      TFRobustError: images or labels are not as described.
    """
    from tfrobust.data import DATASETS, with_channels

    if isinstance(source, ImageSet):
        return source
    if isinstance(source, (str, Path)):
        if str(source) in DATASETS:
            return with_channels(load(str(source)).test, channels)
        return read_all(str(source), ReadOptions(channels=channels))[0]
    if hasattr(source, "as_numpy_iterator"):
        source = _of_dataset(source)
    elif labels is not None:
        source = (source, labels)
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        raise UsageError(
            f"Expected images and labels: (x, y), a tf.data.Dataset of such pairs, a data set's "
            f"name or a path, found {type(source).__name__}."
        )
    x, y = source
    return with_channels(_of_arrays(x, y, class_names), channels)


def _of_dataset(source: Any) -> tuple[np.ndarray, np.ndarray]:
    """All of a `tf.data.Dataset` of pairs or dicts, batched or not."""
    images, labels = [], []
    for element in source.as_numpy_iterator():
        x, y = _pair(element)
        # Three axes are one image, unless they are grey ones without an axis for channels.
        grey = np.ndim(x) == 3 and np.shape(x)[2] not in (1, 3, 4)
        batched = np.ndim(x) == 4 or (grey and np.ndim(y) >= 1 and len(x) == len(y))
        images.append(np.asarray(x) if batched else np.asarray(x)[None])
        labels.append(np.asarray(y) if batched else np.asarray(y)[None])
    if not images:
        raise UsageError("Expected images, found an empty tf.data.Dataset.")
    if len({image.shape[1:] for image in images}) > 1:
        raise TFRobustError("Expected images of one size in the tf.data.Dataset: resize them.")
    return np.concatenate(images), np.concatenate(labels)


def _pair(element: Any) -> tuple[Any, Any]:
    if isinstance(element, Mapping):
        found = [next((k for k in keys if k in element), None)
                 for keys in (_IMAGE_KEYS, _LABEL_KEYS)]  # fmt: skip
        if None not in found:
            return element[found[0]], element[found[1]]
        raise UsageError(
            f"Expected a dict with 'image' and 'label', found {', '.join(map(str, element))}."
        )
    # A third is a sample's weight.
    if isinstance(element, tuple) and len(element) in (2, 3):
        return element[0], element[1]
    raise UsageError("Expected a tf.data.Dataset of (image, label) pairs or of dicts.")


def _of_arrays(x: Any, y: Any, class_names: Sequence[str] | None) -> ImageSet:
    from tfrobust.data.arrays import _checked_images, _plain

    images, log = np.asarray(x), ReadLog()
    channels = images.shape[-1] if images.ndim == 4 else 1
    options = ReadOptions(channels=channels)
    pixels = _plain("x", _checked_images("x", images, options, log), channels, log)
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
