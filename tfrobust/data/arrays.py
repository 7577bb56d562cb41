"""Own images: arrays in an .npz file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.data.collect import Item, collect
from tfrobust.data.images import reason
from tfrobust.data.types import ImageSet, RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError

_KEYS = "the arrays x and y, or x_train and y_train (and x_test and y_test)"
_NAMES = ("classes", "label_names")


def read(location: Path, options: ReadOptions) -> RawData:
    """Reads images and labels from the arrays of an .npz file.

    The file holds ``x`` and ``y``, or ``x_train``, ``y_train`` and, for an official
    split, ``x_test``, ``y_test``; and, optionally, the classes' names as an array of
    strings, ``classes`` or ``label_names``. Images are [N, H, W], [N, H, W, 1] or
    [N, H, W, 3], uint8 or floats in [0, 1]; labels are integers [N] or [N, 1] in
    0..K-1. Nothing in the file is ever unpickled.

    Args:
      location: the .npz file.
      options: sizes, limits, and what to do with broken images and labels.

    Raises:
      TFRobustError: the file is broken, an array is missing or has another type, shape
        or length, a pixel or label is out of range, or a class has no training image.
    """
    arrays = _load(location)
    names: list[str] | None = None
    splits = []
    for x, y in _pairs(location, arrays):
        images = _checked_images(f"{location}: {x}", arrays[x])
        labels = as_labels(f"{location}: {y}", arrays[y], len(images))
        names = names or label_names(f"{location}: {y}", labels, _names(location, arrays))
        splits.append(
            [Item(f"{x}[{i}]", partial(images.__getitem__, i), k) for i, k in enumerate(labels)]
        )
    log = ReadLog()
    train, *test = collect(location, splits, names or [], options, log)
    return RawData(train, test[0] if test else None, log)


def read_plain(location: Path) -> ImageSet:
    """Images and labels of an .npz file as they are, to evaluate a model on.

    Like `read`, but one split (the test split where there is one), any labels from 0 on,
    and floats stay what they are, as float32: an evaluation is of exactly these pixels.

    Args:
      location: the .npz file.

    Raises:
      TFRobustError: the file is broken, an array is missing or has another type, shape
        or length, or a pixel or label is out of range.
    """
    arrays = _load(location)
    x, y = _pairs(location, arrays)[-1]
    images = _checked_images(f"{location}: {x}", arrays[x])
    labels = np.array(as_labels(f"{location}: {y}", arrays[y], len(images)), np.int32)
    names = _names(location, arrays) or [str(k) for k in range(int(labels.max(initial=0)) + 1)]
    if labels.min() < 0 or labels.max() >= len(names):
        raise TFRobustError(
            f"{location}: {y}: expected labels in 0..{len(names) - 1}, found {labels.min()} to "
            f"{labels.max()}: give each image the index of its class."
        )
    sources = tuple(f"{x}[{i}]" for i in range(len(labels)))
    return ImageSet(_as_rgb(f"{location}: {x}", images), labels, tuple(names), sources)


def _as_rgb(where: str, images: np.ndarray) -> np.ndarray:
    """Checked images as [N, H, W, 3], uint8 or float32 without NaN."""
    images = images if images.dtype == np.uint8 else images.astype(np.float32)
    broken = np.isnan(images).any(axis=tuple(range(1, images.ndim)))
    if broken.any():
        raise TFRobustError(
            f"{where}[{int(broken.argmax())}]: expected floats in [0, 1], found NaN: leave the "
            "image out."
        )
    images = images[..., None] if images.ndim == 3 else images
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


def as_labels(where: str, labels: Any, count: int) -> list[int]:
    """Checks labels, but for their range.

    Args:
      where: file and array, for messages.
      labels: integers [N] or [N, 1].
      count: how many images there are.

    Raises:
      TFRobustError: the labels are no integers, or not as many as there are images.
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TFRobustError(
            f"{where}: expected integer labels of shape [N], found {array.dtype} of shape "
            f"{list(array.shape)}: store the index of the class (argmax, where it is one-hot)."
        )
    if len(array) != count:
        raise TFRobustError(
            f"{where}: {len(array):,} labels for {count:,} images: store one label for each image."
        )
    return [int(label) for label in array]


def label_names(where: str, labels: list[int], names: list[str] | None) -> list[str]:
    """The classes' names: those given, or '0', '1', ... for as many as have images.

    Args:
      where: file and array, for messages.
      labels: the training labels.
      names: the names that the file gives, or None.

    Raises:
      TFRobustError: there are fewer than two classes; or, where the file gives no
        names, labels leave a gap in 0..K-1.
    """
    if names is None:
        names = [str(index) for index in range(len(set(labels)))]
        largest = max(labels, default=0)
        if largest >= len(names):
            raise TFRobustError(
                f"{where}[{labels.index(largest)}]: label {largest} is out of range "
                f"0..{len(names) - 1}, because {len(names)} classes have images: "
                "number the classes from 0 on without gaps."
            )
    if len(names) < 2:
        raise TFRobustError(
            f"{where}: expected images of at least two classes, found {len(names)}: add another."
        )
    return names


def _load(location: Path) -> dict[str, np.ndarray]:
    """The arrays that are read; whatever else the file holds stays unread."""
    known = [*_NAMES, *(f"{k}{split}" for k in "xy" for split in ("", "_train", "_test"))]
    try:  # numpy's parsers raise whatever a broken file makes them run into
        with open(location, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if key in known}
    except Exception as error:
        raise TFRobustError(
            f"{location} is not a sound .npz file of plain arrays ({reason(error)}): "
            f"write it with numpy.savez, with {_KEYS}."
        ) from error


def _pairs(location: Path, arrays: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """The names of images and labels: train's first, then test's where there is one."""
    plain, train, test = ((f"x{end}", f"y{end}") for end in ("", "_train", "_test"))
    found = {key for key in arrays if key not in _NAMES}
    for pairs in ([plain], [train], [train, test]):
        if found == {key for pair in pairs for key in pair}:
            return pairs
    raise TFRobustError(
        f"{location}: expected {_KEYS}, found {', '.join(sorted(found)) or 'none of them'}: "
        "name the arrays so."
    )


def _names(location: Path, arrays: Mapping[str, np.ndarray]) -> list[str] | None:
    found = [key for key in _NAMES if key in arrays]
    if not found:
        return None
    names = arrays[found[0]]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise TFRobustError(
            f"{location}: {found[0]}: expected a list of strings, found {names.dtype} of shape "
            f"{list(names.shape)}: write it as numpy.array(['cat', 'dog'])."
        )
    return [str(name) for name in names]


def _checked_images(where: str, images: np.ndarray) -> np.ndarray:
    channels = images.shape[3] if images.ndim == 4 else 1
    if images.ndim not in (3, 4) or channels not in (1, 3) or not len(images):
        raise TFRobustError(
            f"{where}: expected images of shape [N, H, W], [N, H, W, 1] or [N, H, W, 3], found "
            f"{list(images.shape)}: bring the axes into this order (numpy.moveaxis)."
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise TFRobustError(
            f"{where}: expected uint8 in 0..255 or floats in [0, 1], found {images.dtype}: "
            "convert it (x.astype('uint8'), where it is in 0..255)."
        )
    # NaN is found image by image, when it is decoded.
    if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 1):
        raise TFRobustError(
            f"{where}: expected floats in [0, 1], found {images.min():g}..{images.max():g}: "
            "scale them (x / 255, where they are in 0..255)."
        )
    return images
