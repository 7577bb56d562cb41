"""The ordered blocks of a network, and which of them train."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfrobust.backbones.table import BACKBONES
from tfrobust.errors import UsageError

if TYPE_CHECKING:
    from tfrobust.runtime import keras

HEAD = "head"
HEAD_LAYER = "logits"


@dataclass(frozen=True)
class Block:
    """Layers that are frozen and unfrozen together.

    Attributes:
      name: 'head', 'block_16', 'conv5_block3', 'stem', ...
      layers: its layers with variables, from input to output.
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]


def blocks(model: keras.Model) -> tuple[Block, ...]:
    """The blocks of `model`, from the head down to the stem.

    They depend only on the names of model and layers, so a model reloaded from a file has the
    same blocks. A backbone of this package is divided at its repeated unit (`Backbone.blocks`):
    for `mobilenetv2` that is head, top, block_16 ... block_1, stem. In any other Keras model each
    layer with variables is a block, and the last one is the head.

    Returns:
      Blocks that together contain every layer with variables exactly once; the first is 'head'.

    Raises:
      UsageError: `model` has no variables.
    """
    layers = [layer for layer in model.layers if layer.weights]
    if not layers:
        raise UsageError(
            f"Expected a built network with variables, found {model.name!r} with none: build it "
            "or call it on images first."
        )
    names = _block_names(model.name, layers)
    last = {name: position for position, name in enumerate(names)}
    # Parallel branches interleave the layers of neighbouring blocks, but a block always ends
    # after the one that feeds it.
    downwards = sorted(last, key=lambda name: -last[name])
    return tuple(
        Block(name, tuple(layer for layer, its in zip(layers, names, strict=True) if its == name))
        for name in downwards
    )


def _block_names(model_name: str, layers: Sequence[Any]) -> list[str]:
    """The block name of each layer."""
    if model_name in BACKBONES:
        names = [_match(layer.name, BACKBONES[model_name].blocks) for layer in layers]
        found = [name for name in names if name is not None]
        if len(found) == len(layers):
            return found
    return [layer.name for layer in layers[:-1]] + [HEAD]


def _match(layer_name: str, patterns: Sequence[tuple[str, str]]) -> str | None:
    if layer_name == HEAD_LAYER:
        return HEAD
    for pattern, block in patterns:
        if match := re.match(pattern, layer_name):
            return match.expand(block)
    return None


def set_trainable(model: keras.Model, stage_blocks: str | int) -> tuple[str, ...]:
    """Makes the head and the blocks below it trainable, and freezes the rest.

    A frozen layer keeps its variables, and a frozen BatchNormalization uses its moving
    statistics even in training. Keras needs a `compile` afterwards.

    Args:
      model: a network; its layers' `trainable` flags are set.
      stage_blocks: 'head', 'all', or the number of blocks besides the head, from the top down,
        possibly as text ('3').

    Returns:
      The names of the blocks that train, from the head down.

    Raises:
      UsageError: `stage_blocks` is none of these, or more than the number of blocks.
    """
    found = blocks(model)
    count = _count(stage_blocks, len(found) - 1)
    # A model or layer frozen as a whole would keep its sublayers frozen.
    model.trainable = True
    for position, block in enumerate(found):
        for layer in block.layers:
            layer.trainable = position <= count
    return tuple(block.name for block in found[: count + 1])


def _count(stage_blocks: str | int, available: int) -> int:
    """The number of blocks besides the head that `stage_blocks` means."""
    words = {"head": 0, "all": available}
    if isinstance(stage_blocks, str) and stage_blocks in words:
        return words[stage_blocks]
    text = str(stage_blocks)
    if isinstance(stage_blocks, bool) or not text.isdecimal() or int(text) > available:
        raise UsageError(
            "Blocks to train: expected 'head', 'all' or a number of blocks below the head from "
            f"0 to {available}, found {stage_blocks!r}."
        )
    return int(text)
