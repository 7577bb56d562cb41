"""The history of `fit` as a table and a figure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.callbacks.base import Callback, Logs
from tfrobust.errors import TFRobustError
from tfrobust.figures.training import LearningCurves, TrainingHistory
from tfrobust.io import write_text
from tfrobust.training.state import as_csv

# Keras's name -> the name in the history of a run.
_COLUMNS = {
    "loss": "loss",
    "clean_accuracy": "clean_accuracy",
    "adv_accuracy": "adv_accuracy",
    "val_accuracy": "select_clean",
    "val_robust_accuracy": "select_pgd",
    "val_loss": "select_loss",
}


class RobustHistory(Callback):
    """Writes `history.csv` after each epoch, and `curves.png` when `fit` ends.

    The columns are those of a run: 'select_clean', 'select_pgd' and 'select_loss' refer to the
    validation data. A new stage starts whenever the set of trainable weights changes.

    Args:
      folder: for both files; created if missing.

    Attributes:
      rows: one per epoch.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder, self.rows = Path(folder), list[dict[str, Any]]()
        self._begin = time.monotonic()

    def before_fit(self, model: Any, given: dict[str, Any]) -> None:
        """Starts over with each `fit`."""
        if not given.get("initial_epoch"):
            self.rows = []

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Starts the clock."""
        self._begin = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Adds a row and writes the table.

        Raises:
          TFRobustError: it cannot be written.
        """
        base = self.model.base_model
        blocks = f"{len(base.trainable_weights)} of {len(base.weights)} weights"
        nothing: dict[str, Any] = {"stage": 0, "blocks": "", "elapsed": 0.0}
        last = self.rows[-1] if self.rows else nothing
        seconds = time.monotonic() - self._begin
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "stage": last["stage"] + (blocks != last["blocks"]),
            "blocks": blocks,
            "learning_rate": float(np.asarray(self.model.optimizer.learning_rate)),
            "seconds": seconds,
            "elapsed": last["elapsed"] + seconds,
        }
        found = dict(logs or {})
        row |= {own: float(found[name]) for name, own in _COLUMNS.items() if name in found}
        self.rows.append(row)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TFRobustError(f"{self.folder} cannot be created: {error}.") from error
        write_text(self.folder / "history.csv", as_csv(self.rows))

    def on_train_end(self, logs: Logs = None) -> None:
        """Draws the curves.

        Raises:
          TFRobustError: they cannot be written.
        """
        if self.rows:
            LearningCurves().save(TrainingHistory(self.rows), self.folder / "curves.png")

    def state(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": self.rows}

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Resumes below saved rows."""
        self.rows = list(state["rows"])
