"""Published sets of corrupted images, read in place: CIFAR-10-C, TinyImageNet-C, ImageNet-C.

Hendrycks and Dietterich (2019), https://arxiv.org/abs/1903.12261. Two layouts:

    NAME.npy, labels.npy            uint8 [5 * N, H, W, 3], severity 1 first
    NAME/SEVERITY/CLASS/*.JPEG      possibly below GROUP/, such as noise/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfrobust.data.corruptions import CORRUPTIONS, SEVERITIES
from tfrobust.data.images import decode
from tfrobust.data.labels import match_labels
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError

#: Corruptions that the published means exclude.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
_ENDINGS = (".jpeg", ".jpg", ".png")
Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class CorruptionSet:
    """A folder of corrupted images; `open_corruption_set` detects its layout.

    Attributes:
      path: the folder.
      names: the corruptions, in the published order, followed by any others.
      classes: the class names, by the label that `batches` yields.
    """

    path: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def batches(
        self, name: str, severity: int, *, size: tuple[int, int], batch_size: int = 128,
        limit: int | None = None, seed: int = 42,
    ) -> Iterator[Batch]:  # fmt: skip
        """Images uint8 [B, H, W, 3] and labels int32 [B] of one corruption and severity.

        Args:
          name: of `names`.
          severity: 1 to 5.
          size: (width, height) that files are resized to; arrays must already have it.
          batch_size: images in a batch.
          limit: at most this many images, drawn by the seed.
          seed: of that draw, which is the same throughout a set of arrays.

        Raises:
          TFRobustError: a file is broken, or its content does not match its place.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define batches.")


@dataclass(frozen=True)
class ArraySet(CorruptionSet):
    """A set of arrays, such as CIFAR-10-C and CIFAR-100-C.

    Attributes:
      labels: int32 [N] of the images, the same at each severity.
    """

    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)

    def batches(
        self, name: str, severity: int, *, size: tuple[int, int], batch_size: int = 128,
        limit: int | None = None, seed: int = 42,
    ) -> Iterator[Batch]:  # fmt: skip
        """Implements `CorruptionSet.batches`."""
        images = _array(self.path / f"{name}.npy")
        count = len(self.labels)
        expected = (len(SEVERITIES) * count, size[1], size[0], 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise TFRobustError(
                f"{self.path / name}.npy is {images.dtype} {list(images.shape)}: expected uint8 "
                f"{list(expected)}, 5 severities of the {count:,} labels' images, in the size "
                "of the evaluation."
            )
        rows = _drawn(count, limit, seed)
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            yield np.array(images[(severity - 1) * count + part]), self.labels[part]


@dataclass(frozen=True)
class FolderSet(CorruptionSet):
    """A set of folders of files, such as TinyImageNet-C and ImageNet-C.

    Attributes:
      places: corruption -> its folder.
    """

    places: dict[str, Path] = field(default_factory=dict, repr=False)

    def batches(
        self, name: str, severity: int, *, size: tuple[int, int], batch_size: int = 128,
        limit: int | None = None, seed: int = 42,
    ) -> Iterator[Batch]:  # fmt: skip
        """Implements `CorruptionSet.batches`."""
        folder, known = self.places[name] / str(severity), set(self.classes)
        found = sorted(one.name for one in folder.iterdir() if one.is_dir())
        if unknown := [one for one in found if one not in known]:
            raise TFRobustError(f"{folder} has the class {unknown[0]}, which other folders lack.")
        files = [(file, label) for label, one in enumerate(self.classes) if one in found
                 for file in _images(folder / one)]  # fmt: skip
        if not files:
            raise TFRobustError(f"{folder} contains no images: expected CLASS/*.JPEG in it.")
        rows = _drawn(len(files), limit, seed)
        for first in range(0, len(rows), batch_size):
            part = [files[row] for row in rows[first : first + batch_size]]
            yield (
                np.stack([_decoded(file, size) for file, _ in part]),
                np.array([label for _, label in part], np.int32),
            )


def open_corruption_set(path: Path | str) -> CorruptionSet:
    """Opens the published set in a folder.

    Args:
      path: the folder with its arrays, or with the folders of its corruptions.

    Raises:
      UsageError: it contains no set.
      TFRobustError: the set is incomplete.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--corruptions: {folder} is not a folder: expected {_EXPECTED}.")
    if (folder / "labels.npy").is_file():
        return _arrays(folder)
    places = _corruptions(folder)
    if not places:
        raise UsageError(f"--corruptions: {folder} is not a published set: expected {_EXPECTED}.")
    for place in places.values():
        missing = [one for one in SEVERITIES if not (place / str(one)).is_dir()]
        if missing:
            raise TFRobustError(f"{place} has no severity {missing[0]}: expected 1 to 5.")
    first = next(iter(places.values()))
    classes = {one.name for severity in SEVERITIES for one in (first / str(severity)).iterdir()
               if one.is_dir()}  # fmt: skip
    return FolderSet(folder, tuple(places), tuple(sorted(classes)), places)


def labels_for(found: CorruptionSet, names: Sequence[str], classes: int) -> np.ndarray:
    """Label of the set -> label of the model, int32 [classes of the set].

    By `wnids.txt` in the set's folder, if there is one, which lists the classes in the model's
    order; else by name; else in order, if the number of classes is the same.

    Args:
      found: the set.
      names: the model's classes, by label.
      classes: K, number of the model's classes.

    Raises:
      UsageError: a class is not one of the model's.
    """
    own, listed = found.classes, found.path / "wnids.txt"
    if isinstance(found, FolderSet) and listed.is_file():
        order = listed.read_text(encoding="utf-8", errors="replace").split()
        if set(own) <= set(order[:classes]):
            return np.array([order.index(one) for one in own], np.int32)
        raise UsageError(f"{listed} does not list the classes of {found.path} among {classes}.")
    blank = np.zeros((len(own), 1, 1, 3), np.uint8)
    data = ImageSet(blank, np.arange(len(own), dtype=np.int32), own)
    numbered = all(one.isdigit() for one in names)
    try:
        matched, _ = match_labels(data, None if numbered else tuple(names), classes)
    except UsageError as error:
        raise UsageError(
            f"The class names of {found.path} differ from the model's ({own[0]!r}, {names[0]!r}): "
            f"add a file wnids.txt to it that lists its {len(own)} folders in the model's order, "
            "like TinyImageNet's."
        ) from error
    if matched.labels.max() >= classes:
        raise UsageError(
            f"{found.path} has labels up to {matched.labels.max()}, the model has {classes} "
            "classes: expected a set with the model's own classes."
        )
    return np.asarray(matched.labels, np.int32)


_EXPECTED = ("labels.npy with NAME.npy of 5 x N images (CIFAR-10-C), or folders "
             "NAME/SEVERITY/CLASS/*.JPEG (TinyImageNet-C, ImageNet-C)")  # fmt: skip


def _arrays(folder: Path) -> ArraySet:
    names = _ordered(file.stem for file in folder.glob("*.npy") if file.stem != "labels")
    if not names:
        raise UsageError(f"--corruptions: {folder} contains only labels: expected {_EXPECTED}.")
    labels = _array(folder / "labels.npy")
    total = len(_array(folder / f"{names[0]}.npy"))
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise TFRobustError(
            f"{folder / 'labels.npy'}: expected a whole number from 0 on per image."
        )
    parts = labels.reshape(len(SEVERITIES), -1) if len(labels) % len(SEVERITIES) == 0 else None
    # The published file repeats the labels for each severity.
    if len(labels) == total and parts is not None and (parts == parts[0]).all():
        labels = parts[0]
    elif len(SEVERITIES) * len(labels) != total:
        raise TFRobustError(
            f"{folder}: {len(labels):,} labels do not match {total:,} images in {names[0]}.npy: "
            "expected as many, the same for each of 5 severities, or a fifth."
        )
    numbers = tuple(map(str, range(int(labels.max()) + 1)))
    return ArraySet(folder, names, numbers, labels.astype(np.int32))


def _array(file: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TFRobustError(f"{file} cannot be read ({error}): expected an array.") from error
    return found


def _corruptions(folder: Path) -> dict[str, Path]:
    """Corruption -> its folder, including those in group folders."""
    inside = [one for one in sorted(folder.iterdir()) if one.is_dir()]
    deeper = [two for one in inside for two in sorted(one.iterdir()) if two.is_dir()]
    found = {one.name: one for one in (*inside, *deeper) if _has_severities(one)}
    return {name: found[name] for name in _ordered(found)}


def _has_severities(folder: Path) -> bool:
    return any((folder / str(severity)).is_dir() for severity in SEVERITIES)


def _ordered(names: Iterator[str] | dict[str, Path]) -> tuple[str, ...]:
    order = [*CORRUPTIONS, *EXTRA]
    place = {name: number for number, name in enumerate(order)}
    return tuple(sorted(names, key=lambda name: (place.get(name, len(order)), name)))


def _images(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix.lower() in _ENDINGS)


def _decoded(file: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        return decode(file, size).pixels
    except ValueError as error:
        raise TFRobustError(f"{file} cannot be read ({error}): copy the set again.") from error


def _drawn(count: int, limit: int | None, seed: int) -> np.ndarray:
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])
