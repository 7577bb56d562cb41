"""Progress with a time estimate, for everything that takes more than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

#: Receives a job's messages, one line at a time: a command prints them.
Tell = Callable[[str], None]


def silent(line: str) -> None:
    """A `Tell` that discards everything."""


def clock(seconds: float) -> str:
    """Seconds in human-readable form: '42 s', '3 min 05 s', '1 h 20 min'."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """One line that shows the progress of some work and the time left.

    On a terminal the line is redrawn twice a second; elsewhere (a log file) a line is written
    every 30 seconds, so that logs stay short. Work that ends within two seconds prints nothing.

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
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._start = self._drawn = time.monotonic()
        self._width = 0
        self._limit: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the mean speed so far, or None before the first step."""
        steps = self.done - self.first
        if not steps:
            return self._limit
        left = (time.monotonic() - self._start) / steps * (self.total - self.done)
        return left if self._limit is None else min(left, self._limit)

    def update(self, done: int, note: str = "", at_most: float | None = None) -> None:
        """Sets the number of steps done; redraws when due.

        Args:
          done: steps so far.
          note: appended to the line.
          at_most: seconds until the work ends anyway, as with a time limit.
        """
        self.done, self._limit = done, at_most
        now = time.monotonic()
        if now - self._drawn >= (0.5 if self._live else 30) and now - self._start > 2:
            self._drawn = now
            self._write(note)

    def close(self) -> None:
        """Removes the line from a terminal."""
        if self._live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()

    def _write(self, note: str) -> None:
        left = self.seconds_left
        text = f"{self.label}: {self.done}/{self.total}"
        text += f", {clock(left)} left" if left is not None else ""
        text += f" {note}" if note else ""
        if self._live:
            text, self._width = text.ljust(self._width), len(text)
            self._stream.write("\r" + text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
