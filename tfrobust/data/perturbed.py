"""Perturbed sets as training data, and the check by content that keeps test images out."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from tfrobust.data.arrays import read_plain
from tfrobust.data.digests import digests
from tfrobust.data.types import ImageSet, Splits
from tfrobust.errors import TFRobustError, UsageError

#: The array of an .npz file with the digest of each image's source.
SOURCES = "source_sha256"


@dataclass(frozen=True)
class Source:
    """The images of one split that sets may be made from, in the order of use.

    Attributes:
      split: its name.
      data: its images.
      order: int [M], rows of `data`, shuffled; each distinct image is there once.
      digests: SHA-256 of each row of `data`.
      left_out: reason -> images that are not in `order`.
    """

    split: str
    data: ImageSet
    order: np.ndarray
    digests: list[str]
    left_out: dict[str, int]


def sources(splits: Splits, seed: int) -> dict[str, Source]:
    """The sources of the sets: train and test, separated by comparing pixels.

    An image of train with the same pixels as one in test or select is left out, whatever its name
    or index, and so is every repetition inside a split.

    Args:
      splits: of the data.
      seed: of the order.

    Returns:
      'train' and 'test' -> the images that may be used.
    """
    kept = {name: digests(getattr(splits, name)) for name in ("train", "select", "test")}
    barred = [("in_test", set(kept["test"])), ("in_select", set(kept["select"]))]
    return {
        "train": _source("train", splits.train, kept["train"], barred, seed),
        "test": _source("test", splits.test, kept["test"], [], seed + 1),
    }


def _source(
    split: str, data: ImageSet, kept: list[str], barred: list[tuple[str, set[str]]], seed: int
) -> Source:
    left_out = {reason: 0 for reason, _ in barred} | {"repeated": 0}
    rows: list[int] = []
    seen: set[str] = set()
    for row, digest in enumerate(kept):
        reasons = [reason for reason, others in barred if digest in others]
        reasons += ["repeated"] if digest in seen else []
        if reasons:
            left_out[reasons[0]] += 1
        else:
            rows.append(row)
        seen.add(digest)
    order = np.random.default_rng(seed).permutation(np.array(rows, int))
    return Source(split, data, order, kept, left_out)


def with_augmentation(splits: Splits, path: Path) -> Splits:
    """`splits` with the images of a perturbed set added to train.

    They follow the images of train, as float32, exactly as in the file. The images of train stay
    where they are (possibly on disk).

    Args:
      splits: the splits of the run.
      path: an .npz file with `x` and `y`; one that `pipelines.perturb` wrote also has the sources
        of its images.

    Raises:
      UsageError: there is no such file.
      TFRobustError: it cannot be read, has another size or other classes, or an image or its
        source is in select or test.
    """
    if not path.is_file():
        raise UsageError(
            f"augment_with: expected an .npz file of pipelines.perturb, found no file {path}."
        )
    extra, _ = read_plain(path)
    _check_fits(path, extra, splits.train)
    _check_leak(path, extra, splits)
    train = splits.train
    names = train.names or tuple(f"train[{i}]" for i in range(len(train)))
    added = tuple(f"{path.name}: {name}" for name in extra.names)
    both = ImageSet(
        images=cast(np.ndarray, Appended(train, extra)),
        labels=np.concatenate([train.labels, extra.labels]),
        label_names=train.label_names,
        names=names + added,
    )
    return replace(splits, train=both)


class Appended:
    """The images of two sets, one after the other, read like one array without copying.

    Values read are float32 in [0, 1], whatever the types of the two.

    Args:
      first: at 0..len(first)-1.
      second: after them, with the same image size.
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, first: ImageSet, second: ImageSet) -> None:
        self._first, self._second = first, second
        self._rows = np.arange(len(first) + len(second))
        self.shape = (len(self._rows), *first.image_shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The images at an int, a slice, or an int or bool array; float32 [..., H, W, 3]."""
        rows = self._rows[index]
        if rows.ndim == 0:
            return cast(np.ndarray, self[rows[None]][0])
        found = np.empty((len(rows), *self.shape[1:]), np.float32)
        own = rows < len(self._first)
        found[own] = self._first.pixels(rows[own])
        found[~own] = self._second.pixels(rows[~own] - len(self._first))
        return found


def _check_fits(path: Path, extra: ImageSet, train: ImageSet) -> None:
    if extra.image_shape != train.image_shape:
        found, expected = ("x".join(map(str, s.image_shape[:2])) for s in (extra, train))
        raise TFRobustError(
            f"{path}: expected images of {expected} as in train, found {found}: build the set "
            "from the same data, with the same --image-size."
        )
    # A file without names numbers its classes.
    unnamed = tuple(str(k) for k in range(len(extra.label_names)))
    fits = extra.label_names == unnamed and len(unnamed) <= len(train.label_names)
    if extra.label_names != train.label_names and not fits:
        raise TFRobustError(
            f"{path}: expected the {len(train.label_names)} classes of train in their order "
            f"({_few(train.label_names)}), found {_few(extra.label_names)}: build the set from "
            "the same data."
        )


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_leak(path: Path, extra: ImageSet, splits: Splits) -> None:
    sources = _sources(path, len(extra))
    kept = digests(extra)
    for split, data in (("select", splits.select), ("test", splits.test)):
        places = {digest: i for i, digest in enumerate(digests(data))}
        for name, own, source in zip(extra.names, kept, sources, strict=True):
            place = places.get(source, places.get(own))
            if place is not None:
                found = data.names[place] if data.names else f"number {place}"
                how = "is made from" if source in places else "is"
                raise TFRobustError(
                    f"{path}: {name} {how} the {split} image {found}, expected training images "
                    "only: build the set from the same data, with the seed and fractions of "
                    "this run."
                )


def _sources(path: Path, count: int) -> list[str]:
    """The digest of each image's source; '' if the file has none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = archive[SOURCES] if SOURCES in archive.files else np.full(count, "")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TFRobustError(
            f"{path}: {SOURCES} cannot be read ({error}): build it again."
        ) from error
    if found.shape != (count,) or found.dtype.kind != "U":
        raise TFRobustError(
            f"{path}: {SOURCES}: expected {count} strings, found {found.dtype} of shape "
            f"{list(found.shape)}: build the set again with pipelines.perturb."
        )
    return [str(digest) for digest in found]
