"""Any model as a classifier: images in [0, 1] in, logits out.

A model may take other images (0..255, normalised pixels, one channel, flat vectors, batches of
one size) and return other outputs (softmax, sigmoids, a dict). Both are adapted here, once, and
reported in `notes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrobust.models import heads
from tfrobust.models.inference import inference
from tfrobust.models.inputs import (
    as_floats,
    is_integer,
    refuse_channels_first,
    refuse_several_inputs,
    steps_before,
    whole_shape,
)
from tfrobust.models.kinds import KerasGraph
from tfrobust.models.outputs import completed, with_article
from tfrobust.models.pixel_range import declared_range
from tfrobust.models.twin import twin
from tfrobust.models.views import InputView
from tfrobust.runtime import keras, tf
from tfrobust.typing import Array, Function, Model, Tensor

# Images on which a model is compared with itself after a cut.
_COMPARED = 32


@dataclass(frozen=True)
class Classifier:
    """A model with the steps from [0, 1] images to its inputs, and from its outputs to logits.

    Attributes:
      inner: a Keras model or any callable.
      before: applied to images float32 [B, H, W, C] in [0, 1], in order.
      after: applied to what the model returns, in order; the last gives logits [B, K].
      batch: the only batch size that the model takes; None if it takes any.
      classes: K.
      notes: how the model was adapted, a sentence each, for the report.
      twin: the same function as `inner` as a flat graph of tf_keras, which attacks use and
        explainers take apart; None if there is none, or `inner` is one itself.
      range_known: whether the range of its pixels is known, from the user or its first layers.
      independent: whether each class has a sigmoid of its own, instead of a softmax over all.

    Examples:
      >>> softmax = keras.Sequential([model, keras.layers.Softmax()])
      >>> classifier = tr.as_classifier(softmax, x)
      >>> bool(np.allclose(classifier.probabilities(classifier(x)), softmax(x), atol=1e-5))
      True
    """

    inner: Any
    before: tuple[Function, ...] = ()
    after: tuple[Function, ...] = ()
    batch: int | None = None
    classes: int = 0
    notes: tuple[str, ...] = ()
    twin: KerasGraph | None = None
    range_known: bool = False
    independent: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [B, H, W, C] in [0, 1] -> float32 logits [B, K], in inference mode."""
        return inference(self)(x)

    @property
    def has_gradient(self) -> bool:
        """Whether gradients pass through it; not if it runs outside of TensorFlow."""
        return bool(getattr(self.inner, "has_gradient", True))

    @property
    def plain(self) -> bool:
        """Whether the inner model itself takes [0, 1] images and returns logits."""
        return not self.before and not self.after and self.batch is None

    def probabilities(self, logits: Tensor) -> Tensor:
        """The model's own probabilities for logits [B, K], float32 [B, K]."""
        return tf.sigmoid(logits) if self.independent else tf.nn.softmax(logits)

    def around(self, outputs: Function) -> Function:
        """Images -> logits, where `outputs` is the function of the inner model."""
        whole = _in_batches(outputs, self.batch) if self.batch else outputs

        def logits(x: Tensor) -> Tensor:
            for step in self.before:
                x = step(x)
            found = whole(x)
            for step in self.after:
                found = step(found)
            return found

        return logits


def _in_batches(outputs: Function, size: int) -> Function:
    """A model of one batch size on any number of images: the last batch is padded."""

    def run(x: Tensor) -> Tensor:
        count = tf.shape(x)[0]
        filled = tf.pad(x, [[0, -count % size]] + [[0, 0]] * (len(x.shape) - 1))
        chunks = tf.reshape(filled, tf.concat([[-1, size], tf.shape(x)[1:]], axis=0))
        chunks = tf.ensure_shape(chunks, [None, size, *x.shape[1:]])
        found = tf.map_fn(
            lambda part: heads.pick_output(outputs(part)),
            chunks,
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return tf.reshape(found, tf.concat([[-1], tf.shape(found)[2:]], axis=0))[:count]

    return run


def as_classifier(model: Model, x: Array, view: InputView | None = None) -> Classifier:
    """Any model as a `Classifier`, after trying it on images.

    A last softmax, sigmoid or tanh is removed if the model is a graph of layers, and inverted
    otherwise. One output becomes two classes. A model whose first Rescaling layer can only be
    meant for pixels in 0..255 is given such pixels.

    Args:
      model: a Keras model (tf_keras or Keras 3), what `load_any` returns, any callable, or
        already a `Classifier`, which is returned as it is.
      x: some of the images, float32 [N, H, W, C] in [0, 1].
      view: the range of pixels that the model takes; None finds out, or assumes [0, 1].

    Raises:
      TFRobustError: it does not take these images, or does not return one row of finite
        outputs for each.

    Examples:
      >>> classifier = tr.as_classifier(model, x)
      >>> classifier.classes
      10
    """
    if isinstance(model, Classifier):
        return model
    refuse_several_inputs(model)
    refuse_channels_first(model)
    notes: list[str] = []
    inner = as_floats(model, notes)
    before = tuple(steps_before(inner, x.shape[1:], view, notes, integer=is_integer(model)))
    head = heads.cut(inner)
    if head.activation and not _decides_alike(inner, head.model, before, x):
        head = heads.Head(inner, "", known=False)
    if head.activation:
        inner = head.model
        notes.append(
            f"the model ends in {with_article(head.activation)}: its logits are taken from "
            "before it"
        )
    whole = whole_shape(inner)
    batch = whole[0] if whole else None
    if batch is not None:
        notes.append(
            f"the model takes batches of {batch}: images are given to it {batch} at a time, "
            "which is slow"
        )
    after: list[Function] = [] if heads.is_graph(inner) and _single(inner) else [heads.pick_output]
    range_known = view is not None or declared_range(inner) is not None or is_integer(model)
    made = Classifier(
        inner, before, tuple(after), batch, notes=tuple(notes), range_known=range_known
    )
    return completed(made, head, x)


def _decides_alike(model: Model, cut: Model, before: tuple[Function, ...], x: np.ndarray) -> bool:
    """Whether a model without its last activation predicts the same classes."""
    pair = [Classifier(one, before, (heads.pick_output,)) for one in (model, cut)]
    try:
        own, other = (np.asarray(inference(one)(tf.constant(x[:_COMPARED]))) for one in pair)
    except (ValueError, TypeError, AttributeError, tf.errors.OpError):
        return True  # it does not take these images, which is reported elsewhere
    if own.shape != other.shape:
        return False
    # A saturated activation has ties, which the logits break.
    best = np.take_along_axis(own, np.argmax(other, axis=-1)[..., None], axis=-1)[..., 0]
    return bool(np.allclose(best, own.max(axis=-1), rtol=1e-2, atol=1e-3))


def _single(model: KerasGraph) -> bool:
    """Whether a graph of layers returns a tensor rather than a dict or list."""
    # A Sequential of Keras 3 has an `output` only after it was called on a tensor.
    graph: Any = getattr(model, "_functional", None) or model
    return not isinstance(graph.output, (dict, list, tuple))


def as_graph(made: Classifier, shape: tuple[int, ...]) -> KerasGraph | None:
    """A classifier as one flat tf_keras graph of [0, 1] images -> logits; None if impossible.

    Args:
      made: from `as_classifier`.
      shape: (H, W, C) of the images.
    """
    base = made.twin or made.inner
    if not heads.is_graph(base) or heads.library_of(base).__name__ != "tf_keras":
        return None
    if made.plain:
        return base
    if made.batch is not None:
        return None
    image = keras.Input(shape, name="image")
    try:
        whole = keras.Model(image, made.around(lambda x: base(x))(image), name=base.name)
    except (ValueError, TypeError, AttributeError):
        return None
    return twin(whole)
