"""A limit of wall-clock time on `fit`."""

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
      minutes: of wall-clock time, tracing and validation among them; more than 0. A run that
        `RobustCheckpoint` resumes goes on counting.

    Raises:
      UsageError: `minutes` is not above 0.

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
        """Whether the time is over."""
        return self._budget.used_up

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts the clock."""
        self._budget, self._spent = Budget(self.minutes, self._spent), 0.0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Stops `fit` once the time is over."""
        if self.used_up:
            self.model.stop_training = True

    def state(self) -> dict[str, Any]:
        """The seconds that are gone."""
        return {"elapsed": self._budget.elapsed}

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Goes on counting."""
        self._spent = state["elapsed"]
