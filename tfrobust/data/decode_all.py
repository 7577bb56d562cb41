"""Decodes many images into one uint8 array, in order and in parallel."""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from tfrobust.data.archives import cache_folder
from tfrobust.data.images import Decoded, Source, decode, measure, reason
from tfrobust.data.mapped import MappedFile
from tfrobust.data.types import ImageSet, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.progress import Progress

# Above this many pixels, the source's most common size is a camera's, not a classifier's: the
# user has to choose one.
_MAX_UNASKED_PIXELS = 1024 * 1024
_CHUNK = 32
_WORKERS = min(8, os.cpu_count() or 1)
_Result = TypeVar("_Result")


class Item(NamedTuple):
    """An image to be decoded.

    Attributes:
      name: its origin, for messages and `ImageSet.names`.
      open: returns an argument for `decode`; called from several threads, up to twice.
      label: its class.
    """

    name: str
    open: Callable[[], Source]
    label: int


def collect(
    location: Path,
    splits: Sequence[Sequence[Item]],
    label_names: Sequence[str],
    options: ReadOptions,
    log: ReadLog,
) -> list[ImageSet]:
    """Decodes the splits of a source, in order, to one common size.

    The size is `options.image_size` (a square) or else the most common one in all splits,
    determined from the headers only. If all images together take more than
    `options.memory_limit` bytes, they are stored in an unnamed file in the cache folder, which is
    deleted with the process and so is never found half-written.

    Args:
      location: the source, for messages.
      splits: train first, then test if there is one.
      label_names: the classes' names, by label.
      options: sizes, limits, and how to handle broken images.
      log: receives sizes, modes and skipped images.

    Returns:
      One `ImageSet` per split.

    Raises:
      TFRobustError: a broken image or a label out of range (without `options.skip_broken`), a
        class without training images, or a full disk.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        size = _common_size(location, splits, options)
        total = sum(map(len, splits)) * size[0] * size[1] * 3
        folder = cache_folder(options) if total > options.memory_limit else None
        sets = []
        for items in splits:
            store = _FileStore(folder, size) if folder else _MemoryStore(len(items), size)
            with closing(store):
                kept = _decode_all(location, items, size, len(label_names), store, options, log)
                images = store.finish()
            labels = np.array([item.label for item in kept], np.int32)
            names = tuple(item.name for item in kept)
            sets.append(ImageSet(images, labels, tuple(label_names), names))
    _check_classes(location, sets)
    return sets


def _common_size(
    location: Path, splits: Sequence[Sequence[Item]], options: ReadOptions
) -> tuple[int, int]:
    if options.image_size:
        return options.image_size, options.image_size
    items = list(chain.from_iterable(splits))
    found = Counter(chain.from_iterable(_parallel(_measure_chunk, items, "measured")))
    found.pop(None, None)  # a broken header is reported when the image is decoded
    if not found:
        return 1, 1
    size = found.most_common(1)[0][0] or (1, 1)
    if size[0] * size[1] > _MAX_UNASKED_PIXELS:
        raise UsageError(
            f"{location}: most images are {size[0]}x{size[1]} pixels, too large to train on "
            "unchanged: choose a side to resize them to, such as --image-size 224."
        )
    return size


def _measure_chunk(items: Sequence[Item]) -> list[tuple[int, int] | None]:
    return [_measure(item) for item in items]


def _measure(item: Item) -> tuple[int, int] | None:
    try:
        return measure(item.open())
    except Exception:  # decoding will raise it again, and report it
        return None


def _decode_all(
    location: Path,
    items: Sequence[Item],
    size: tuple[int, int],
    classes: int,
    store: _MemoryStore | _FileStore,
    options: ReadOptions,
    log: ReadLog,
) -> list[Item]:
    """Adds the valid images to `store`; returns their items."""

    def work(chunk: Sequence[Item]) -> list[Decoded | str]:
        return [_decode_item(item, size, classes) for item in chunk]

    kept = []
    results = chain.from_iterable(_parallel(work, items, "decoded"))
    for item, result in zip(items, results, strict=True):
        if isinstance(result, Decoded):
            store.add(result.pixels)
            log.sizes[result.size] += 1
            log.modes[result.mode] += 1
            kept.append(item)
        elif options.skip_broken:
            log.skipped.append(f"{item.name}: {result}")
        else:
            raise TFRobustError(
                f"{location}: {item.name}: {result}: fix or delete it, or pass --skip-broken to "
                "skip unreadable images."
            )
    return kept


def _decode_item(item: Item, size: tuple[int, int], classes: int) -> Decoded | str:
    """The decoded image, or an error text."""
    if not 0 <= item.label < classes:
        return f"label {item.label} is out of range 0..{classes - 1}"
    try:
        return decode(item.open(), size)
    except Exception as error:  # a zip member may be as broken as the image in it
        return reason(error)


def _check_classes(location: Path, sets: Sequence[ImageSet]) -> None:
    names = sets[0].label_names
    empty = set(range(len(names))) - set(sets[0].labels.tolist())
    if empty:
        raise TFRobustError(
            f"{location}: class {names[min(empty)]!r} has no valid training image ({len(empty)} "
            f"such of {len(names)} classes): add images to it, or remove the class."
        )
    if len(sets) > 1 and not len(sets[1]):
        raise TFRobustError(
            f"{location}: there is no valid test image: add some, or remove the test split."
        )


class _MemoryStore:
    """Stores decoded images in one array."""

    def __init__(self, capacity: int, size: tuple[int, int]) -> None:
        self._images = np.empty((capacity, size[1], size[0], 3), np.uint8)
        self._count = 0

    def add(self, pixels: np.ndarray) -> None:
        self._images[self._count] = pixels
        self._count += 1

    def finish(self) -> np.ndarray:
        return self._images[: self._count]

    def close(self) -> None:
        pass


class _FileStore:
    """Stores decoded images in an unnamed file in `folder`."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self._file = MappedFile(folder)
        self._shape = (size[1], size[0], 3)

    def add(self, pixels: np.ndarray) -> None:
        self._file.add(pixels[None])

    def finish(self) -> np.ndarray:
        return self._file.finish(self._shape, np.uint8)

    def close(self) -> None:
        self._file.close()


def _parallel(
    work: Callable[[Sequence[Item]], list[_Result]], items: Sequence[Item], verb: str
) -> Iterator[list[_Result]]:
    """Yields `work(chunk)` for each chunk of `items`, in order, a few chunks ahead."""
    chunks = (items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK))
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending: deque[Future[list[_Result]]] = deque()
        try:
            for chunk in _with_progress(chunks, len(items), verb):
                pending.append(pool.submit(work, chunk))
                if len(pending) > 2 * _WORKERS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _with_progress(
    chunks: Iterable[Sequence[Item]], total: int, verb: str
) -> Iterator[Sequence[Item]]:
    """Passes chunks on, and shows progress."""
    progress, done = Progress(f"images {verb}", total), 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress.update(done)
    progress.close()
