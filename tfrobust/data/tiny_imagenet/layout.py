"""The official layout of Tiny ImageNet, read from the zip or from an extracted folder."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tfrobust.data.archives import open_zip
from tfrobust.data.download import sha256
from tfrobust.errors import TFRobustError

FOLDER = "tiny-imagenet-200"
ZIP = f"{FOLDER}.zip"
_INDEX = "wnids.txt"


def locate(location: Path) -> Path | None:
    """Finds Tiny ImageNet at a path given by the user.

    Args:
      location: the zip, its folder, the extracted folder, or its parent.

    Returns:
      The zip or the extracted folder; None if there is neither.

    Raises:
      TFRobustError: the path is that of a zip that does not exist.
    """
    if location.is_file():
        return location
    if location.suffix == ".zip" and not location.is_dir():
        raise TFRobustError(
            f"Tiny ImageNet: expected the zip {location}, found no such file: give {ZIP}, "
            "its extracted folder, or a folder to download it to."
        )
    for folder in (location, location / FOLDER):
        if (folder / _INDEX).is_file():
            return folder
    return location / ZIP if (location / ZIP).is_file() else None


def fingerprint(source: Path) -> str:
    """64 hex digits that change with the source.

    For a zip, the SHA-256 of its bytes; for a folder, that of its files' names, sizes and
    modification times, since reading 100,000 files takes too long.
    """
    if source.is_file():
        return sha256(source)
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        stat = path.stat()
        name = path.relative_to(source).as_posix()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class Layout:
    """Read access to a complete or partial copy of Tiny ImageNet.

    Nothing is unpacked: files are read in place. Bounding boxes and the unlabelled test images
    are not used.

    Attributes:
      wnids: the WordNet ids in the order of wnids.txt; a label is an index into them.
      label_names: the class names: the first entry of their line in words.txt, with the WordNet
        id added if two classes share it.

    Args:
      source: the zip or the extracted folder, as returned by `locate`.

    Raises:
      TFRobustError: a file of the layout is missing, broken or contradicts another.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        opener = _open_zip if source.is_file() else _open_folder
        self._root, self._files = opener(source)
        self.wnids = tuple(line[0] for line in self._table(_INDEX, 1))
        if len(set(self.wnids)) < len(self.wnids):
            raise self._error(f"each class once in {_INDEX}", "a class twice")
        words = dict(self._table("words.txt", 2))
        for wnid in self.wnids:
            if wnid not in words:
                raise self._error(f"a line for {wnid} in words.txt", "none")
        self.label_names = _unique({wnid: words[wnid] for wnid in self.wnids})

    def examples(self, split: str) -> Iterator[tuple[str, int]]:
        """The (path in the layout, label) of every image of 'train' or 'val', in order.

        Raises:
          TFRobustError: images, folders and annotations are inconsistent.
        """
        labels = {wnid: label for label, wnid in enumerate(self.wnids)}
        wnid_of = self._train() if split == "train" else self._val()
        for name, wnid in wnid_of.items():
            if wnid not in labels:
                raise self._error(f"the class of {name} in {_INDEX}", f"no {wnid!r} there")
        for name in sorted(wnid_of, key=lambda name: (labels[wnid_of[name]], len(name), name)):
            yield name, labels[wnid_of[name]]

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
          TFRobustError: it is missing or cannot be read.
        """
        if name not in self._files:
            raise self._error(name, "no such file")
        try:
            return (self._root / name).read_bytes()
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise self._error(f"{name} to be readable", f"'{error}'") from error

    def _train(self) -> dict[str, str]:
        return {name: name.split("/")[1] for name in self._images("train/")}

    def _val(self) -> dict[str, str]:
        rearranged = {name: name.split("/")[1] for name in self._images("val/")}
        if rearranged and set(rearranged.values()) <= set(self.wnids):
            return rearranged  # into one folder per class, as many scripts do
        annotations = self._table("val/val_annotations.txt", 2)
        wnid_of = {f"val/images/{fields[0]}": fields[1] for fields in annotations}
        for name in sorted(wnid_of.keys() ^ set(self._images("val/"))):
            if name in wnid_of:
                raise self._error(f"{name}, which val_annotations.txt lists", "no such file")
            raise self._error(f"a line for {name} in val/val_annotations.txt", "none")
        return wnid_of

    def _images(self, folder: str) -> list[str]:
        endings = (".jpeg", ".jpg")
        return [n for n in self._files if n.startswith(folder) and n.lower().endswith(endings)]

    def _table(self, name: str, columns: int) -> list[list[str]]:
        """The first tab-separated columns of each line of a text file."""
        rows = []
        for line in self.read(name).decode("utf-8", "replace").splitlines():
            fields = line.split("\t")[:columns]
            if len(fields) < columns or not all(fields):
                raise self._error(f"{columns} columns in each line of {name}", repr(line[:40]))
            rows.append([field.strip() for field in fields])
        return rows

    def _error(self, expected: str, found: str) -> TFRobustError:
        return TFRobustError(
            f"Tiny ImageNet in {self._source}: expected {expected}, found {found}: "
            f"fix the copy, or get the original {ZIP}."
        )


def _open_zip(source: Path) -> tuple[zipfile.Path | Path, frozenset[str]]:
    archive = open_zip(source)
    names = archive.namelist()
    tops = [name[: -len(_INDEX)] for name in names if name.endswith(_INDEX)]
    top = min(tops, key=len, default="")
    files = (n for n in names if n.startswith(top) and not n.endswith("/"))
    return zipfile.Path(archive, top), frozenset(name[len(top) :] for name in files)


def _open_folder(source: Path) -> tuple[zipfile.Path | Path, frozenset[str]]:
    files = (path for path in source.rglob("*") if path.is_file())
    return source, frozenset(path.relative_to(source).as_posix() for path in files)


def _unique(words: dict[str, str]) -> tuple[str, ...]:
    """wnid -> line of words.txt, as unique short names."""
    short = {wnid: line.split(",")[0].strip() for wnid, line in words.items()}
    names = list(short.values())
    return tuple(
        name if names.count(name) == 1 else f"{name} ({wnid})" for wnid, name in short.items()
    )
