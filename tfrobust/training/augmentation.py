"""Random layers at the start of a model: the attack sees their output.

An attack runs the model in inference mode, without augmentation. If an adversarial image were
rotated or zoomed after crafting, it would no longer be adversarial, and the model would learn
to withstand only what remains; TRADES would compare two different views of the image.
"""

from __future__ import annotations

from typing import Any

from tfrobust.models import heads
from tfrobust.typing import Tensor


def split(model: Any) -> tuple[Any, Any]:
    """A graph of layers as (the random layers at its start, all that follows).

    Both are models with the same layers and weights. If the graph does not start with random
    layers, or the model is no graph, the first is None and the second the model itself.
    """
    images, outputs = heads.graph_ends(model)
    if not heads.is_graph(model) or len(images) != 1:
        return None, model
    tensor = images[0]
    for layer in heads.operations(model):
        if type(layer).__name__ == "InputLayer":
            continue
        if not is_random(layer):
            break
        tensor = _output_for(layer, tensor)
    if tensor is images[0]:
        return None, model
    library = heads.library_of(model)
    try:
        return library.Model(images[0], tensor), library.Model(tensor, outputs)
    except ValueError:  # the image also bypasses them
        return None, model


def is_random(layer: Any) -> bool:
    """Whether a layer is one of Keras's random augmentations, or a model of only such layers."""
    kind = type(layer)
    if heads.is_graph(layer):
        inside = [one for one in heads.operations(layer) if type(one).__name__ != "InputLayer"]
        return bool(inside) and all(map(is_random, inside))
    own = kind.__module__.split(".")[0] in ("keras", "tf_keras")
    return own and kind.__name__.startswith("Random")


def _output_for(layer: Any, tensor: Tensor) -> Tensor:
    """A layer's output for a symbolic tensor; the tensor itself if the layer does not take it."""
    for node in layer._inbound_nodes:
        given = node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors
        if len(given) == 1 and given[0] is tensor:
            made = node.outputs if hasattr(node, "keras_inputs") else node.output_tensors
            return made[0] if isinstance(made, (list, tuple)) else made
    return tensor
