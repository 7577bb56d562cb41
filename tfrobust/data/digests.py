"""Images identified by their content: which were trained on, and which are in two splits."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrobust.data.types import ImageSet, Splits
from tfrobust.errors import TFRobustError

_ROWS = 1024
# The number of digits of SHA-256 kept per training image: among a billion images, two agree in
# it by chance with a probability below 1e-20.
_BYTES = 16
_LISTED = 3


def digests(data: ImageSet) -> list[str]:
    """SHA-256 of the pixels of each image, as uint8 bytes [H, W, C].

    Floats are first rounded to the nearest of the 256 levels, so that an image is recognised
    however it is stored.
    """
    found = []
    for first in range(0, len(data), _ROWS):
        part = data.images[first : first + _ROWS]
        if part.dtype != np.uint8:
            part = np.rint(part * np.float32(255)).astype(np.uint8)
        found += [hashlib.sha256(image.tobytes()).hexdigest() for image in part]
    return found


def digest_of_all(data: ImageSet) -> str:
    """One SHA-256 of all images with their class names, independent of their order."""
    names = data.label_names
    rows = sorted(f"{one} {names[k]}" for one, k in zip(digests(data), data.labels, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def duplicates(splits: Splits) -> list[str]:
    """The images that are in two splits at once, one sentence per pair of splits."""
    kept = {name: digests(getattr(splits, name)) for name in ("train", "select", "test")}
    lines = []
    for name, other in (("test", "train"), ("test", "select"), ("select", "train")):
        known = set(kept[other])
        rows = [row for row, one in enumerate(kept[name]) if one in known]
        if rows:
            names = getattr(splits, name).names
            listed = ", ".join(names[row] if names else str(row) for row in rows[:_LISTED])
            more = ", ..." if len(rows) > _LISTED else ""
            lines.append(f"{len(rows):,} images of {name} are also in {other}: {listed}{more}")
    return lines


@dataclass(frozen=True)
class RunImages:
    """Digests of the images that a run used.

    Attributes:
      train: digests of the training images.
      select: digests of the images used for model selection.
      classes: the classes' names, by label.
    """

    train: frozenset[str]
    select: frozenset[str]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, splits: Splits) -> RunImages:
        """The digests of a run's splits."""
        train, select = (
            frozenset(one[: 2 * _BYTES] for one in digests(part))
            for part in (splits.train, splits.select)
        )
        return cls(train, select, splits.train.label_names)

    def save(self, path: Path) -> None:
        """Writes an .npz file.

        Raises:
          TFRobustError: it cannot be written.
        """
        train, select = _as_array(self.train), _as_array(self.select)
        try:
            np.savez(path, classes=np.array(self.classes, str), train=train, select=select)
        except OSError as error:
            raise TFRobustError(f"{path} cannot be written: {error}.") from error

    @classmethod
    def load(cls, path: Path) -> RunImages | None:
        """The file that `save` wrote; None if it does not exist.

        Raises:
          TFRobustError: the file is damaged.
        """
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                train, select = (
                    frozenset(bytes(row).hex() for row in file[name])
                    for name in ("train", "select")
                )
                return cls(train, select, tuple(str(name) for name in file["classes"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TFRobustError(
                f"{path} is damaged ({error}): it lists the training images; delete it to "
                "continue without it."
            ) from error

    def fresh(self, data: ImageSet) -> tuple[np.ndarray, int, int]:
        """Rows of `data` that the run has not used; the numbers of train and select images."""
        short = [one[: 2 * _BYTES] for one in digests(data)]
        trained = np.array([one in self.train for one in short], bool)
        chosen = np.array([one in self.select for one in short], bool) & ~trained
        return np.flatnonzero(~(trained | chosen)), int(trained.sum()), int(chosen.sum())


def _as_array(hexes: frozenset[str]) -> np.ndarray:
    rows = [list(bytes.fromhex(one)) for one in sorted(hexes)]
    return np.array(rows, np.uint8).reshape(len(rows), _BYTES)
