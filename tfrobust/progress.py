"""Progress with a time estimate, for everything that takes more than a moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from tqdm.std import tqdm

#: Receives a job's messages, one line at a time: a command prints them.
Tell = Callable[[str], None]


def silent(line: str) -> None:
    """A `Tell` that discards everything."""


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Both outputs of this process, TensorFlow's own notes too, to the end of a file."""
    with path.open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        yield
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def clock(seconds: float) -> str:
    """Seconds in human-readable form: '42 s', '3 min 05 s', '1 h 20 min'."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """One line that shows the progress of some work and the time left, drawn by tqdm.

    On a terminal a bar is redrawn twice a second, and removed at the end, also in a notebook
    with ipywidgets. Elsewhere (a log file) a line is written every 30 seconds, so that logs
    stay short. Work that ends within two seconds prints nothing.

    Args:
      label: the kind of work.
      total: number of steps.
      done: steps done by an earlier run; they do not count for the speed.
      stream: the output; standard error by default.
    """

    def __init__(
        self, label: str, total: int, *, done: int = 0, stream: TextIO | None = None
    ) -> None:
        self.label, self.total, self.first, self.done = label, total, done, done
        self._bar = _bar(label, total, done, stream or sys.stderr)
        self._limit: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the mean speed so far, or None before the first step."""
        steps = self.done - self.first
        if not steps:
            return self._limit
        left = self._bar.format_dict["elapsed"] / steps * (self.total - self.done)
        return left if self._limit is None else min(left, self._limit)

    def update(self, done: int, note: str = "", at_most: float | None = None) -> None:
        """Sets the number of steps done; redraws when due.

        Args:
          done: steps so far.
          note: appended to the line.
          at_most: seconds until the work ends anyway, as with a time limit.
        """
        self.done, self._limit = done, at_most
        left = self.seconds_left
        words = [f"{clock(left)} left" if left is not None else "", note]
        self._bar.set_postfix_str(" ".join(filter(None, words)), refresh=False)
        if self._bar.total != self.total:
            self._bar.total = self.total
            if hasattr(self._bar, "container"):  # a notebook's widget has its own total
                self._bar.container.children[1].max = self.total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Removes the line from a terminal."""
        self._bar.close()


def _bar(label: str, total: int, done: int, stream: TextIO) -> tqdm:
    # Imported here: a command that shows no progress does not wait for it.
    from tqdm.std import tqdm

    # At position 0: what an exception left open does not move the next line down.
    settings = {
        "desc": label, "total": total, "initial": done, "delay": 2, "miniters": 0,
        "smoothing": 0, "leave": False, "position": 0,
    }  # fmt: skip
    bar = "{desc} |{bar:20}| {n}/{total}{postfix}"
    if stream.isatty():
        # tqdm draws nothing on a terminal that does not tell its size.
        size = {"ncols": shutil.get_terminal_size().columns - 1, "nrows": 24}
        return tqdm(file=stream, mininterval=0.5, bar_format=bar, **size, **settings)
    if stream is sys.stderr and (widget := _widget()) is not None:
        return widget(mininterval=0.5, bar_format=bar.replace(":20", ""), **settings)
    line = "{desc}: {n}/{total}{postfix}"
    return tqdm(file=_Lines(stream), mininterval=30, bar_format=line, **settings)


def _widget() -> type[tqdm] | None:
    """tqdm's bar for notebooks; None where there is no notebook or it has no ipywidgets."""
    with warnings.catch_warnings():
        # Of ipywidgets, which are not there: lines do as well.
        warnings.simplefilter("ignore")
        from tqdm.autonotebook import tqdm as found
    return None if found.__module__ == "tqdm.std" else found


class _Lines:
    """A stream on which what is redrawn stands line by line, as in a file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r "):
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()
