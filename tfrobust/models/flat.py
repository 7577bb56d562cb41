"""A graph of layers without models inside: every layer of a nested backbone in one graph."""

from __future__ import annotations

from typing import Any

from tfrobust.models.heads import graph_ends, is_graph, library_of

Tensor = Any
Layer = Any


def flat(model: Any) -> Any:
    """The same function with the layers of models inside it as layers of its own.

    The layers are copies with the same weights, under the names of the originals where those
    are free.

    Args:
      model: a tf_keras graph of layers with one input and one output.

    Returns:
      The flat model; `model` itself where it is flat, or holds what cannot be taken apart: a
      layer that is used twice, or several inputs.
    """
    if not any(is_graph(layer) for layer in model.layers):
        return model
    library = library_of(model)
    inputs, _ = graph_ends(model)
    image = library.Input(tuple(inputs[0].shape)[1:], name=f"{inputs[0].name.split(':')[0]}")
    copies: list[tuple[Layer, Layer]] = []
    try:
        logits = _run(model, image, copies, set())
        made = library.Model(image, logits, name=model.name)
    # A graph of another kind: it stays as it is.
    except (ValueError, TypeError, AttributeError, KeyError, IndexError):
        return model
    for original, copy in copies:
        copy.set_weights(original.get_weights())
    return made


def _run(model: Any, x: Tensor, copies: list[tuple[Layer, Layer]], names: set[str]) -> Tensor:
    """What the layers of `model`, copied, make of x."""
    inputs, outputs = graph_ends(model)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError("several inputs or outputs")
    values = {id(inputs[0]): x}
    for layer in model.layers:
        nodes = [node for node in layer.inbound_nodes if _is_inside(node, values)]
        if id(layer.output if len(layer.inbound_nodes) == 1 else None) in values:
            continue  # the input layer
        if len(nodes) != 1:
            raise ValueError(f"{layer.name} is used {len(nodes)} times")
        node = nodes[0]
        given = {str(id(one)): [values[id(one)]] * 8 for one in node.keras_inputs}
        args, kwargs = node.map_arguments(given)
        if is_graph(layer):
            found = _run(layer, args[0], copies, names)
        else:
            found = _copy(layer, copies, names)(*args, **kwargs)
        values[id(node.outputs)] = found
    return values[id(outputs[0])]


def _is_inside(node: Any, values: dict[int, Tensor]) -> bool:
    tensors = node.keras_inputs
    return bool(tensors) and all(id(one) in values for one in tensors)


def _copy(layer: Layer, copies: list[tuple[Layer, Layer]], names: set[str]) -> Layer:
    config = layer.get_config()
    name = layer.name
    while name in names:
        name = f"{name}_inner"
    names.add(name)
    copy = type(layer).from_config({**config, "name": name})
    copies.append((layer, copy))
    return copy
