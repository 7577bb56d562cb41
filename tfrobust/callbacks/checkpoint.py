"""Saves the most robust epoch's model, and the state that resumes an interrupted `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.attacks.gradient import PGD
from tfrobust.callbacks.base import Callback, Logs, save_model
from tfrobust.callbacks.resuming import Resumable
from tfrobust.errors import UsageError
from tfrobust.training.selection import rank


class RobustCheckpoint(Callback):
    """Keeps the base model of the epoch with the best robust accuracy on the validation data.

    With `resume` it also writes the complete training state after each epoch, in one file that is
    replaced atomically: if `fit` is killed at any moment and called again with the same arguments,
    it resumes after the last complete epoch and ends with the same weights, to the bit. This
    requires data whose order in each epoch is the same in every process (arrays with
    ``shuffle=False``, a data set without `reshuffle_each_iteration`), and deterministic
    TensorFlow operations (`tf.config.experimental.enable_op_determinism`). Dropout of tf_keras is
    reproducible only with a generator that can be saved: call
    `tf_keras.backend.experimental.enable_tf_random_generator()` before building the model.

    Args:
      folder: for `best.keras` and, with `resume`, `resume.npz`; created if missing.
      attack: the attack of the robust accuracy, which `fit` measures on its `validation_data`.
        None keeps the robust model's own.
      resume: whether to resume from what an earlier `fit` left in the folder. The other
        callbacks here resume too; any others start over.

    Attributes:
      path: of `best.keras`.
      best: the best robust accuracy so far.
      epoch: its epoch, from 1; 0 if there is none yet.

    Examples:
      >>> robust = tr.robust(model, tr.Fast(), ball)
      >>> robust.compile("sgd", metrics=["accuracy"])
      >>> keep = tr.callbacks.RobustCheckpoint(folder / "run", tr.PGD(steps=2))
      >>> history = robust.fit(x, y, validation_data=(x, y), callbacks=[keep], verbose=0)
      >>> (folder / "run" / "best.keras").is_file()
      True
    """

    def __init__(
        self, folder: Path | str, attack: PGD | None = None, *, resume: bool = False
    ) -> None:
        self.path = Path(folder) / "best.keras"
        self.attack, self.best, self.epoch = attack, -1.0, 0
        self._rank: list[float] = []
        self._resumable = Resumable(Path(folder) / "resume.npz") if resume else None
        self._first = self._next = 0

    def before_fit(self, model: Any, given: dict[str, Any]) -> None:
        """Restores the end of the last complete epoch, if there is one."""
        self._first = self._next = given.get("initial_epoch", 0)
        if self._resumable:
            self._resumable.before_fit(model, given)
            self._first = self._next = given["initial_epoch"]

    def set_model(self, model: Any) -> None:
        """Called by `fit`, before tracing."""
        super().set_model(model)
        if self.attack is not None and self.attack != model.validation_attack:
            model.validation_attack = self.attack
            model.test_function = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Writes the state after the previous epoch, once all callbacks have handled that epoch."""
        self._next = epoch
        if self._resumable and epoch > self._first:
            self._resumable.save(self.model, epoch)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the model if it is the best so far.

        Raises:
          UsageError: `fit` has no validation data.
          TFRobustError: the file cannot be written.
        """
        self._next = epoch + 1
        found = dict(logs or {})
        if "val_robust_accuracy" not in found:
            raise UsageError("RobustCheckpoint: expected fit(..., validation_data=...).")
        robust, clean = float(found["val_robust_accuracy"]), float(found["val_accuracy"])
        reached = list(rank({"select_pgd": robust, "select_clean": clean}))
        if self._rank and reached <= self._rank:
            return
        self._rank, self.best, self.epoch = reached, robust, epoch + 1
        save_model(self.model, self.path)

    def on_train_end(self, logs: Logs = None) -> None:
        """Writes the state after the last epoch."""
        if self._resumable:
            over = self.model.stop_training and not self._resumable.time_is_up
            self._resumable.save(self.model, self._next, over=bool(over))

    def state(self) -> dict[str, Any]:
        """The best epoch so far."""
        return {"best": self.best, "epoch": self.epoch, "rank": self._rank}

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Resumes the search for the best epoch."""
        self.best, self.epoch, self._rank = state["best"], state["epoch"], state["rank"]
