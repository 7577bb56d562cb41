"""The wall-clock time that training may take."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tfrobust.config import StageConfig
from tfrobust.progress import clock


class Budget:
    """Counts the time of a run's training and says which part of it is used up.

    All of training counts: tracing, measuring on 'select' and checkpoints too. A resumed
    run goes on counting where its checkpoint stood.

    Args:
      minutes: the time there is; None is without end.
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
        """The part of the time that is gone, from 0; always 0 without a limit."""
        return 0.0 if self._seconds is None else self.elapsed / self._seconds

    @property
    def left(self) -> float | None:
        """Seconds until the time is over, at least 0; None without a limit."""
        return None if self._seconds is None else max(self._seconds - self.elapsed, 0.0)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._seconds is not None

    @property
    def note(self) -> str:
        """How much of the time is gone, for progress; empty without a limit."""
        if self._seconds is None:
            return ""
        return f", {clock(self.elapsed)} of {clock(self._seconds)} gone"

    @property
    def used_up(self) -> bool:
        """Whether the time is over."""
        return self.part >= 1.0

    def epochs_into(self, stages: Sequence[StageConfig], index: int, began: float) -> float:
        """Where a stage stands by the time gone, in its epochs: from 0 to `epochs` or more.

        What was left when it began is shared out among it and the stages after it, by their
        epochs: a stage that a plateau ended early leaves its time to the others.

        Args:
          stages: all stages.
          index: of the stage.
          began: seconds of training that were gone when it began.
        """
        if self._seconds is None:
            return 0.0
        epochs = [stage.epochs for stage in stages[index:]]
        share = max(self._seconds - began, 1e-9) * epochs[0] / sum(epochs)
        return (self.elapsed - began) / share * epochs[0]

    def is_over(self, stages: Sequence[StageConfig], index: int, began: float) -> bool:
        """Whether a stage's share of the time is used up."""
        return self.epochs_into(stages, index, began) >= stages[index].epochs
