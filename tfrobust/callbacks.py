"""Callbacks for `fit` of a robust model, of either Keras.

They follow the calls that both make of a callback, and so are of neither.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrobust.attacks.gradient import PGD
from tfrobust.config import parse_stages
from tfrobust.errors import TFRobustError, UsageError

Logs = Mapping[str, Any] | None


class _Callback:
    """What Keras 2 and Keras 3 ask of a callback."""

    model: Any = None
    async_safe = True
    _supports_tf_logs = False
    _chief_worker_only = False
    params: dict[str, Any]

    def set_params(self, params: dict[str, Any]) -> None:
        """Called by `fit`."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Called by `fit`."""
        self.model = model

    def _implements_train_batch_hooks(self) -> bool:
        return type(self).on_train_batch_end is not _Callback.on_train_batch_end

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Nothing, as each of these that a callback does not replace."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Nothing."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Nothing."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Nothing."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Nothing."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Nothing."""

    def __getattr__(self, name: str) -> Any:
        # Of validation and prediction, and whatever a later Keras adds.
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)


class TimeBudget(_Callback):
    """Ends `fit` when its time is up.

    Args:
      minutes: of wall-clock time, tracing and validation among them; more than 0.

    Raises:
      UsageError: `minutes` is not above 0.
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise UsageError(f"minutes: expected more than 0, found {minutes}.")
        self.minutes, self._begin = minutes, 0.0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts the clock."""
        self._begin = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Stops `fit` once the time is over."""
        if time.monotonic() - self._begin > 60 * self.minutes:
            self.model.stop_training = True


class RobustCheckpoint(_Callback):
    """Keeps the base model of the epoch with the best robust accuracy on the validation data.

    Args:
      folder: where `best.keras` goes; made where it does not exist.
      attack: what the robust accuracy is measured under; `fit` measures it on its
        `validation_data`. None leaves the robust model's own.

    Attributes:
      path: of the file.
      best: the best robust accuracy so far.
      epoch: its epoch, from 1; 0 before there is one.
    """

    def __init__(self, folder: Path | str, attack: PGD | None = None) -> None:
        self.path = Path(folder) / "best.keras"
        self.attack, self.best, self.epoch = attack, -1.0, 0

    def set_model(self, model: Any) -> None:
        """Called by `fit`, before it traces."""
        super().set_model(model)
        if self.attack is not None:
            model.validation_attack = self.attack

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the model where it is the best so far.

        Raises:
          UsageError: `fit` has no validation data.
          TFRobustError: the file cannot be written.
        """
        found = (logs or {}).get("val_robust_accuracy")
        if found is None:
            raise UsageError("RobustCheckpoint: expected fit(..., validation_data=...).")
        if float(found) <= self.best:
            return
        self.best, self.epoch = float(found), epoch + 1
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            made = self.path.with_name(f".{self.path.name}.partial.keras")
            self.model.base_model.save(made)
            made.replace(self.path)
        except OSError as error:
            raise TFRobustError(f"{self.path} cannot be written: {error}.") from error


class StagedUnfreezing(_Callback):
    """Trains the head first, then more and more blocks below it.

    Args:
      stages: BLOCKS:EPOCHS:LEARNING_RATE, comma-separated, such as
        'head:2:0.05,6:3:0.02,all:10:0.01'. BLOCKS is 'head', 'all', or how many blocks from the
        top train with the head. After the last stage `fit` stops.
      blocks: the network's blocks from the head down, each a list of names that its layers
        begin with; None takes each layer with weights for a block, also those of a model
        inside, and the last one for the head.

    Raises:
      UsageError: a stage or block is not as described.
    """

    def __init__(self, stages: str, blocks: list[list[str]] | None = None) -> None:
        self.stages, self.blocks = parse_stages(stages), blocks
        self._found: list[list[Any]] = []
        self._names: list[str] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        """Finds the blocks."""
        self._found = _blocks(self.model.base_model, self.blocks)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Opens the stage that begins with this epoch."""
        begin = 0
        for stage in self.stages:
            if epoch == begin:
                self._open(stage.blocks)
                self.model.optimizer.learning_rate = stage.learning_rate
            begin += stage.epochs
        if epoch >= begin:
            self.model.stop_training = True

    def _open(self, wanted: str) -> None:
        words = {"head": 0, "all": len(self._found) - 1}
        count = words.get(wanted, int(wanted) if wanted.isdecimal() else -1)
        if not 0 <= count < len(self._found):
            raise UsageError(
                f"stages: expected 'head', 'all' or 0 to {len(self._found) - 1} blocks, found "
                f"{wanted!r}."
            )
        for place, block in enumerate(self._found):
            for layer in block:
                layer.trainable = place <= count
        self.model.settle_trainable()


def _blocks(model: Any, given: list[list[str]] | None) -> list[list[Any]]:
    """The layers with weights, block by block, the head first."""
    layers = [one for one in model._flatten_layers() if one.weights and not _has_layers(one)]
    if given is None:
        return [[layer] for layer in reversed(layers)]
    found = [[one for one in layers if one.name.startswith(tuple(names))] for names in given]
    left = [one.name for one in layers if not any(one in block for block in found)]
    if left or not all(found):
        raise UsageError(f"blocks: expected each layer in one, found {', '.join(left) or 'one'} "
                         "in none.")  # fmt: skip
    return found


def _has_layers(layer: Any) -> bool:
    return len(list(layer._flatten_layers())) > 1
