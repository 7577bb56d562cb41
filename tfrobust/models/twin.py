"""A graph of layers, of either Keras and however nested, as one flat graph of tf_keras.

The twin computes the same function. Attacks run on it with BatchNorm folded, and explainers
find every layer of it; successes are verified on the model itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tfrobust.models.heads import graph_ends, is_graph, is_keras, library_of, operations
from tfrobust.models.kinds import KerasGraph
from tfrobust.runtime import keras, tf
from tfrobust.typing import Tensor

Layer = Any

# What does nothing in inference mode, in either Keras.
_IDLE = (
    "Dropout",
    "SpatialDropout2D",
    "SpatialDropout1D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
)
# Keras 3's operations without weights: the same in TensorFlow.
_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda x, y: x + y,
    "Subtract": lambda x, y: x - y,
    "Multiply": lambda x, y: x * y,
    "TrueDivide": lambda x, y: x / y,
    "Divide": lambda x, y: x / y,
    "Relu": lambda x: tf.nn.relu(x),
    "Relu6": lambda x: tf.nn.relu6(x),
    "Sigmoid": lambda x: tf.sigmoid(x),
    "Tanh": lambda x: tf.tanh(x),
    "Silu": lambda x: tf.nn.silu(x),
    "Softplus": lambda x: tf.nn.softplus(x),
}
# Settings of a layer that its inference does not depend on.
_TRAINING_ONLY = ("initializer", "regularizer", "constraint")


def twin(model: KerasGraph) -> KerasGraph | None:
    """The flat tf_keras graph of the same function, or None if it cannot be made.

    Layers are copies with the same weights, under the names of the originals where these are
    free. A layer that is used twice is one layer of the twin as well.

    Args:
      model: a graph of layers of tf_keras or Keras 3, with one input and one output.
    """
    inputs, outputs = graph_ends(model)
    if not is_keras(model) or len(inputs) != 1 or len(outputs) != 1:
        return None
    image = keras.Input(tuple(inputs[0].shape)[1:], name=_plain(inputs[0].name))
    copies = _Copies()
    try:
        values = {id(inputs[0]): image}
        _run(model, values, copies)
        made = keras.Model(image, values[id(outputs[0])], name=model.name)
        copies.take_weights()
    # It has parts that are not recognised, or unknown to tf_keras: there is no twin.
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError):
        return None
    return made


def needs_twin(model: object) -> bool:
    """Whether a graph of layers is of Keras 3, has models inside, or layers with other uses."""
    if not is_graph(model):
        return False
    if library_of(model).__name__ != "tf_keras":
        return True
    return any(is_graph(layer) or len(layer.inbound_nodes) > 1 for layer in model.layers)


def _plain(name: Any) -> str:
    return str(name).split(":")[0].replace("/", "_")


class _Copies:
    """The layers of a twin, each made once for each layer of the original."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Layer, Layer]] = {}
        self._names: set[str] = set()

    def of(self, layer: Layer) -> Layer:
        """The copy of a layer, made at its first call."""
        if id(layer) not in self._made:
            name = _plain(layer.name)
            while name in self._names:
                name = f"{name}_inner"
            self._names.add(name)
            self._made[id(layer)] = (layer, _copy(layer, name))
        return self._made[id(layer)][1]

    def take_weights(self) -> None:
        """Gives the copies the originals' weights."""
        for layer, copy in self._made.values():
            if copy.weights:
                copy.set_weights(layer.get_weights())


def _copy(layer: Layer, name: str) -> Layer:
    kind = type(layer).__name__
    if library_of(layer).__name__ == "tf_keras":
        if kind == "Normalization":
            return _rescaling(layer, name)
        return type(layer).from_config({**layer.get_config(), "name": name})
    if kind == "Normalization":
        return _rescaling(layer, name)
    if type(layer).__module__.split(".")[0] != "keras":
        raise ValueError(f"{kind} is a layer of the user's own")
    own = getattr(keras.layers, kind)
    return own(**_settings(layer, own, name))


def _settings(layer: Layer, own: Any, name: str) -> dict[str, Any]:
    """The settings of a Keras 3 layer that tf_keras's of the same name takes."""
    known = inspect.signature(own.__init__).parameters
    settings = {
        key: value
        for key, value in layer.get_config().items()
        if key in known and not key.endswith(_TRAINING_ONLY)
    }
    if "activation" in settings:
        settings["activation"] = layer.activation.__name__
    policy = layer.dtype_policy.name
    if policy != "float32":
        settings["dtype"] = policy
    return {**settings, "name": name}


def _rescaling(layer: Layer, name: str) -> Layer:
    """A Normalization's affine map with fixed numbers."""
    if getattr(layer, "invert", False):
        raise ValueError("an inverted normalisation")
    mean, variance = (np.ravel(np.asarray(part)) for part in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), 1e-7)
    return keras.layers.Rescaling(scale.tolist(), (-mean * scale).tolist(), name=name)


def _run(model: KerasGraph, values: dict[int, Tensor], copies: _Copies) -> None:
    """Adds to `values` what the layers of `model`, copied, make of its input."""
    target = id(graph_ends(model)[1][0])
    todo = [(layer, node) for layer in operations(model) for node in layer._inbound_nodes]
    while target not in values:
        left = []
        for layer, node in todo:
            args, kwargs, results = _node(node)
            if not any(id(one) in values for one in tf.nest.flatten([args, kwargs])):
                left.append((layer, node))
                continue
            if _missing(args, kwargs, values):
                left.append((layer, node))
                continue
            fill = _filler(values)
            args, kwargs = tf.nest.map_structure(fill, (args, kwargs))
            found = _apply(layer, args, kwargs, copies)
            pairs = zip(results, tf.nest.flatten(found), strict=True)
            values.update({id(one): made for one, made in pairs if id(one) not in values})
        if len(left) == len(todo):
            raise ValueError("the output is not reached")
        todo = left


def _node(node: Any) -> tuple[Any, Any, list[Tensor]]:
    """(arguments, keyword arguments, results) of a call, with symbolic tensors in them."""
    if hasattr(node, "keras_inputs"):
        return node.call_args, node.call_kwargs, tf.nest.flatten(node.outputs)
    given = node.arguments
    return tuple(given.args), dict(given.kwargs), list(node.output_tensors)


def _is_symbolic(value: Any) -> bool:
    return type(value).__name__ == "KerasTensor"


def _missing(args: Any, kwargs: Any, values: dict[int, Tensor]) -> bool:
    flat = tf.nest.flatten([args, kwargs])
    return any(_is_symbolic(one) and id(one) not in values for one in flat)


def _filler(values: dict[int, Tensor]) -> Callable[[Any], Any]:
    return lambda one: values[id(one)] if _is_symbolic(one) else one


def _apply(layer: Layer, args: Any, kwargs: Any, copies: _Copies) -> Tensor:
    kind = type(layer).__name__
    if is_graph(layer):
        inputs, outputs = graph_ends(layer)
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError("a model of several inputs or outputs inside")
        inside = {id(inputs[0]): tf.nest.flatten(args)[0]}
        _run(layer, inside, copies)
        return inside[id(outputs[0])]
    if kind in _IDLE or kind.startswith("Random"):
        return args[0]
    if not is_keras(layer):
        return _OPERATIONS[kind](*args, **kwargs)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("training", "mask")}
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        # A function of TensorFlow makes a layer of its own of each call.
        return layer.function(*args, **kwargs)
    return copies.of(layer)(*args, **kwargs)
