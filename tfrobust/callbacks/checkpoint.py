"""The most robust epoch's model, and what a killed `fit` needs to go on."""

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

    With `resume` it also writes, after each epoch, all that training goes on from, in one file
    that is replaced as a whole: killed at any moment and called again as before, `fit` goes on
    after the last complete epoch and ends with the weights, to the bit, that it would have had.
    For that the data must come in an order of its own in each epoch that is the same in each
    process (arrays with ``shuffle=False``, a data set without `reshuffle_each_iteration`), and
    TensorFlow must be told to repeat itself (`tf.config.experimental.enable_op_determinism`).
    Dropout of tf_keras repeats only with a generator that can be saved:
    `tf_keras.backend.experimental.enable_tf_random_generator()`, before the model is made.

    Args:
      folder: where `best.keras` goes, and `resume.npz`; made where it does not exist.
      attack: what the robust accuracy is measured under; `fit` measures it on its
        `validation_data`. None leaves the robust model's own.
      resume: whether to go on from what an earlier `fit` has left in the folder. Callbacks of
        this room that stand beside it go on too, others from where they begin.

    Attributes:
      path: of the file.
      best: the best robust accuracy so far.
      epoch: its epoch, from 1; 0 before there is one.

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
        """Puts everything back to the end of the last complete epoch, where there is one."""
        self._first = self._next = given.get("initial_epoch", 0)
        if self._resumable:
            self._resumable.before_fit(model, given)
            self._first = self._next = given["initial_epoch"]

    def set_model(self, model: Any) -> None:
        """Called by `fit`, before it traces."""
        super().set_model(model)
        if self.attack is not None and self.attack != model.validation_attack:
            model.validation_attack = self.attack
            model.test_function = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Writes what the epoch before has left, once every callback has had its say of it."""
        self._next = epoch
        if self._resumable and epoch > self._first:
            self._resumable.save(self.model, epoch)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the model where it is the best so far.

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
        """Writes what the last epoch has left."""
        if self._resumable:
            over = self.model.stop_training and not self._resumable.time_is_up
            self._resumable.save(self.model, self._next, over=bool(over))

    def state(self) -> dict[str, Any]:
        """Which epoch was the best."""
        return {"best": self.best, "epoch": self.epoch, "rank": self._rank}

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Takes up the search again."""
        self.best, self.epoch, self._rank = state["best"], state["epoch"], state["rank"]
