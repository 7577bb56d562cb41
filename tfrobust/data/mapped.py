"""Arrays that may not fit into memory: written to an unnamed file and memory-mapped."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from tfrobust.data.archives import free_space
from tfrobust.errors import TFRobustError

_CHUNK_BYTES = 16 << 20


class MappedFile:
    """Rows [M, ...] of one shape and type, in an unnamed file that is deleted with the process.

    Args:
      folder: the folder of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with disk_errors(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by close)
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        """Appends rows; they are on disk when this returns.

        Raises:
          TFRobustError: the disk is full.
        """
        with disk_errors(self._folder):
            self._file.write(np.ascontiguousarray(rows).data)
            self._file.flush()
        self._count += len(rows)

    def finish(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """All rows, [N, *shape], read from the file on access."""
        if not self._count:  # an empty file cannot be mapped
            return np.empty((0, *shape), dtype)
        return np.memmap(self._file, dtype, "r", shape=(self._count, *shape))

    def close(self) -> None:
        """Closes the file; a map of it keeps its own handle."""
        self._file.close()


def in_chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Views of consecutive rows, about 16 MB each."""
    each = max(1, _CHUNK_BYTES // max(1, rows[:1].nbytes))
    for first in range(0, len(rows), each):
        yield rows[first : first + each]


def convert(
    rows: np.ndarray, work: Callable[[np.ndarray], np.ndarray], folder: Path | None = None
) -> np.ndarray:
    """`work` applied to all rows; for rows on disk chunk by chunk, into another file.

    Args:
      rows: [N, ...], an array or a map of a file.
      work: maps rows [M, ...] to as many new ones.
      folder: for the file; None is the folder for temporary files.

    Raises:
      TFRobustError: the disk is full.
    """
    if not is_mapped(rows) or not len(rows):
        return work(np.asarray(rows))
    with closing(MappedFile(folder or Path(tempfile.gettempdir()))) as file:
        for chunk in in_chunks(rows):
            converted = work(np.asarray(chunk))
            file.add(converted)
        return file.finish(converted.shape[1:], converted.dtype)


def is_mapped(rows: np.ndarray) -> bool:
    """Whether an array, or the base of a view, is a map of a file."""
    base: object = rows
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns write errors in `folder` into a message with a way out.

    Raises:
      TFRobustError: images cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise TFRobustError(
            f"Images could not be written to {folder} ({error.strerror}, "
            f"{free_space(folder)} free): free some space, choose another folder with "
            "--cache-dir, or a smaller --image-size."
        ) from error
