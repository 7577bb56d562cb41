"""The layer that a class-activation method reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfrobust.errors import UsageError

if TYPE_CHECKING:
    from tfrobust.runtime import keras


def target_layer(model: keras.Model, name: str | None = None) -> str:
    """The name of the given layer, or of the last one whose output is a map larger than 1x1.

    At 32x32 the last maps of MobileNetV2 and ResNet50 are 1x1 and carry no spatial information:
    an earlier layer is used then.

    Args:
      model: a flat functional model of images.
      name: of a layer; None finds the last one.

    Raises:
      UsageError: there is no such layer, its output is not a map, or the model has no map.
    """
    found = map_layers(model)
    if name is None and found:
        return found[-1]
    if name is not None and name in found:
        return name
    known = ", ".join(found[-3:]) or "none"
    if name is None:
        raise UsageError(
            f"{model.name}: expected a layer whose output is a map [H, W, C] larger than 1x1, "
            "found none: class-activation maps need one; use saliency or integrated-gradients."
        )
    raise UsageError(
        f"target_layer {name!r}: expected a layer of {model.name} with a map larger than 1x1, "
        f"such as its last ones, {known}; found "
        f"{'a layer without one' if name in _names(model) else 'no such layer'}."
    )


def map_layers(model: keras.Model) -> list[str]:
    """The layers with one output [B, H, W, C] larger than 1x1, in the model's order."""
    inputs = {id(tensor) for tensor in model.inputs}
    return [
        layer.name for layer in model.layers
        if id(layer.output) not in inputs and _is_map(layer)
    ]  # fmt: skip


def _is_map(layer: keras.layers.Layer) -> bool:
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and None not in shape[1:] and max(shape[1:3]) > 1


def _names(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers]
