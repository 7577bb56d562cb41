"""The wall-clock limit of training."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tfrobust.config import StageConfig
from tfrobust.progress import clock


class Budget:
    """Measures a run's training time and the share of its limit that is used.

    All of training counts, including tracing, measuring on 'select' and checkpoints. A resumed
    run continues from its checkpoint's count.

    Args:
      minutes: the limit; None is no limit.
      spent: seconds that earlier parts of the run took.
    """

    def __init__(self, minutes: float | None, spent: float = 0.0) -> None:
        self._seconds = None if minutes is None else minutes * 60
        self._begin = time.monotonic() - spent

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._begin

    @property
    def part(self) -> float:
        """The share of the time that is used, from 0; always 0 without a limit."""
        return 0.0 if self._seconds is None else self.elapsed / self._seconds

    @property
    def left(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self._seconds is None else max(self._seconds - self.elapsed, 0.0)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._seconds is not None

    @property
    def note(self) -> str:
        """The time used, for the progress line; empty without a limit."""
        if self._seconds is None:
            return ""
        return f", {clock(self.elapsed)} of {clock(self._seconds)} used"

    @property
    def used_up(self) -> bool:
        """Whether the time is up."""
        return self.part >= 1.0

    def epochs_into(self, stages: Sequence[StageConfig], index: int, began: float) -> float:
        """A stage's position by the time used, in its epochs: from 0 to `epochs` or more.

        The time left at its start is divided among this stage and the later ones in proportion to
        their epochs: time that an early-stopped stage did not use goes to the others.

        Args:
          stages: all stages.
          index: of the stage.
          began: seconds of training at the stage's start.
        """
        if self._seconds is None:
            return 0.0
        epochs = [stage.epochs for stage in stages[index:]]
        share = max(self._seconds - began, 1e-9) * epochs[0] / sum(epochs)
        return (self.elapsed - began) / share * epochs[0]

    def is_over(self, stages: Sequence[StageConfig], index: int, began: float) -> bool:
        """Whether a stage's share of the time is used up."""
        return self.epochs_into(stages, index, began) >= stages[index].epochs
