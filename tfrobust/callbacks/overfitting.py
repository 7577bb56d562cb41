"""Detects robust overfitting and catastrophic overfitting, and reverts them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfrobust.callbacks.base import Callback, Logs
from tfrobust.errors import UsageError
from tfrobust.models.heads import raw
from tfrobust.runtime import tf
from tfrobust.training.elbow import find_elbow
from tfrobust.training.guard import Guard
from tfrobust.training.health import Snapshot
from tfrobust.training.selection import Selection
from tfrobust.training.state import TrainState

_PGD_STEPS, _SEED, _BATCH = 10, 0, 64


class OverfittingGuard(Callback):
    """Stops `fit` at the best epoch's weights when robust accuracy declines.

    Robust overfitting, Rice et al. (2020), https://arxiv.org/abs/2002.11569: the robust accuracy
    of the validation data has stayed `drop` below its best for `patience` epochs, while the
    training loss has fallen below its value then. `fit` stops, and the base model gets the
    weights of the best epoch.

    Catastrophic overfitting, Wong et al. (2020), https://arxiv.org/abs/2001.03994, is checked if
    examples are crafted in a single step: every `every` steps and at the end of each epoch, PGD
    and FGSM attack the first `images` of the validation data. If PGD accuracy has fallen to less
    than half of its best and FGSM accuracy has not, weights and optimiser are rolled back to the
    last check that passed. With wide noise before the step (`Fast`, or the crafting 'nfgsm') the
    noise grows by one radius of the ball and training continues; without it `fit` stops, since
    the same would happen again.

    Args:
      patience: epochs, at least 1.
      drop: of the robust accuracy, in [0, 1).
      every: steps between two checks, at least 1.
      images: number attacked at each check.

    Attributes:
      stopped: the epoch, from 1, whose weights the model got when `fit` was stopped for robust
        overfitting; None if it was not.
      rollbacks: how often steps were rolled back for catastrophic overfitting.

    Raises:
      UsageError: an argument is out of range.

    Examples:
      >>> robust = tr.robust(model, tr.AdversarialTraining(), ball)
      >>> robust.compile("sgd", metrics=["accuracy"])
      >>> guard = tr.callbacks.OverfittingGuard(patience=3)
      >>> history = robust.fit(x, y, validation_data=(x, y), callbacks=[guard], verbose=0)
      >>> "val_robust_accuracy" in history.history
      True
    """

    def __init__(
        self, patience: int = 5, *, drop: float = 0.02, every: int = 200, images: int = 128
    ) -> None:
        _check_arguments(patience, drop, every, images)
        self.patience, self.drop, self.every, self.images = patience, drop, every, images
        self.stopped: int | None = None
        self._rows: list[dict[str, Any]] = []
        self._state = TrainState()
        self._best: list[np.ndarray] = []
        self._guard: Guard | None = None
        self._validation: Any = None

    @property
    def rollbacks(self) -> int:
        """How often steps were rolled back."""
        return self._state.rollbacks

    def before_fit(self, model: Any, given: dict[str, Any]) -> None:
        """Takes the validation data and starts over with each `fit`.

        Raises:
          UsageError: there is no validation data.
        """
        self._validation = given.get("validation_data")
        if self._validation is None:
            raise UsageError("OverfittingGuard: expected fit(..., validation_data=...).")
        self.stopped = None
        if not given.get("initial_epoch"):
            self._rows, self._best, self._state = [], [], TrainState()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Sets up the checks if examples are crafted in a single step.

        Raises:
          UsageError: the model is not a robust one.
        """
        self._guard = None
        if self._validation is None:
            raise UsageError("OverfittingGuard: expected a robust model, made by tr.robust.")
        if not _crafts_in_one_step(self.model):
            return
        if self._state.noise_reach is not None:
            self.model.reach.assign(self._state.noise_reach)
        selection = Selection(
            _seen(self.model), self._batches(), self.model.recipe.threat_model,
            steps=_PGD_STEPS, seed=_SEED, worst_case=False,
        )  # fmt: skip
        self._guard = Guard(selection, self._state, self.every, Snapshot(_restorable(self.model)))
        self._guard.set_model(self.model)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Records the epoch."""
        if self._guard:
            self._guard.on_epoch_begin(epoch)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Checks for catastrophic overfitting when due."""
        if self._guard:
            self._guard.on_train_batch_end(batch)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Checks for both kinds of overfitting."""
        before = self.rollbacks
        if self._guard:
            self._guard.on_epoch_end(epoch)
        found = dict(logs or {})
        # Not every epoch is measured, and measurements may have been rolled back.
        if "val_robust_accuracy" not in found or self.rollbacks > before:
            return
        lost = 1.0 - float(found["val_robust_accuracy"])
        self._rows.append({"epoch": epoch + 1, "loss": float(found["loss"]), "select_loss": lost})
        self._judge()

    def _judge(self) -> None:
        elbow = find_elbow(self._rows, 1)
        assert elbow is not None
        place = next(i for i, row in enumerate(self._rows) if row["epoch"] == elbow.epoch)
        later = self._rows[place + 1 :]
        if not later:
            with self.model.kept():
                self._best = [raw(v).numpy() for v in self.model.base_model.variables]
            return
        limit = self._rows[place]["select_loss"] + self.drop
        fallen = all(row["select_loss"] >= limit for row in later[-self.patience :])
        if len(later) >= self.patience and fallen and elbow.turned:
            self._stop(elbow.epoch)

    def _stop(self, epoch: int) -> None:
        for variable, value in zip(self.model.base_model.variables, self._best, strict=True):
            raw(variable).assign(value)
        if self.model.averages:
            self.model.averages.restart()
        self.stopped, self.model.stop_training = epoch, True
        best, last = (1 - self._rows[i]["select_loss"] for i in (self._place(epoch), -1))
        print(
            f"Robust overfitting: robust accuracy was {best:.3f} after epoch {epoch} and is "
            f"{last:.3f}, while the training loss fell. Training ends; the weights are those of "
            f"epoch {epoch}.",
            file=sys.stderr,
            flush=True,
        )

    def _place(self, epoch: int) -> int:
        return [row["epoch"] for row in self._rows].index(epoch)

    def on_train_end(self, logs: Logs = None) -> None:
        """Releases the data."""
        self._validation = self._guard = None

    def _batches(self) -> list[dict[str, Any]]:
        """The first validation images, as the checks take them."""
        found = [self.model.pixels_and_labels(*pair) for pair in _first(self._validation,
                                                                        self.images)]  # fmt: skip
        x, y = (tf.concat(part, axis=0)[: self.images] for part in zip(*found, strict=True))
        return [
            {"image": x[first : first + _BATCH], "label": y[first : first + _BATCH]}
            for first in range(0, len(x), _BATCH)
        ]

    def state(self) -> dict[str, Any]:
        """The measurements, and the reach of the noise."""
        own = ("looks", "rollbacks", "noise_reach")
        return {"rows": self._rows, **{name: getattr(self._state, name) for name in own}}

    def arrays(self) -> list[np.ndarray]:
        """The best epoch's weights."""
        return self._best

    def restore(self, state: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        """Resumes from a saved state."""
        own = dict(state)
        self._rows, self._best = own.pop("rows"), list(arrays)
        self._state = TrainState(**own)


def _check_arguments(patience: int, drop: float, every: int, images: int) -> None:
    for name, value in (("patience", patience), ("every", every), ("images", images)):
        if value < 1:
            raise UsageError(f"{name}: expected at least 1, found {value}.")
    if not 0 <= drop < 1:
        raise UsageError(f"drop: expected a fraction in [0, 1), such as 0.02, found {drop}.")


def _crafts_in_one_step(model: Any) -> bool:
    return bool(model.single_step or (model.crafts and model.recipe.attack.steps == 1))


def _seen(model: Any) -> Any:
    """The classifier under attack: [0, 1] images -> logits, in inference mode."""
    if model.is_plain:
        return model.base_model
    return tf.autograph.experimental.do_not_convert(lambda x: model.logits(x, training=False))


def _restorable(model: Any) -> list[Any]:
    """The variables that are rolled back to the last check that passed."""
    own = [*model.base_model.variables, *model.optimizer.variables]
    return [*map(raw, own), *(model.averages.variables if model.averages else [])]


def _first(data: Any, limit: int) -> Iterator[tuple[Any, Any]]:
    """Batches (images, labels) of validation data, with at least `limit` images if it has them."""
    if isinstance(data, dict):
        yield data["image"][:limit], data["label"][:limit]
    elif isinstance(data, (tuple, list)):
        yield data[0][:limit], data[1][:limit]
    else:
        count = 0
        for batch in data if hasattr(data, "element_spec") else map(data.__getitem__,
                                                                    range(len(data))):  # fmt: skip
            pair = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch[:2]
            yield pair
            count += len(pair[1])
            if count >= limit:
                return
