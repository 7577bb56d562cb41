"""Users' own images as arrays in an .npz file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfrobust.data.decode_all import Item, collect
from tfrobust.data.images import reason
from tfrobust.data.pixels import checked_images, plain_pixels
from tfrobust.data.types import ImageSet, RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError

_KEYS = (
    "images and labels as x and y, or x_train, y_train, x_test, y_test (or train_images and so on)"
)
_NAMES = ("classes", "label_names", "class_names")
_IMAGES = ("x", "images", "image", "imgs", "img", "data", "inputs", "features")
_LABELS = ("y", "labels", "label", "targets", "target", "classes")
# The names of the splits; if a file has two of one kind, the earlier name is 'test'.
SPLITS = {
    "train": "train", "training": "train", "trn": "train", "tr": "train",
    "test": "test", "testing": "test", "tst": "test", "te": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val",
    "evaluation": "val", "holdout": "test",
}  # fmt: skip


class _Pair(NamedTuple):
    """Matching images and labels: the split, '' if unnamed, and the keys."""

    split: str
    x: str
    y: str


def read(location: Path, options: ReadOptions) -> RawData:
    """Reads images and labels from the arrays of an .npz file.

    The file contains ``x`` and ``y``, or such a pair for train, test and val (``x_train``,
    ``train_images``, ``X_test``, ...; val is 'test' if there is no test); and, optionally, the
    class names as an array of strings, ``classes`` or ``label_names``. Images are [N, H, W],
    [N, H, W, C] or, if unambiguous, [N, C, H, W]; uint8, or floats in [0, 1] or whole numbers in
    0..255. Labels are whole numbers [N] or [N, 1] in 0..K-1, one-hot rows [N, K], or strings.
    Nothing in the file is ever unpickled.

    Args:
      location: the .npz file.
      options: sizes, limits, and how to handle broken images and labels.

    Raises:
      TFRobustError: the file is broken, an array is missing or has another type, shape
        or length, a pixel or label is out of range, or a class has no training image.
    """
    arrays, log = _load(location), ReadLog()
    pairs = _official(_pairs(location, arrays, log), log)
    names: list[str] | None = _names(location, arrays)
    splits = []
    for pair in pairs:
        images = checked_images(f"{location}: {pair.x}", arrays[pair.x], options, log)
        where = f"{location}: {pair.y}"
        labels, found = as_labels(where, arrays[pair.y], len(images), names, log)
        names = names or found or label_names(where, labels, None)
        if len(names) < 2:
            label_names(where, labels, names)
        splits.append(
            [Item(f"{pair.x}[{i}]", partial(images.__getitem__, i), k)
             for i, k in enumerate(labels)]
        )  # fmt: skip
    train, *test = collect(location, splits, names or [], options, log)
    return RawData(train, test[0] if test else None, log)


def read_plain(location: Path, options: ReadOptions | None = None) -> tuple[ImageSet, ReadLog]:
    """Images and labels of an .npz file unchanged, for evaluating a model.

    Like `read`, but returns one split (test, else val, else whatever there is), any labels from 0
    on, and keeps floats as float32: an evaluation uses exactly these pixels.

    Args:
      location: the .npz file.
      options: the channels that the model expects, and the range of the file's pixels.

    Raises:
      TFRobustError: the file is broken, an array is missing or has another type, shape
        or length, or a pixel or label is out of range.
    """
    options = options or ReadOptions()
    arrays, log = _load(location), ReadLog()
    pair = _tested(_pairs(location, arrays, log), log)
    images = checked_images(f"{location}: {pair.x}", arrays[pair.x], options, log)
    where, known = f"{location}: {pair.y}", _names(location, arrays)
    listed, found = as_labels(where, arrays[pair.y], len(images), known, log)
    labels = np.array(listed, np.int32)
    names = known or found or [str(k) for k in range(int(labels.max(initial=0)) + 1)]
    if labels.min() < 0 or labels.max() >= len(names):
        raise TFRobustError(
            f"{where}: expected labels in 0..{len(names) - 1}, found {labels.min()} to "
            f"{labels.max()}: give each image the index of its class."
        )
    sources = tuple(f"{pair.x}[{i}]" for i in range(len(labels)))
    pixels = plain_pixels(f"{location}: {pair.x}", images, options.channels, log)
    return ImageSet(pixels, labels, tuple(names), sources), log


def as_labels(
    where: str, labels: Any, count: int, names: Sequence[str] | None = None,
    log: ReadLog | None = None,
) -> tuple[list[int], list[str] | None]:  # fmt: skip
    """Labels as integers; their range is not checked.

    Args:
      where: file and array, for messages.
      labels: whole numbers [N] or [N, 1], one-hot rows [N, K], or strings [N].
      count: number of images.
      names: the file's class names, if any: string labels are looked up in them.
      log: receives a note on the kind of labels.

    Returns:
      The labels, and the class names if the labels were names.

    Raises:
      TFRobustError: the labels have another form, or there is not one per image.
    """
    array = np.asarray(labels)
    notes = (log or ReadLog()).notes
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and _is_one_hot(array):
        notes.append(f"{where}: one-hot labels of {array.shape[1]} classes")
        array = array.argmax(axis=1)
    if array.ndim == 1 and array.dtype.kind == "f" and (array == np.rint(array)).all():
        notes.append(f"{where}: labels are floats, all whole numbers")
        array = array.astype(np.int64)
    if array.ndim == 1 and array.dtype.kind == "b":
        array = array.astype(np.int64)
    found = None
    if array.ndim == 1 and array.dtype.kind in "US":
        array, found = _by_name(where, array.astype(str), names)
        notes.append(f"{where}: labels are names, numbered as {', '.join(found[:5])}"
                     f"{', ...' if len(found) > 5 else ''}")  # fmt: skip
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TFRobustError(
            f"{where}: expected labels [N] (whole numbers or names) or one-hot rows [N, K], found "
            f"{array.dtype} of shape {list(array.shape)}: store the index of the class."
        )
    if len(array) != count:
        raise TFRobustError(
            f"{where}: {len(array):,} labels for {count:,} images: store one label per image."
        )
    return [int(label) for label in array], found


def _is_one_hot(array: np.ndarray) -> bool:
    return bool(
        array.dtype.kind in "iufb"
        and np.isin(array, (0, 1)).all()
        and (array.sum(axis=1) == 1).all()
    )


def _by_name(
    where: str, array: np.ndarray, names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    known = list(names) if names else sorted_names(set(array.tolist()))
    places = {name: place for place, name in enumerate(known)}
    missing = sorted(set(array.tolist()) - set(places))
    if missing:
        raise TFRobustError(
            f"{where}: expected labels from the file's class names ({', '.join(known[:9])}), "
            f"found {missing[0]!r}."
        )
    return np.array([places[name] for name in array.tolist()], np.int64), known


def sorted_names(names: set[str]) -> list[str]:
    """Names in order; numbers by value, so that 10 comes after 9."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def label_names(where: str, labels: list[int], names: list[str] | None) -> list[str]:
    """The class names: those given, or '0', '1', ... for the classes with images.

    Args:
      where: file and array, for messages.
      labels: the training labels.
      names: the file's class names, or None.

    Raises:
      TFRobustError: there are fewer than two classes; or, without names in the file, the labels
        have a gap in 0..K-1.
    """
    if names is None:
        names = [str(index) for index in range(len(set(labels)))]
        largest = max(labels, default=0)
        if largest >= len(names):
            raise TFRobustError(
                f"{where}[{labels.index(largest)}]: label {largest} is out of range "
                f"0..{len(names) - 1}, because {len(names)} classes have images: "
                "number the classes from 0 without gaps."
            )
    if len(names) < 2:
        raise TFRobustError(
            f"{where}: expected images of at least two classes, found {len(names)}: add another."
        )
    return names


def _load(location: Path) -> dict[str, np.ndarray]:
    """The relevant arrays; everything else in the file is not read."""
    try:  # numpy's parsers raise arbitrary exceptions on broken files
        with open(location, "rb") as file, np.load(file, allow_pickle=False) as archive:
            known = [key for key in archive.files if key in _NAMES or _role(key)]
            if not known and len(archive.files) == 2:
                known = archive.files  # numpy.savez(file, images, labels)
            return {key: archive[key] for key in known}
    except Exception as error:
        raise TFRobustError(
            f"{location} is not a valid .npz file of plain arrays ({reason(error)}): "
            f"write it with numpy.savez, with {_KEYS}."
        ) from error


def _role(key: str) -> tuple[str, str] | None:
    """('x' or 'y', the split or '') by an array's name; None for another name."""
    words = [word for word in re.split(r"[^a-z0-9]+|(?<=[a-z])(?=[0-9])", key.lower()) if word]
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = [word for word in words if word not in SPLITS]
    if len(words) == 1 and not splits:
        # Without a separator: xtrain, ytest.
        whole = re.fullmatch(r"([xy])(train|test|val|valid)", words[0])
        if whole:
            return whole[1], SPLITS[whole[2]]
    if len(rest) != 1 or len(splits) > 1:
        return None
    for role, names in (("x", _IMAGES), ("y", _LABELS)):
        # 'classes' by itself is the array of class names.
        if rest[0] in names and not (rest[0] == "classes" and not splits):
            return role, splits[0] if splits else ""
    return None


def _pairs(location: Path, arrays: Mapping[str, np.ndarray], log: ReadLog) -> list[_Pair]:
    """The matching pairs: train (or the unnamed split), then val and test."""
    found: dict[tuple[str, str], str] = {}
    for key in arrays:
        role = _role(key)
        if role is None:
            continue
        if role in found:
            raise TFRobustError(
                f"{location}: {found[role]} and {key} both look like the "
                f"{'images' if role[0] == 'x' else 'labels'}: remove one of them."
            )
        found[role] = key
    if not found and len(arrays) == 2 and "arr_0" in arrays:
        log.notes.append("arrays without names: the first is used as images, the second as "
                        "labels")  # fmt: skip
        found = {("x", ""): "arr_0", ("y", ""): "arr_1"}
    pairs = []
    for split in ("", "train", "val", "test"):
        x, y = found.get(("x", split)), found.get(("y", split))
        if (x is None) != (y is None):
            raise TFRobustError(
                f"{location}: expected {_KEYS}, found {x or y} without its "
                f"{'labels' if x else 'images'}: add them."
            )
        if x and y:
            pairs.append(_Pair(split, x, y))
    if not pairs or (pairs[0].split == "" and len(pairs) > 1 and pairs[1].split == "train"):
        shown = ", ".join(sorted(set(arrays) - set(_NAMES))) or "none of them"
        raise TFRobustError(f"{location}: expected {_KEYS}, found {shown}: rename the arrays.")
    return pairs


def _official(pairs: list[_Pair], log: ReadLog) -> list[_Pair]:
    """Train, then test if there is one; else val is used as test."""
    by_split = {pair.split: pair for pair in pairs}
    test = by_split.get("test") or by_split.get("val")
    train = by_split.get("train") or by_split.get("")
    if train is None:
        log.notes.append(f"there is no train: {pairs[-1].x} is split into train, select and test")
        return [pairs[-1]]
    if test is not None and test.split == "val":
        log.notes.append(f"{test.x} is used as the test split, as there is no test")
    if "test" in by_split and "val" in by_split:
        log.notes.append(f"{by_split['val'].x} is skipped: 'select' is taken from train")
    return [train] if test is None else [train, test]


def _tested(pairs: list[_Pair], log: ReadLog) -> _Pair:
    """The split to evaluate on: test, else val, else whatever there is."""
    by_split = {pair.split: pair for pair in pairs}
    for split in ("test", "val", "", "train"):
        if split in by_split:
            if len(pairs) > 1 or split == "train":
                log.notes.append(f"evaluated on {by_split[split].x}, of {len(pairs)} split(s) in "
                                 "the file")  # fmt: skip
            return by_split[split]
    raise AssertionError


def _names(location: Path, arrays: Mapping[str, np.ndarray]) -> list[str] | None:
    found = [key for key in _NAMES if key in arrays]
    if not found:
        return None
    names = arrays[found[0]]
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise TFRobustError(
            f"{location}: {found[0]}: expected a list of strings, found {names.dtype} of shape "
            f"{list(names.shape)}: write it as numpy.array(['cat', 'dog'])."
        )
    return [str(name) for name in names.astype(str)]
