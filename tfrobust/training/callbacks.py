"""What happens around the steps and epochs of `fit`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from tfrobust.config import StageConfig
from tfrobust.errors import TFRobustError
from tfrobust.progress import Progress, clock
from tfrobust.runtime import keras
from tfrobust.training.selection import Selection, overfits_to_fgsm, rank
from tfrobust.training.stages import learning_rate, plateaued
from tfrobust.training.state import Checkpoints, TrainState


class Schedule(keras.callbacks.Callback):
    """Sets the learning rate before every step, and shows progress."""

    def __init__(self, stage: StageConfig, steps: int, first_epoch: int, progress: Progress):
        super().__init__()
        self._stage, self._steps, self._first = stage, steps, first_epoch
        self._progress = progress
        self._epoch = first_epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes which epoch of the run this is."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Sets the learning rate of this step."""
        rate = learning_rate(self._stage, self._epoch - self._first + batch / self._steps)
        self.model.optimizer.learning_rate.assign(rate)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stops on a loss that is not a number; shows how far the run is."""
        loss = (logs or {})["loss"]
        if not math.isfinite(loss):
            raise TFRobustError(
                f"The loss became {loss} at epoch {self._epoch + 1}, step {batch + 1}: training "
                "stops, and the last good checkpoint is intact; try a lower learning rate "
                "(--stages) or --clip-norm 1."
            )
        done = self._epoch * self._steps + batch + 1
        self._progress.update(done, f"(epoch {self._epoch + 1}, loss {loss:.3f})")


class EpochEnd(keras.callbacks.Callback):
    """Measures on 'select', writes the history, keeps the best model, ends a stage."""

    def __init__(
        self,
        stage: StageConfig,
        state: TrainState,
        selection: Selection,
        checkpoints: Checkpoints,
        on_row: Callable[[dict[str, Any]], None],
    ):
        super().__init__()
        self._stage, self._state, self._selection = stage, state, selection
        self._checkpoints, self._on_row = checkpoints, on_row
        self._begin = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self._begin = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Closes the epoch; nothing of it is lost once this returns."""
        row = self._row(epoch, logs or {})
        state = self._state
        is_best = self._improves(row)
        state.rows.append(row)
        state.epoch = epoch + 1
        state.best_epoch = state.epoch if is_best else state.best_epoch
        state.stage_losses.append(row["loss"])
        ended = len(state.stage_losses) >= self._stage.epochs
        if ended or plateaued(self._stage, state.stage_losses):
            state.stage, state.stage_losses = state.stage + 1, []
            self.model.stop_training = True
        self._checkpoints.save(state, is_best=is_best)
        self._tell(row, is_best)
        self._on_row(row)

    def _row(self, epoch: int, logs: dict[str, float]) -> dict[str, Any]:
        row: dict[str, Any] = {"epoch": epoch + 1, "stage": self._state.stage + 1}
        row["blocks"] = self._stage.blocks
        row["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        row.update({name: float(value) for name, value in logs.items()})
        row.update(self._selection.measure())
        row["seconds"] = time.monotonic() - self._begin
        return row

    def _improves(self, row: dict[str, Any]) -> bool:
        best = self._state.best_epoch
        goal = self.model.goal
        return best is None or rank(row, goal) > rank(self._state.rows[best - 1], goal)

    def _tell(self, row: dict[str, Any], is_best: bool) -> None:
        print(
            f"epoch {row['epoch']:3d} stage {row['stage']} ({row['blocks']})  "
            f"loss {row['loss']:.3f}  select: clean {row['select_clean']:.3f} "
            f"FGSM {row['select_fgsm']:.3f} PGD {row['select_pgd']:.3f}"
            f"{' *' if is_best else '  '} {clock(row['seconds'])}",
            flush=True,
        )
        if self.model.goal == "select_pgd" and overfits_to_fgsm(self._state.rows):
            print(
                "Warning: PGD accuracy collapsed while FGSM accuracy did not: the network has "
                "learned to fool the training attack; use more --train-steps or a smaller --eps.",
                file=sys.stderr,
            )
