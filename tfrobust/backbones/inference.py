"""Any model as a function of images in inference mode, for graphs that do without AutoGraph.

AutoGraph rewrites the source of every function that it meets, which takes seconds and changes
nothing in code that writes its loops as `tf.while_loop`. A model may still need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfrobust.backbones.folding import fold
from tfrobust.runtime import tf

Tensor = Any
Classifier = Callable[[Tensor], Tensor]


def inference(model: Any) -> Classifier:
    """`model` as a plain function of images, in inference mode, with float32 logits.

    Args:
      model: a Keras model (of tf_keras or Keras 3), or any callable; [0, 1] images
        float32 [B, H, W, 3] -> logits [B, K].
    """
    keywords = {"training": False} if _is_keras(model) else {}
    if not needs_autograph(model):
        return lambda x: tf.cast(model(x, **keywords), tf.float32)
    # A function of its own: the model may need AutoGraph, which our graphs go without.
    return tf.function(lambda x: tf.cast(model(x, **keywords), tf.float32), reduce_retracing=True)


def attackable(model: Any) -> Classifier:
    """The same function as `inference(model)`, as attacks see it: with cheaper gradients.

    BatchNorm is folded where the model is a flat graph of tf_keras; successes are to be
    verified on `inference(model)`.
    """
    return inference(model) if needs_autograph(model) else fold(model)


def needs_autograph(model: Any) -> bool:
    """Whether it may: all but graphs of layers of Keras and of ours."""
    if not getattr(model, "_is_graph_network", False):
        return True
    roots = {type(layer).__module__.partition(".")[0] for layer in model._flatten_layers()}
    return not roots <= {"keras", "tf_keras", "tfrobust"}


def _is_keras(model: Any) -> bool:
    """Whether this is a Keras layer or model, which takes `training`."""
    return any(
        cls.__name__ == "Layer" and cls.__module__.split(".")[0] in ("keras", "tf_keras")
        for cls in type(model).__mro__
    )
