"""CIFAR-10 from the user's own copy: the original archives, packed or unpacked, or images."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.data import folder
from tfrobust.data.archives import unpack
from tfrobust.data.decode_all import Item, collect
from tfrobust.data.pickle_tree import Call, parse
from tfrobust.data.types import RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))
_TEST = ("test_batch",)
_ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz")
_ARCHIVE_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
_PIXELS = 3 * 32 * 32
_RECONSTRUCT = "numpy.core.multiarray._reconstruct"
_KNOWN = frozenset(
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype",
     "_codecs.encode")
)  # fmt: skip
_WANTED = (
    "CIFAR-10's original archive (cifar-10-binary.tar.gz or cifar-10-python.tar.gz), its "
    "unpacked files, or a folder or zip with the folders airplane ... truck"
)

Reader = Callable[[Path], tuple[np.ndarray, list[int]]]


def find(location: Path) -> Path | None:
    """The user's own copy at a location, or None if it is a folder for TFDS.

    Args:
      location: a file; or a folder with an archive, its files, or class folders.
    """
    if location.is_file():
        return location
    inside = [location / name for name in (*_ARCHIVES, *_ARCHIVE_FOLDERS)]
    found = next((path for path in inside if path.exists()), None)
    if found or _batches(location):
        return found or location
    has_classes = any((location / part / name).is_dir() for part in ("", "train") for name in NAMES)
    return location if has_classes else None


def read(location: Path, options: ReadOptions) -> RawData:
    """Reads the copy that `find` returned.

    Pickles in the Python archive are read as data: nothing in them is executed.

    Args:
      location: of the copy.
      options: how to read; archives are unpacked into its cache folder.

    Raises:
      TFRobustError: it is something else, or broken.
    """
    if location.is_file() and tarfile.is_tarfile(location):
        from tfrobust.data.archives import cache_folder

        unpacked = unpack(location, cache_folder(options))
        inside = [unpacked / name for name in _ARCHIVE_FOLDERS if (unpacked / name).is_dir()]
        location = inside[0] if inside else unpacked
    if location.is_dir() and (reader := _batches(location)):
        return _read_batches(location, reader, options)
    if location.is_dir() or location.suffix.lower() == ".zip":
        raw = folder.read(location, options)
        if raw.train.label_names == NAMES:
            return raw
        found = ", ".join(raw.train.label_names[:12])
        raise TFRobustError(
            f"{location}: expected {_WANTED}, found the classes {found}: for images of your own "
            f"write --dataset {location}."
        )
    raise TFRobustError(f"{location}: expected {_WANTED}, found another file.")


def _batches(location: Path) -> tuple[str, Reader] | None:
    """The suffix of the batch files in a folder, and their reader."""
    for ending, reader in ((".bin", _read_binary), ("", _read_pickle)):
        if all((location / f"{name}{ending}").is_file() for name in (*_TRAIN, *_TEST)):
            return ending, reader
    return None


def _read_batches(location: Path, kind: tuple[str, Reader], options: ReadOptions) -> RawData:
    ending, reader = kind
    splits = []
    for files in (_TRAIN, _TEST):
        items = []
        for name in files:
            images, labels = reader(location / f"{name}{ending}")
            items += [
                Item(f"{name}[{i}]", partial(images.__getitem__, i), label)
                for i, label in enumerate(labels)
            ]
        splits.append(items)
    log = ReadLog()
    train, test = collect(location, splits, list(NAMES), options, log)
    return RawData(train, test, log)


def _read_binary(path: Path) -> tuple[np.ndarray, list[int]]:
    """One file of the binary version: a byte of label, then the planes R, G, B, per image."""
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % (_PIXELS + 1):
        raise TFRobustError(
            f"{path}: expected a multiple of {_PIXELS + 1} bytes, found {len(content):,}: the file "
            "is truncated; unpack the archive again."
        )
    rows = content.reshape(-1, _PIXELS + 1)
    return _as_images(rows[:, 1:]), _checked(path, rows[:, 0].tolist())


def _read_pickle(path: Path) -> tuple[np.ndarray, list[int]]:
    """One file of the Python version: a pickled dict of an array and a list."""
    try:
        tree = parse(path.read_bytes(), _KNOWN)
        pixels, labels = _array(tree["data"]), tree["labels"]
        rows = np.frombuffer(pixels, np.uint8).reshape(len(labels), _PIXELS)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        cause = " ".join(str(error).split())[:100]
        raise TFRobustError(
            f"{path}: expected a batch of CIFAR-10's Python version, found another pickle "
            f"({type(error).__name__}: {cause})."
        ) from error
    return _as_images(rows), _checked(path, labels)


def _array(node: Any) -> bytes:
    """The bytes of a pickled array of uint8."""
    if not isinstance(node, Call) or str(node.function) not in _KNOWN:
        raise ValueError(f"expected an array, found a {type(node).__name__}")
    content = node.state[-1]
    if isinstance(content, Call):  # Python 3 writes Python 2's strings as encoded text
        content = content.args[0]
    return content if isinstance(content, bytes) else content.encode("latin-1")


def _as_images(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _checked(path: Path, labels: Any) -> list[int]:
    valid = isinstance(labels, list) and all(type(k) is int and 0 <= k < 10 for k in labels)
    if not valid:
        raise TFRobustError(f"{path}: expected labels in 0..9, found others.")
    return list(labels)
