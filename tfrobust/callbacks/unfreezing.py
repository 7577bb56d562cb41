"""Training in stages: the head first, then progressively more blocks below it."""

from __future__ import annotations

from typing import Any

from tfrobust.callbacks.base import Callback, Logs
from tfrobust.config import parse_stages
from tfrobust.errors import UsageError
from tfrobust.training.freezing import layers_in_order, unfreeze


class StagedUnfreezing(Callback):
    """Trains the head first, then progressively more blocks below it.

    Args:
      stages: BLOCKS:EPOCHS:LEARNING_RATE, comma-separated, such as
        'head:2:0.05,6:3:0.02,all:10:0.01'. BLOCKS is 'head', 'all', or the number of blocks
        from the top that train with the head. `fit` stops after the last stage.
      blocks: the network's blocks from the head down, each a list of prefixes of layer names;
        None treats each layer with weights as a block, including those of nested models, and
        the last one as the head.

    Raises:
      UsageError: a stage or block does not match this description.

    Examples:
      >>> robust = tr.robust(model, tr.Fast(), ball)
      >>> robust.compile("sgd")
      >>> before = model.layers[0].get_weights()[0]
      >>> head_only = tr.callbacks.StagedUnfreezing("head:1:0.05")
      >>> history = robust.fit(x, y, epochs=1, callbacks=[head_only], verbose=0)
      >>> bool((model.layers[0].get_weights()[0] == before).all())
      True
    """

    def __init__(self, stages: str, blocks: list[list[str]] | None = None) -> None:
        self.stages, self.blocks = parse_stages(stages), blocks
        self._found: list[list[Any]] = []
        self._opened: int | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Determines the blocks."""
        self._found, self._opened = _blocks(self.model.base_model, self.blocks), None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Starts the stage that this epoch belongs to, if it is a new one."""
        begin = 0
        for index, stage in enumerate(self.stages):
            if begin <= epoch < begin + stage.epochs and index != self._opened:
                self._open(stage.blocks)
                self.model.optimizer.learning_rate = stage.learning_rate
                self._opened = index
            begin += stage.epochs

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Stops `fit` after the last stage."""
        if epoch + 1 >= sum(stage.epochs for stage in self.stages):
            self.model.stop_training = True

    def _open(self, wanted: str) -> None:
        words = {"head": 0, "all": len(self._found) - 1}
        count = words.get(wanted, int(wanted) if wanted.isdecimal() else -1)
        if not 0 <= count < len(self._found):
            raise UsageError(
                f"stages: expected 'head', 'all' or 0 to {len(self._found) - 1} blocks, found "
                f"{wanted!r}."
            )
        # A nested model that was frozen as a whole keeps its layers from training.
        unfreeze(self.model.base_model)
        for place, block in enumerate(self._found):
            for layer in block:
                layer.trainable = place <= count
        self.model.update_trainable()


def _blocks(model: Any, given: list[list[str]] | None) -> list[list[Any]]:
    """The layers with weights, block by block, the head first."""
    layers = [one for one in layers_in_order(model) if one.weights and not _has_layers(one)]
    if given is None:
        return [[layer] for layer in reversed(layers)]
    found = [[one for one in layers if one.name.startswith(tuple(names))] for names in given]
    left = [one.name for one in layers if not any(one in block for block in found)]
    if left or not all(found):
        raise UsageError(f"blocks: expected each layer in one block, found "
                         f"{', '.join(left) or 'one'} in none.")  # fmt: skip
    return found


def _has_layers(layer: Any) -> bool:
    return len(list(layer._flatten_layers())) > 1
