"""Users' own images: a folder or a zip with one folder per class, with or without splits."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

from tfrobust.data.archives import open_zip
from tfrobust.data.arrays import SPLITS, sorted_names
from tfrobust.data.decode_all import Item, collect
from tfrobust.data.images import Source
from tfrobust.data.types import RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError

# Words that may accompany a split's name in a folder's name, as in seg_train or test_set.
_AROUND_SPLITS = (
    "set", "data", "dataset", "images", "imgs", "img", "image", "seg", "split", "folder", "dir",
    "raw", "original", "official", "full", "new", "v", "my", "final", "cleaned", "clean",
)  # fmt: skip
# Folders of unlabelled images beside a labelled split.
_UNLABELLED = ("pred", "prediction", "predictions", "unlabeled", "unlabelled", "unsup")

# What systems and network drives leave in folders; hidden files are skipped as well.
_CLUTTER = (
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "@eadir", "@tmp",
    "#recycle", "@recycle", "@recently-snapshot", "$recycle.bin", "system volume information",
    "lost+found", "__pycache__", "icon\r",
)  # fmt: skip
_MAX_FILE_BYTES = 512 << 20
_LAYOUT = "one folder of images per class, or train/ and test/ with such folders in each"


class _Entry(NamedTuple):
    """A file, or a folder (`open` is None).

    Attributes:
      path: its full path in the source.
      parts: its path relative to the current level.
      open: returns the image file, for `images.decode`.
    """

    path: str
    parts: tuple[str, ...]
    open: Callable[[], Source] | None

    @property
    def folder(self) -> str | None:
        """The top folder that contains it, or itself; None for a file at the top."""
        return self.parts[0] if len(self.parts) > 1 or self.open is None else None


_Classes = dict[str, list[_Entry]]


def read(location: Path, options: ReadOptions) -> RawData:
    """Reads images from one folder per class.

    The class folders are at the top, or in ``train/`` and ``test/`` (``training_set/``,
    ``seg_test/seg_test/`` and the like), possibly all within a single folder. If there is no
    ``test/``, ``val/`` (``valid/``, ``validation/``) is the test split; if there are both,
    ``val/`` is skipped, because 'select' is taken from train. Class names are sorted, numbers by
    value. Every file under a class folder, at any depth, is treated as an image, except hidden
    files and system leftovers; files outside class folders are skipped. The log lists everything
    that is skipped.

    Args:
      location: a folder, or a zip, which is read without unpacking it.
      options: sizes, limits, and how to handle broken images; with `skip_broken` a class with an
        empty folder is skipped, too.

    Raises:
      TFRobustError: the layout is different, train and test have different classes, a class
        folder is empty, or an image is broken.
    """
    if location.is_dir():
        return _read(location, _walk(location), options)
    with open_zip(location) as archive:
        return _read(location, _members(archive), options)


def _read(location: Path, entries: Iterable[_Entry], options: ReadOptions) -> RawData:
    log = ReadLog()
    visible = (entry for entry in entries if not is_clutter(entry.parts))
    ordered = sorted(visible, key=lambda entry: entry.path)
    splits = {
        split: _by_class(found, log)
        for split, found in _by_split(location, _unwrap(ordered, log), log).items()
    }
    _check_same_classes(location, splits)
    names = _class_names(location, splits, options, log)
    items = [_items(classes, names) for classes in splits.values()]
    train, *test = collect(location, items, names, options, log)
    return RawData(train, test[0] if test else None, log)


def _items(classes: _Classes, names: list[str]) -> list[Item]:
    return [
        Item(entry.path, entry.open, label)
        for label, name in enumerate(names)
        for entry in classes[name]
        if entry.open is not None
    ]


def _walk(root: Path) -> Iterator[_Entry]:
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(folder)
        if real in seen:  # links to folders are followed, but not in cycles
            folders.clear()
            continue
        seen.add(real)
        place = Path(folder).relative_to(root)
        if place.parts:
            yield _Entry(place.as_posix(), place.parts, None)
        for name in files:
            file = place / name
            yield _Entry(file.as_posix(), file.parts, partial(Path, root, file))


def _unreadable(error: OSError) -> NoReturn:
    raise TFRobustError(
        f"Folder {error.filename} cannot be read ({error.strerror}): change its permissions."
    ) from error


def _members(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    lock = threading.Lock()  # ZipFile's reader count is not thread-safe

    def content(info: zipfile.ZipInfo) -> bytes:
        if info.file_size > _MAX_FILE_BYTES:
            raise ValueError(f"{info.file_size:,} bytes, more than {_MAX_FILE_BYTES:,}")
        with lock:
            return archive.read(info)

    for info in archive.infolist():
        # Some Windows packers write backslashes.
        name = info.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        yield _Entry(name, parts, None if name.endswith("/") else partial(content, info))


def is_clutter(parts: tuple[str, ...]) -> bool:
    """Whether a path is hidden, or a system leftover in a folder."""
    return not parts or any(part.startswith(".") or part.lower() in _CLUTTER for part in parts)


def split_of(folder: str) -> str | None:
    """'train', 'test' or 'val' if a folder has one of the usual names of a split, else None."""
    words = [word for word in re.split(r"[^a-z]+", folder.lower()) if word]
    words = [word.removesuffix("set") or word for word in words]
    named = [word for word in words if word not in _AROUND_SPLITS]
    return SPLITS.get(named[0]) if len(named) == 1 and len(named[0]) > 2 else None


def _folders(entries: Iterable[_Entry]) -> list[str]:
    return sorted({entry.folder for entry in entries if entry.folder is not None})


def _inside(entries: Iterable[_Entry], folder: str) -> list[_Entry]:
    return [
        _Entry(entry.path, entry.parts[1:], entry.open)
        for entry in entries
        if entry.folder == folder and len(entry.parts) > 1
    ]


def _skip_loose(entries: Iterable[_Entry], log: ReadLog) -> None:
    loose = [entry.path for entry in entries if entry.folder is None]
    log.skipped.extend(f"{path}: not in a class folder" for path in loose)


def _unwrap(entries: list[_Entry], log: ReadLog) -> list[_Entry]:
    """Descends into the single folder that contains all others, repeatedly."""
    folders = _folders(entries)
    if len(folders) != 1:
        return entries
    inside = _inside(entries, folders[0])
    if not _folders(inside):
        return entries
    _skip_loose(entries, log)
    return _unwrap(inside, log)


def _by_split(location: Path, entries: list[_Entry], log: ReadLog) -> dict[str, list[_Entry]]:
    """Train first, then test if there is one, keyed by the names of their folders."""
    folders = _folders(entries)
    found: dict[str, list[str]] = {"train": [], "test": [], "val": []}
    for folder in folders:
        if split := split_of(folder):
            found[split].append(folder)
    train, test, val = found.values()
    other = [folder for folder in folders if folder not in (*train, *test, *val)]
    unlabelled = [one for one in other if _names_no_labels(one)]
    # Class folders may have any name: splits count only if there is nothing beside them.
    if not (train and (test or val)) and (other or len(folders) < 2 or not (test or val)):
        _reject_other_splits(location, entries, folders)
        return {"train": entries}
    if set(other) - set(unlabelled) or max(map(len, (train, test, val))) > 1:
        raise TFRobustError(
            f"{location}: expected {_LAYOUT}, found the folders {', '.join(folders[:9])}: "
            "move the others elsewhere."
        )
    _skip_loose(entries, log)
    log.skipped.extend(f"{one}/: skipped, because its images have no labels" for one in unlabelled)
    if train and test and val and not _share_classes(entries, train[0], test[0]):
        # Tiny ImageNet's test has one folder, of unlabelled images.
        log.skipped.append(f"{test[0]}/: skipped, because it has none of the classes of train")
        test = []
    if test and val:
        log.skipped.append(f"{val[0]}/: skipped, because {test[0]}/ is the test split")
    elif val:
        log.notes.append(f"{val[0]}/ is used as the test split, as there is no test")
    if not train:
        log.notes.append(f"there is no train: {(test or val)[0]}/ is the only split")
    kept = [*train, (test or val)[0]] if train else [(test or val)[0]]
    return {folder: _unwrap(_inside(entries, folder), log) for folder in kept}


def _reject_other_splits(location: Path, entries: list[_Entry], folders: list[str]) -> None:
    """Rejects folders that all contain the same folders: these are splits, not classes."""
    inner = [frozenset(_folders(_inside(entries, folder))) for folder in folders]
    if len(folders) > 1 and len(set(inner)) == 1 and len(inner[0]) > 1:
        raise TFRobustError(
            f"{location}: the folders {', '.join(folders[:5])} all contain the same folders "
            f"({', '.join(sorted(inner[0])[:5])}), so they look like splits: rename them to train "
            "and test, or pass one of them."
        )


def _share_classes(entries: list[_Entry], one: str, other: str) -> bool:
    names = [set(_folders(_unwrap(_inside(entries, folder), ReadLog()))) for folder in (one, other)]
    return bool(names[0] & names[1])


def _names_no_labels(folder: str) -> bool:
    words = re.split(r"[^a-z]+", folder.lower())
    return any(word in _UNLABELLED for word in words)


def _by_class(entries: list[_Entry], log: ReadLog) -> _Classes:
    _skip_loose(entries, log)
    classes: _Classes = {name: [] for name in _folders(entries)}
    for entry in entries:
        if entry.folder is not None and entry.open is not None:
            classes[entry.folder].append(entry)
    return classes


def _check_same_classes(location: Path, splits: dict[str, _Classes]) -> None:
    train, test = list(splits)[0], list(splits)[-1]
    for present, absent in ((train, test), (test, train)):
        odd = sorted(set(splits[present]) - set(splits[absent]))
        if odd:
            raise TFRobustError(
                f"{location}: class folder {odd[0]!r} is in {present}/ but not in {absent}/ "
                f"({len(odd)} such): both need the same classes, so add or remove it."
            )


def _class_names(
    location: Path, splits: dict[str, _Classes], options: ReadOptions, log: ReadLog
) -> list[str]:
    """The sorted class names, without empty classes if `skip_broken` is set."""
    empty = [
        (split, name) for split in splits for name, files in splits[split].items() if not files
    ]
    if empty and not options.skip_broken:
        raise TFRobustError(
            f"{location}: class folder {empty[0][1]!r} of {empty[0][0]} is empty: add images, "
            "remove it everywhere, or skip empty classes with --skip-broken."
        )
    left_out = {name for _, name in empty}
    log.skipped.extend(f"{name}/: no images in {split}" for split, name in empty)
    names = sorted_names(set.union(*map(set, splits.values())) - left_out)
    if len(names) < 2:
        raise TFRobustError(
            f"{location}: expected {_LAYOUT}, found {len(names)} class folders with images "
            f"({', '.join(names) or 'none'}): arrange at least two."
        )
    return names
