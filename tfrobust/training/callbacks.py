"""Callbacks of `fit`: what happens around its steps and epochs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfrobust.config import StageConfig, TrainingConfig
from tfrobust.errors import TFRobustError
from tfrobust.progress import Progress, clock
from tfrobust.runtime import keras
from tfrobust.training.budget import Budget
from tfrobust.training.elbow import find_elbow
from tfrobust.training.health import Health
from tfrobust.training.selection import Selection, overfits_to_fgsm, rank
from tfrobust.training.stages import learning_rate, plateaued
from tfrobust.training.state import Checkpoints, TrainState

# The first steps of a stage are slower than the rest: tracing, memory, caches.
_WARM_STEPS, _TIMED_STEPS = 3, 15


class Schedule(keras.callbacks.Callback):
    """Sets learning rate and eps before every step, shows progress, stops when time is up.

    With a time limit both follow the time, otherwise the epochs: a stage ended by its time has
    still decayed to its final rate. After the first steps of a stage it prints how long the
    stage will take.

    Args:
      config: of training.
      state: of training, with the current stage.
      steps: steps per epoch.
      progress: the progress line.
      budget: the time limit.
      health: recovers from non-finite losses.
    """

    def __init__(
        self,
        config: TrainingConfig,
        state: TrainState,
        *,
        steps: int,
        progress: Progress,
        budget: Budget,
        health: Health,
    ) -> None:
        super().__init__()
        self._config, self._state, self._health = config, state, health
        self._stages, self._index = config.stages, state.stage
        self._steps, self._first = steps, state.epoch - len(state.stage_losses)
        self._progress, self._budget = progress, budget
        self._epoch, self._seen, self._begin = state.epoch, 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Records the epoch of the run."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Sets this step's learning rate and share of eps."""
        stages, index, state = self._stages, self._index, self._state
        into = self._epoch - self._first + batch / self._steps
        if self._budget.limited:
            into = self._budget.epochs_into(stages, index, state.stage_began)
        rate = learning_rate(stages[index], into) * state.rate_factor
        self.model.optimizer.learning_rate.assign(rate)
        self.model.eps_share.assign(self._eps_share(batch) * state.eps_factor)

    def _eps_share(self, batch: int) -> float:
        """0 while only the head trains and during the clean start; then rises to 1 over a ramp."""
        start, ramp = self._config.clean_start, self._config.eps_ramp
        if not start and not ramp:
            return 1.0
        part = done_part(self._stages, self._budget, self._epoch + batch / self._steps)
        total = sum(stage.epochs for stage in self._stages)
        head = sum(stage.epochs for stage in self._stages if stage.blocks == "head") / total
        gone = part - head - start
        return min(max(gone, 0.0) / ramp, 1.0) if ramp else float(gone >= 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Recovers from a non-finite loss; shows progress."""
        loss = (logs or {})["loss"]
        if not math.isfinite(loss):
            where = f"epoch {self._epoch + 1}, step {batch + 1}"
            self._health.undo_step(self.model, loss, where)
            if self._health.hopeless:
                raise TFRobustError(
                    f"The loss became {loss} at {where}, again after several recoveries: training "
                    "stops. The last good checkpoint is intact; try a lower learning rate "
                    "(--stages) or --clip-norm 1."
                )
        else:
            self._health.note_loss(loss)
        self._time_steps()
        done = self._epoch * self._steps + batch + 1
        if self._budget.limited:
            # The number of steps that fit into the time is extrapolated from those done.
            self._progress.total = max(round(done / max(self._budget.part, 1e-9)), done)
        note = f"(epoch {self._epoch + 1}, loss {loss:.3f}{self._budget.note})"
        self._progress.update(done, note, at_most=self._budget.left)
        if self._budget.is_over(self._stages, self._index, self._state.stage_began):
            self.model.stop_training = True

    def _time_steps(self) -> None:
        """Prints once, after the first steps of a stage, how long the stage will take."""
        self._seen += 1
        if self._seen == _WARM_STEPS:
            self._begin = time.monotonic()
        if self._seen != _WARM_STEPS + _TIMED_STEPS:
            return
        seconds = (time.monotonic() - self._begin) / _TIMED_STEPS
        print(self._forecast(seconds * self._later_steps()), flush=True)

    def _later_steps(self) -> float:
        """The expected mean time of the stage's steps, relative to its first steps."""
        stage = self._stages[self._index]
        if float(self.model.eps_share.numpy()) or stage.blocks == "head":
            return 1.0
        clean = self._config.clean_start * sum(each.epochs for each in self._stages) / stage.epochs
        return min(clean, 1.0) + max(1.0 - clean, 0.0) * self.model.passes

    def _forecast(self, seconds: float) -> str:
        stage, epoch = self._stages[self._index], seconds * self._steps
        if self._budget.limited:
            fits = (self._budget.left or 0.0) / epoch
            return (
                f"A step takes about {seconds:.2g} s: about {fits:.1f} epochs of {self._steps} "
                f"steps fit into the limit of {self._config.time_limit:g} min."
            )
        return (
            f"A step takes about {seconds:.2g} s: {stage.epochs} epochs of {self._steps} steps "
            f"take {clock(epoch * stage.epochs)}, plus measuring on 'select'; --time-limit "
            "MINUTES sets a limit."
        )


def done_part(stages: Sequence[StageConfig], budget: Budget, epochs: float) -> float:
    """The completed share of a training after this many epochs, or by the time used."""
    if budget.limited:
        return budget.part
    return epochs / sum(stage.epochs for stage in stages)


class EpochEnd(keras.callbacks.Callback):
    """Measures on 'select', writes the history, keeps the best model, ends stage or training.

    Args:
      config: of training.
      state: of training, with the current stage.
      selection: measures on 'select'.
      checkpoints: saves models and state.
      on_row: called with each row of the history.
      budget: the time limit.
      health: judges each epoch, and reverts one that damaged the network.
      steps: steps per epoch.
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
        health: Health,
        steps: int,
    ) -> None:
        super().__init__()
        self._config, self._state, self._selection = config, state, selection
        self._checkpoints, self._on_row, self._budget = checkpoints, on_row, budget
        self._health, self._steps = health, steps
        self._index, self._stage = state.stage, config.stages[state.stage]
        self._begin = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self._begin = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Finishes the epoch; once this returns, nothing of it can be lost."""
        state, logs = self._state, dict(logs or {})
        if not math.isfinite(logs["loss"]):
            # The last step was reverted; the epoch's mean excludes it.
            logs["loss"] = float(self.model.metrics[0].result())
        over = self._is_over(logs["loss"])
        row = self._row(epoch, logs, over or self._is_due(epoch))
        is_best = not row.get("event") and self._improves(row)
        state.rows.append(row)
        state.epoch = epoch + 1
        state.best_epoch = state.epoch if is_best else state.best_epoch
        state.stage_losses.append(row["loss"])
        if self._config.keep_from is not None:
            elbow = find_elbow(state.rows, self._config.keep_from)
            state.elbow = elbow.epoch if elbow and elbow.turned else None
        self._end_stage(over)
        state.elapsed = row["elapsed"]
        self._checkpoints.save(state, is_best=is_best)
        self._tell(row, is_best)
        self._on_row(row)

    def _is_over(self, loss: float) -> bool:
        """Whether the epoch just done is the last one of its stage."""
        state, losses = self._state, [*self._state.stage_losses, loss]
        if self._budget.is_over(self._config.stages, self._index, state.stage_began):
            return True
        complete = len(losses) >= self._stage.epochs and not self._budget.limited
        return complete or plateaued(self._stage, losses)

    def _is_due(self, epoch: int) -> bool:
        """Whether to measure an epoch within a stage; epochs whose models are kept always are."""
        config = self._config
        return config.keep_from is not None or (epoch + 1) % config.select_every == 0

    def _end_stage(self, over: bool) -> None:
        """Moves to the next stage, or past the last one, when due."""
        state, stages = self._state, self._config.stages
        after = self._index + 1
        reason = self._reason_to_end()
        # The end of the last stage's last epoch needs no message.
        if over and after == len(stages) and not (self._budget.used_up or self._health.hopeless):
            reason = None
        if reason:
            print(f"Training ends after epoch {state.epoch}: {reason}.", flush=True)
            after = len(stages)
        if over or reason:
            state.stage, state.stage_losses = after, []
            state.stage_began = self._budget.elapsed
            self.model.stop_training = True

    def _reason_to_end(self) -> str | None:
        """Why training ends before the next stage, or None."""
        state, patience = self._state, self._config.early_stopping
        if self._health.hopeless:
            return f"the model does not learn, after {state.recoveries} recoveries"
        if self._budget.used_up:
            return f"the time limit of {self._config.time_limit:g} min is up"
        if patience is not None and state.epoch - (state.best_epoch or 0) >= patience:
            return f"{patience} epochs brought no improvement on 'select' (early_stopping)"
        return None

    def _row(self, epoch: int, logs: dict[str, float], measured: bool) -> dict[str, Any]:
        row: dict[str, Any] = {"epoch": epoch + 1, "stage": self._state.stage + 1}
        row["blocks"] = self._stage.blocks
        row["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        row["eps_share"] = float(self.model.eps_share.numpy())
        row.update({name: float(value) for name, value in logs.items()})
        # A network with non-finite weights has no accuracy.
        measured = measured and math.isfinite(row["loss"])
        if measured:
            with self.model.kept():
                row.update(self._selection.measure())
            row["learnt"] = self._health.has_learnt(row["select_clean"], self._selection.count)
        part = done_part(self._config.stages, self._budget, epoch + 1)
        count = self._selection.count if measured else 0
        event = self._health.judge(row, self.model, part, (epoch + 1) * self._steps, count)
        if event:
            row["event"] = event
        row["seconds"] = time.monotonic() - self._begin
        row["elapsed"] = self._budget.elapsed
        return row

    def _improves(self, row: dict[str, Any]) -> bool:
        if "select_pgd" not in row:
            return False
        best = self._state.best_epoch
        goal = self.model.goal
        return best is None or rank(row, goal) > rank(self._state.rows[best - 1], goal)

    def _tell(self, row: dict[str, Any], is_best: bool) -> None:
        found = ""
        if "select_pgd" in row:
            found = (
                f"  select: clean {row['select_clean']:.3f} FGSM {row['select_fgsm']:.3f} "
                f"PGD {row['select_pgd']:.3f}{' *' if is_best else '  '}"
            )
        print(
            f"epoch {row['epoch']:3d} stage {row['stage']} ({row['blocks']})  "
            f"loss {row['loss']:.3f}{found} {clock(row['seconds'])}",
            flush=True,
        )
        if self.model.goal == "select_pgd" and overfits_to_fgsm(self._state.rows):
            print(
                "Warning: PGD accuracy collapsed while FGSM accuracy did not: the network has "
                "learned to fool the training attack; use more --train-steps or a smaller --eps.",
                file=sys.stderr,
            )
