"""What range of pixels the first layers and operations of a graph declare."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrobust.models import heads
from tfrobust.models.views import InputView
from tfrobust.runtime import tf
from tfrobust.typing import Model

# Layers and operations that move pixels, but do not change their range.
_LOOKED_THROUGH = (
    "Resizing",
    "CenterCrop",
    "ZeroPadding2D",
    "Cropping2D",
    "Reshape",
    "Permute",
    "UpSampling2D",
    "Cast",
    "GetItem",
    "Pad",
    "Transpose",
    "Flip",
)
_MOVES = ("cast", "reshape", "resize", "pad", "transpose", "identity", "convert_to_tensor")
# The largest factor of a first Rescaling layer that can only be meant for pixels in 0..255.
_SMALL_SCALE = 0.02


def view_of(model: Model) -> InputView:
    """[0, 255] where the first layer that does anything rescales from it, else [0, 1]."""
    return declared_range(model) or InputView()


def _takes_bytes(layer: Any, kind: str) -> bool:
    """Whether a layer or operation can only be meant for pixels in 0..255."""
    if kind == "Rescaling":
        return float(np.max(np.abs(np.asarray(layer.scale)))) <= _SMALL_SCALE
    if kind == "Normalization":
        deviation = np.sqrt(np.asarray(layer.variance))
        return float(np.max(np.maximum(np.abs(np.asarray(layer.mean)), deviation))) > 2
    name = _symbol(layer) if kind == "TFOpLambda" else kind.lower()
    value = _constant(layer)
    if value is None:
        return False
    if name in ("truediv", "truedivide", "divide", "div"):
        return value >= 1 / _SMALL_SCALE
    if name in ("multiply", "mul"):
        return value <= _SMALL_SCALE
    return name in ("subtract", "sub") and value > 2


def _symbol(layer: Any) -> str:
    return str(getattr(layer, "symbol", "")).rpartition(".")[2]


def _constant(layer: Any) -> float | None:
    """The largest constant among the arguments of an operation."""
    try:
        node = layer._inbound_nodes[0]
        given = node.arguments if hasattr(node, "arguments") else None
        values = [given.args, given.kwargs] if given else [node.call_args, node.call_kwargs]
        numbers = [one for one in tf.nest.flatten(values) if not isinstance(one, (str, bool))]
        found = [
            float(np.max(np.abs(np.asarray(one))))
            for one in numbers
            if type(one).__name__ != "KerasTensor" and one is not None
        ]
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return max(found, default=None)


def declared_range(model: Model) -> InputView | None:
    """The range of pixels, from a file's input or a graph's first layers; None if unknown."""
    return getattr(model, "pixel_range", None) or _scan(model)[0]


def _scan(model: Model) -> tuple[InputView | None, bool]:
    """The same, and whether a layer was met that does more than move pixels about."""
    if not heads.is_graph(model):
        return None, True
    for layer in heads.operations(model):
        kind = type(layer).__name__
        if kind == "InputLayer" or kind.startswith("Random") or kind in heads.TRANSPARENT:
            continue
        if heads.is_graph(layer):
            found, ended = _scan(layer)
            if ended:
                return found, True
            continue
        if kind in _LOOKED_THROUGH or (kind == "TFOpLambda" and _symbol(layer) in _MOVES):
            continue
        if _takes_bytes(layer, kind):
            return InputView((0.0, 255.0)), True
        # A layer that rescales pixels of [0, 1] declares that it takes these; after any other
        # layer there are no pixels of the image.
        return (InputView() if kind in ("Rescaling", "Normalization") else None), True
    return None, False
