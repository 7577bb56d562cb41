"""A wall-clock limit for `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrobust.callbacks.base import Callback, Logs
from tfrobust.errors import UsageError
from tfrobust.training.budget import Budget


class TimeBudget(Callback):
    """Ends `fit` when its time is up.

    Args:
      minutes: wall-clock time, including tracing and validation; more than 0. A run resumed by
        `RobustCheckpoint` keeps counting.

    Raises:
      UsageError: `minutes` is not positive.

    Examples:
      >>> robust = tr.robust(model, tr.Fast(), ball)
      >>> robust.compile("sgd")
      >>> budget = tr.callbacks.TimeBudget(minutes=0.0001)
      >>> history = robust.fit(x, y, epochs=50, batch_size=32, callbacks=[budget], verbose=0)
      >>> len(history.history["loss"]) < 50
      True
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise UsageError(f"minutes: expected more than 0, found {minutes}.")
        self.minutes, self._spent = minutes, 0.0
        self._budget = Budget(minutes)

    @property
    def used_up(self) -> bool:
        """Whether the time is up."""
        return self._budget.used_up

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts the clock."""
        self._budget, self._spent = Budget(self.minutes, self._spent), 0.0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Stops `fit` once the time is up."""
        if self.used_up:
            self.model.stop_training = True

    def state(self) -> dict[str, Any]:
        """The seconds used so far."""
        return {"elapsed": self._budget.elapsed}

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Continues the count."""
        self._spent = state["elapsed"]
