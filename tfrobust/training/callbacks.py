"""What happens around the steps and epochs of `fit`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from tfrobust.config import TrainingConfig
from tfrobust.errors import TFRobustError
from tfrobust.progress import Progress, clock
from tfrobust.runtime import keras
from tfrobust.training.budget import Budget
from tfrobust.training.elbow import find_elbow
from tfrobust.training.selection import Selection, overfits_to_fgsm, rank
from tfrobust.training.stages import learning_rate, plateaued
from tfrobust.training.state import Checkpoints, TrainState


class Schedule(keras.callbacks.Callback):
    """Sets the learning rate before every step, shows progress, stops when time is up.

    The rate follows the epochs or the time, whichever is further on: a stage that its time
    ends has come down to its final rate all the same.

    Args:
      config: of the training.
      index: of the stage.
      steps: in an epoch.
      first_epoch: of the stage.
      progress: what is shown.
      budget: the time there is.
    """

    def __init__(
        self,
        config: TrainingConfig,
        index: int,
        *,
        steps: int,
        first_epoch: int,
        progress: Progress,
        budget: Budget,
    ) -> None:
        super().__init__()
        self._stages, self._index = config.stages, index
        self._steps, self._first = steps, first_epoch
        self._progress, self._budget = progress, budget
        self._epoch = first_epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes which epoch of the run this is."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Sets the learning rate of this step."""
        by_steps = self._epoch - self._first + batch / self._steps
        by_time = self._budget.epochs_into(self._stages, self._index)
        rate = learning_rate(self._stages[self._index], max(by_steps, by_time))
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
        note = f"(epoch {self._epoch + 1}, loss {loss:.3f}{self._budget.note})"
        self._progress.update(done, note, at_most=self._budget.left)
        if self._budget.is_over(self._stages, self._index):
            self.model.stop_training = True


class EpochEnd(keras.callbacks.Callback):
    """Measures on 'select', writes the history, keeps the best model, ends stage or training.

    Args:
      config: of the training.
      state: of the training; its present stage is the one that is run.
      selection: what measures.
      checkpoints: what saves.
      on_row: told each row of the history.
      budget: the time there is.
    """

    def __init__(
        self,
        config: TrainingConfig,
        state: TrainState,
        *,
        selection: Selection,
        checkpoints: Checkpoints,
        on_row: Callable[[dict[str, Any]], None],
        budget: Budget,
    ) -> None:
        super().__init__()
        self._config, self._state, self._selection = config, state, selection
        self._checkpoints, self._on_row, self._budget = checkpoints, on_row, budget
        self._index, self._stage = state.stage, config.stages[state.stage]
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
        if self._config.keep_from is not None:
            elbow = find_elbow(state.rows, self._config.keep_from)
            state.elbow = elbow.epoch if elbow and elbow.turned else None
        self._end_stage()
        state.elapsed = row["elapsed"]
        self._checkpoints.save(state, is_best=is_best)
        self._tell(row, is_best)
        self._on_row(row)

    def _end_stage(self) -> None:
        """Moves on to the next stage, or past the last one, when it is time to."""
        state, stages = self._state, self._config.stages
        after = self._index + 1
        complete = len(state.stage_losses) >= self._stage.epochs
        over = complete or plateaued(self._stage, state.stage_losses)
        over = over or self._budget.is_over(stages, self._index)
        reason = None if complete and after == len(stages) else self._reason_to_end()
        if reason:
            print(f"Training ends after epoch {state.epoch}: {reason}.", flush=True)
            after = len(stages)
        if over or reason:
            state.stage, state.stage_losses = after, []
            self.model.stop_training = True

    def _reason_to_end(self) -> str | None:
        """Why no further stage is run, or None."""
        state, patience = self._state, self._config.early_stopping
        if self._budget.used_up:
            return f"the time_limit of {self._config.time_limit:g} min is used up"
        if patience is not None and state.epoch - (state.best_epoch or 0) >= patience:
            return f"{patience} epochs brought no better one on 'select' (early_stopping)"
        return None

    def _row(self, epoch: int, logs: dict[str, float]) -> dict[str, Any]:
        row: dict[str, Any] = {"epoch": epoch + 1, "stage": self._state.stage + 1}
        row["blocks"] = self._stage.blocks
        row["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        row.update({name: float(value) for name, value in logs.items()})
        with self.model.kept():
            row.update(self._selection.measure())
        row["seconds"] = time.monotonic() - self._begin
        row["elapsed"] = self._budget.elapsed
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
