"""What a model ends in: logits, or a function of them, which attacks had better not climb.

Through a softmax or sigmoid that is sure of itself no gradient comes back, so attacks see a
flat model and a robust accuracy comes out that no one has (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420). Where the graph can be opened the model is cut before such
a last activation; elsewhere the activation is inverted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models.kinds import KerasGraph
from tfrobust.runtime import tf
from tfrobust.typing import Model, Tensor

Layer = Any

# Last activations that rise with each logit, and so keep the order of the classes.
SOFTMAX, SIGMOID, TANH = "softmax", "sigmoid", "tanh"
_BOUNDED = (SOFTMAX, SIGMOID, TANH, "hard_sigmoid", "hard_tanh", "softsign", "sparsemax")
# What passes values on as they are in inference mode.
TRANSPARENT = ("Dropout", "GaussianNoise", "ActivityRegularization", "Identity", "GaussianDropout")
_WITH_KERNEL = ("Dense", "Conv2D", "Conv1D", "EinsumDense")
# What does nothing but apply an activation, and what ends a network in a plain sum.
_ACTIVATIONS = ("Activation", "Softmax", "TFOpLambda")
_PLAIN = (*_WITH_KERNEL, "Activation", "TFOpLambda", "LogSoftmax")
_TINY = float(np.finfo(np.float32).tiny)
_NEXT_TO_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


class Head(NamedTuple):
    """How a graph of layers ends.

    Attributes:
      model: the model up to its logits; the model itself if it ends in them.
      activation: what was cut off, such as 'softmax'; '' where nothing was.
      known: whether the end was recognised; if not, only the outputs can show it.
    """

    model: Any
    activation: str
    known: bool


def is_keras(model: object) -> bool:
    """Whether this is a layer or model of tf_keras or Keras 3."""
    return any(
        cls.__name__ == "Layer" and cls.__module__.split(".")[0] in ("keras", "tf_keras")
        for cls in type(model).__mro__
    )


def library_of(model: object) -> ModuleType:
    """The Keras that a Keras model is of: the package `tf_keras`, or `keras` (Keras 3)."""
    roots = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    return importlib.import_module("tf_keras" if "tf_keras" in roots else "keras")


def raw(variable: Any) -> Any:
    """The TensorFlow variable that a Keras variable is, or wraps."""
    return variable if isinstance(variable, tf.Variable) else getattr(variable, "value", variable)


def is_graph(model: object) -> TypeGuard[KerasGraph]:
    """Whether a Keras model is a graph of layers: functional, or Sequential once it is built."""
    return is_keras(model) and bool(graph_ends(model)[1])


def graph_ends(model: object) -> tuple[list[Tensor], list[Tensor]]:
    """Symbolic inputs and outputs of a graph of layers; both empty for any other model."""
    graph = cast(KerasGraph, model)
    try:
        return list(graph.inputs or ()), list(graph.outputs or ())
    except (AttributeError, ValueError, TypeError):  # subclassed, or not built yet
        return [], []


def operations(model: KerasGraph) -> list[Layer]:
    """The layers, and in Keras 3 the operations, of a graph, in its order."""
    graph = getattr(model, "_functional", None) or model
    return list(getattr(graph, "operations", None) or graph.layers)


def cut(model: Model) -> Head:
    """The part of a graph of layers that returns logits.

    Args:
      model: a Keras model with one output.
    """
    ends = graph_ends(model)
    if not is_keras(model) or len(ends[1]) != 1:
        return Head(model, "", known=False)
    try:
        tensor, activation, known = _before_activation(model, ends[1][0])
    # The graph has a part that is not recognised: only its outputs can show it.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return Head(model, "", known=False)
    if tensor is ends[1][0]:
        return Head(model, activation, known)
    library = library_of(model)
    name = getattr(model, "name", None)
    return Head(
        library.Model(ends[0][0] if len(ends[0]) == 1 else ends[0], tensor, name=name),
        activation,
        known,
    )


def _before_activation(model: Model, tensor: Tensor) -> tuple[Tensor, str, bool]:
    """(the logits, the activation behind them, whether the end was understood)."""
    while True:
        layer, given = _origin(tensor)
        if len(given) != 1:
            return tensor, "", False
        if is_keras(layer) and graph_ends(layer)[1]:
            return _cut_inside(layer, tensor, given[0])
        kind = type(layer).__name__
        activation = _activation_of(layer)
        if kind in TRANSPARENT or (kind == "Activation" and activation == "linear"):
            tensor = given[0]
        elif activation in _BOUNDED and _is_exact(layer, _WITH_KERNEL):
            return _without_activation(layer, given[0]), activation, True
        elif activation in _BOUNDED and (_is_exact(layer, _ACTIVATIONS) or not is_keras(layer)):
            return given[0], activation, True
        else:
            plain = activation in ("linear", "log_softmax") and _is_exact(layer, _PLAIN)
            return tensor, "", plain


def last_layer(model: Model) -> Layer:
    """The layer whose activation a graph of layers ends in, also inside a nested model."""
    tensor = graph_ends(model)[1][0]
    while True:
        layer, given = _origin(tensor)
        if graph_ends(layer)[1] if is_keras(layer) else False:
            return last_layer(layer)
        kind = type(layer).__name__
        if kind not in TRANSPARENT and not (
            kind == "Activation" and _activation_of(layer) == "linear"
        ):
            return layer
        tensor = given[0]


def _is_exact(layer: Layer, kinds: tuple[str, ...]) -> bool:
    """Whether a layer is one of Keras's own of these names: a subclass may do anything."""
    root = type(layer).__module__.split(".")[0]
    return type(layer).__name__ in kinds and root in ("keras", "tf_keras")


def _cut_inside(layer: Any, tensor: Tensor, given: Tensor) -> tuple[Tensor, str, bool]:
    """The same of a model that is the last layer of another."""
    head = cut(layer)
    return (head.model(given) if head.activation else tensor), head.activation, head.known


def _origin(tensor: Tensor) -> tuple[Layer, list[Tensor]]:
    """The layer or operation that made a symbolic tensor, and its arguments."""
    layer, place = tensor._keras_history[:2]
    node = layer._inbound_nodes[place]
    given = node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors
    return layer, list(given)


def _activation_of(layer: Layer) -> str:
    """The last activation of a layer or operation; '' if it is none of the known ones."""
    kind = type(layer).__name__
    if kind in ("Softmax", "Sigmoid", "Tanh"):
        axis = getattr(layer, "axis", -1)
        return kind.lower() if axis in (-1, 1, [-1], [1]) else ""
    if kind == "TFOpLambda":
        return str(getattr(layer, "symbol", "")).rpartition(".")[2]
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear" if kind in _WITH_KERNEL else ""
    return str(getattr(function, "__name__", type(function).__name__)).lower()


def _without_activation(layer: Layer, given: Tensor) -> Tensor:
    """The outputs of a layer with a kernel, before its activation."""
    config = layer.get_config()
    config["activation"] = "linear"
    config["name"] = f"{layer.name}_logits"
    plain = type(layer).from_config(config)
    made = plain(given)
    plain.set_weights(layer.get_weights())
    return made


def inverse(activation: str) -> Callable[[Tensor], Tensor]:
    """What makes logits of a bounded activation's outputs, up to rounding.

    Args:
      activation: 'softmax', 'sigmoid' or 'tanh'.
    """
    functions = {
        # Logits up to a constant, which no decision and no loss depends on.
        SOFTMAX: lambda p: tf.math.log(tf.maximum(p, _TINY)),
        SIGMOID: lambda p: _logit(p),
        TANH: lambda p: _logit((p + 1) / 2),
    }
    return functions[activation]


def _logit(p: Tensor) -> Tensor:
    p = tf.clip_by_value(p, _TINY, _NEXT_TO_ONE)
    return tf.math.log(p) - tf.math.log1p(-p)


def bounded_by(outputs: np.ndarray) -> str:
    """The activation that outputs look like, '' where they look like logits.

    Args:
      outputs: float [N, K], of images that drive a model to its extremes as well.
    """
    low, high = float(outputs.min()), float(outputs.max())
    if low >= 0 and high <= 1 + 1e-3:
        sums = outputs.sum(axis=1)
        # In half precision a sum of probabilities may be off by a hundredth.
        if outputs.shape[1] > 1 and np.abs(sums - 1).max() <= 0.02:
            return SOFTMAX
        return SIGMOID
    if low >= -1 and high <= 1 and max(-low, high) > 0.9:
        return TANH
    return ""


def as_two_classes(z: Tensor) -> Tensor:
    """One logit [B, 1] as the logits of two classes [B, 2]: above 0 it means class 1."""
    return tf.concat([tf.zeros_like(z), z], axis=1)


def pick_output(found: Any, what: str = "The model") -> Tensor:
    """The logits among what a model returned: its only output, or the one named 'logits'.

    Raises:
      TFRobustError: there are several, and none has that name.
    """
    if isinstance(found, dict):
        if "logits" in found or len(found) == 1:
            return found.get("logits", next(iter(found.values())))
        names = ", ".join(map(repr, found))
    elif isinstance(found, (list, tuple)):
        if len(found) == 1:
            return found[0]
        names = f"{len(found)} without names"
    else:
        return found
    raise TFRobustError(
        f"{what} has several outputs ({names}), expected one, or one named 'logits': make a model "
        "of the output that is meant, keras.Model(model.inputs, model.outputs[0])."
    )
