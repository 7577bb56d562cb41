"""Keeps the model of the elbow: the epoch after which only the training loss improves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.callbacks.base import Callback, Logs, save_model
from tfrobust.errors import UsageError
from tfrobust.training.elbow import Elbow, find_elbow


class KeepElbow(Callback):
    """Keeps the base model of the epoch with the lowest validation loss.

    Args:
      folder: for `elbow.keras`; created if missing.
      first: the first epoch that may be kept, from 1.
      monitor: the loss to compare: 'val_loss' on clean images, or 'val_robust_loss' on images of
        the validation attack.

    Attributes:
      path: of `elbow.keras`.
      elbow: the epoch, and whether validation has turned: see `Elbow`; None before `first`.

    Raises:
      UsageError: `first` is below 1.
    """

    def __init__(self, folder: Path | str, first: int = 1, *, monitor: str = "val_loss") -> None:
        if first < 1:
            raise UsageError(f"first: expected an epoch, from 1, found {first}.")
        self.path, self.first, self.monitor = Path(folder) / "elbow.keras", first, monitor
        self.elbow: Elbow | None = None
        self._rows: list[dict[str, Any]] = []

    def before_fit(self, model: Any, given: dict[str, Any]) -> None:
        """Starts over with each `fit`."""
        if not given.get("initial_epoch"):
            self._rows, self.elbow = [], None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the model if its loss is the lowest so far.

        Raises:
          UsageError: `fit` has no validation data.
          TFRobustError: the file cannot be written.
        """
        found = dict(logs or {})
        if self.monitor not in found:
            raise UsageError(
                f"KeepElbow: expected {self.monitor} from fit(..., validation_data=...), found "
                f"{', '.join(found)}."
            )
        row = {"epoch": epoch + 1, "loss": float(found["loss"])}
        self._rows.append(row | {"select_loss": float(found[self.monitor])})
        self.elbow = find_elbow(self._rows, self.first)
        kept = [row["select_loss"] for row in self._rows if row["epoch"] >= self.first]
        if kept and kept.index(min(kept)) == len(kept) - 1:
            save_model(self.model, self.path)

    def state(self) -> dict[str, Any]:
        """The losses so far."""
        return {"rows": self._rows}

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Resumes from saved losses."""
        self._rows = list(state["rows"])
        self.elbow = find_elbow(self._rows, self.first)
