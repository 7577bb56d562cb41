"""The resumable state of training: the last epoch's checkpoint and the history so far."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfrobust.backbones.precision import in_float32, is_mixed
from tfrobust.errors import TFRobustError
from tfrobust.io import csv_text, read_json, write_json, write_text
from tfrobust.run import RunFolder
from tfrobust.runtime import random_generators, tf
from tfrobust.training.averaging import Averages

# Of the state file's layout; incremented when older files can no longer be read.
VERSION = 1
COLUMNS = (
    "epoch", "stage", "blocks", "seconds", "learning_rate", "loss", "clean_accuracy",
    "adv_accuracy", "select_clean", "select_fgsm", "select_pgd", "select_loss",
    "select_classes", "elapsed", "eps_share", "learnt", "event",
)  # fmt: skip


@dataclass
class TrainState:
    """The state of training after a whole number of epochs.

    Attributes:
      epoch: epochs done, over all stages.
      stage: index of the next epoch's stage; the number of stages after the last one.
      stage_losses: training losses of that stage's epochs so far.
      rows: one per epoch, with `COLUMNS`.
      best_epoch: the epoch whose model is kept, or None.
      elapsed: seconds of training so far, over all resumes.
      elbow: the epoch after which validation turned, or None; see `elbow.py`.
      looks: the guard's measurements that passed.
      rollbacks: how often the guard rolled back.
      noise_reach: the reach of the noise set by the guard, or None for the config's.
      stage_began: seconds of training at the current stage's start.
      recoveries: how often training was rolled back because it did not learn.
      recovered_at: the completed share of training at the last recovery.
      rate_factor: factor on the learning rate since then.
      eps_factor: factor on eps since then.
    """

    epoch: int = 0
    stage: int = 0
    stage_losses: list[float] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    elapsed: float = 0.0
    elbow: int | None = None
    looks: list[dict[str, float]] = field(default_factory=list)
    rollbacks: int = 0
    noise_reach: float | None = None
    stage_began: float = 0.0
    recoveries: int = 0
    recovered_at: float = 0.0
    rate_factor: float = 1.0
    eps_factor: float = 1.0


class Checkpoints:
    """Saves and restores model, optimiser and `TrainState`, atomically.

    The state file is replaced last and names the checkpoint that belongs to it: whenever the
    process is killed, the folder holds the last complete epoch. Saved models have the averaged
    weights if there are averages; the checkpoint holds both.

    Args:
      run: the folder.
      model: the classifier.
      optimizer: its optimiser, built.
      averages: of the weights, if any.
      keep_from: every epoch's model from this one on is kept, in `epoch_model`.
      local: returns a copy of the model on this device only, if `model` is distributed; None
        saves `model`.
      home: the folder to resume from, if it differs from `run`.
    """

    def __init__(
        self,
        run: RunFolder,
        model: Any,
        optimizer: Any,
        *,
        averages: Averages | None = None,
        keep_from: int | None = None,
        local: Callable[[], Any] | None = None,
        home: RunFolder | None = None,
    ) -> None:
        self._folder = run.checkpoints
        self._local, self._home = local, home or run
        self._run, self._averages, self._keep_from = run, averages, keep_from
        # Keras does not save the generators of dropout and the like in a checkpoint.
        generators = {f"random_{i}": each for i, each in enumerate(random_generators(model))}
        means = {f"average_{i}": v for i, v in enumerate(averages.variables if averages else ())}
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=optimizer, **generators, **means
        )
        self._model = model

    def exists(self) -> bool:
        """Whether there is a state to resume from."""
        return self._home.state.is_file()

    def save(self, state: TrainState, *, is_best: bool) -> None:
        """Writes the checkpoint of the epoch just done, and the best model if it is the best.

        Raises:
          TFRobustError: the disk is full; the previous checkpoint is intact.
        """
        name = f"epoch-{state.epoch:04d}"
        try:
            self._checkpoint.write(str(self._folder / name / "checkpoint"))
            self._save_models(state.epoch, is_best)
        except (OSError, tf.errors.OpError) as error:
            raise TFRobustError(
                f"The checkpoint of epoch {state.epoch} cannot be written to {self._folder}: "
                f"{_first_line(error)}; the previous one is intact: free some space, then --resume."
            ) from error
        write_text(self._run.history, as_csv(state.rows))
        write_json(self._run.state, {"version": VERSION, **asdict(state)})
        for old in self._folder.glob("epoch-*"):
            if old.name != name:
                shutil.rmtree(old)

    def epoch_model(self, epoch: int) -> Path:
        """The path of an epoch's model, from `keep_from` on."""
        return self._folder / "models" / f"epoch-{epoch:04d}.keras"

    def choose(self, epoch: int) -> None:
        """Makes the kept model of `epoch` the run's best.

        Raises:
          TFRobustError: it is missing, or cannot be copied.
        """
        temporary = self._folder / "unfinished.keras"
        try:
            shutil.copyfile(self.epoch_model(epoch), temporary)
            temporary.replace(self._run.best_model)
        except OSError as error:
            raise TFRobustError(
                f"The model of epoch {epoch} cannot be made the best: {_first_line(error)}; free "
                "some space, then --resume."
            ) from error

    def _save_models(self, epoch: int, is_best: bool) -> None:
        keeps = self._keep_from is not None and epoch >= self._keep_from
        if not (is_best or keeps):
            return
        # Keras infers the format from the suffix, so the temporary name keeps it.
        temporary = self._folder / "unfinished.keras"
        with self._averages.in_place() if self._averages else nullcontext():
            model = self._local() if self._local else self._model
            kept = in_float32(model) if is_mixed(model) else model
            # By "keras" a thread that has opened such a file before would write HDF5 into it.
            kept.save(temporary, save_format="keras_v3")
        if keeps:
            self.epoch_model(epoch).parent.mkdir(exist_ok=True)
            shutil.copyfile(temporary, self.epoch_model(epoch))
        if is_best:
            temporary.replace(self._run.best_model)
        temporary.unlink(missing_ok=True)

    def restore(self) -> TrainState:
        """Restores model and optimiser to the last complete epoch and returns the state.

        Raises:
          TFRobustError: the checkpoint is missing or damaged.
        """
        try:
            state = _state_of(read_json(self._home.state))
            path = self._home.checkpoints / f"epoch-{state.epoch:04d}" / "checkpoint"
            self._checkpoint.read(str(path)).assert_consumed()
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AssertionError,
            tf.errors.OpError,
        ) as error:
            raise TFRobustError(
                f"The checkpoint in {self._folder} cannot be resumed from: {_first_line(error)}; "
                "start over in another --output."
            ) from error
        write_text(self._run.history, as_csv(state.rows))
        return state


def read_state(run: RunFolder) -> TrainState:
    """The state of a run's training, without its weights.

    Raises:
      TFRobustError: the state file is missing or damaged.
    """
    try:
        return _state_of(read_json(run.state))
    except (OSError, ValueError, TypeError) as error:
        raise TFRobustError(f"{run.state} cannot be read: {_first_line(error)}.") from error


def _state_of(content: dict[str, Any]) -> TrainState:
    version = content.pop("version", None)
    if version != VERSION:
        raise ValueError(f"expected a state of version {VERSION}, found version {version}")
    return TrainState(**content)


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV text with a header; missing values are empty."""

    def shown(value: Any) -> Any:
        return f"{value:.6g}" if isinstance(value, float) else value

    return csv_text(COLUMNS, ([shown(row.get(name)) for name in COLUMNS] for row in rows))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
