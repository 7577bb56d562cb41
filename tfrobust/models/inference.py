"""Any model as a function of images in inference mode, for graphs that do without AutoGraph.

AutoGraph rewrites the source of every function that it meets, which takes seconds and changes
nothing in code that writes its loops as `tf.while_loop`. A model may still need it.
"""

from __future__ import annotations

from typing import Any, cast

from tfrobust.models.folding import fold
from tfrobust.models.heads import is_keras
from tfrobust.models.kinds import KerasGraph, is_adapted
from tfrobust.models.outside import Outside
from tfrobust.runtime import tf
from tfrobust.typing import Function, Model


def inference(model: Model) -> Function:
    """`model` as a plain function of images, in inference mode, with float32 logits.

    Args:
      model: a Keras model (of tf_keras or Keras 3), a `Classifier`, or any callable; [0, 1]
        images float32 [B, H, W, C] -> logits [B, K].
    """
    if is_adapted(model):
        around: Function = model.around(_outputs(model.inner))
        return around
    return _outputs(model)


def _outputs(model: Model) -> Function:
    """What `model` returns in inference mode, with floats as float32."""
    keywords = {"training": False} if is_keras(model) else {}
    if not needs_autograph(model):
        return lambda x: _as_float32(model(x, **keywords))
    # A function of its own: the model may need AutoGraph, which our graphs go without.
    return tf.function(lambda x: _as_float32(model(x, **keywords)), reduce_retracing=True)


def _as_float32(found: Any) -> Any:
    return tf.nest.map_structure(lambda part: tf.cast(part, tf.float32), found)


def attackable(model: Model) -> Function:
    """The same function as `inference(model)`, as attacks see it: with cheaper gradients.

    BatchNorm is folded where the model is a flat graph of tf_keras; successes are to be
    verified on `inference(model)`.
    """
    if is_adapted(model):
        around: Function = model.around(attackable(model.twin or model.inner))
        return around
    as_it_is = isinstance(model, Outside) or needs_autograph(model)
    # Of Keras 3 nothing can be folded, and it may have several outputs.
    as_it_is = as_it_is or not getattr(model, "_is_graph_network", False)
    return _outputs(model) if as_it_is else fold(cast(KerasGraph, model))


def needs_autograph(model: Model) -> bool:
    """Whether it may: all but graphs of layers of Keras and of ours, and what runs outside."""
    if is_adapted(model):
        return needs_autograph(model.inner)
    if isinstance(model, Outside):
        return False
    if not _is_graph(model):
        return True
    layers = cast(Any, model)._flatten_layers()
    roots = {type(layer).__module__.partition(".")[0] for layer in layers}
    return not roots <= {"keras", "tf_keras", "tfrobust"}


def _is_graph(model: Model) -> bool:
    """Whether it is a graph of layers, functional or Sequential, of either Keras."""
    graph = getattr(model, "_functional", None) or model
    kind = type(graph)
    of_keras_3 = kind.__name__ == "Functional" and kind.__module__.startswith("keras.")
    return of_keras_3 or bool(getattr(graph, "_is_graph_network", False))
