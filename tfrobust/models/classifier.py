"""A classifier, whoever made it: images in [0, 1] in, logits out.

What a model wants instead (0..255, normalised pixels, one channel, flat vectors, batches of
one size) and what it gives instead (softmax, sigmoids, a dict) is settled here, once, and told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models import heads
from tfrobust.models.inference import inference
from tfrobust.models.pixel_range import declared_range
from tfrobust.models.twin import needs_twin, twin
from tfrobust.models.views import InputView
from tfrobust.runtime import keras, tf
from tfrobust.typing import Array, Function, Model, Tensor

Shape = tuple[int | None, ...]

# Images that a model is probed with, besides noise and black and white ones.
_PROBED = 32


@dataclass(frozen=True)
class Classifier:
    """A model with what stands between it and [0, 1] images on the one side, logits on the other.

    Attributes:
      inner: a Keras model or any callable.
      before: applied to images float32 [B, H, W, C] in [0, 1], in order.
      after: applied to what the model returns, in order; the last gives logits [B, K].
      batch: the only batch size that the model takes, None where it takes any.
      classes: K.
      notes: what was found out and done, a sentence each, for the report.
      twin: the same function as `inner` as a flat graph of tf_keras, which attacks see and
        explainers take apart; None where there is none, or `inner` is one itself.
      range_known: whether its range of pixels is known, from the user or its first layers.
      independent: whether its classes have a sigmoid each, and no softmax over all.

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
    twin: Any = None
    range_known: bool = False
    independent: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [B, H, W, C] in [0, 1] -> float32 logits [B, K], in inference mode."""
        return inference(self)(x)

    @property
    def has_gradient(self) -> bool:
        """Whether gradients pass through it, which they do not where it runs outside."""
        return bool(getattr(self.inner, "has_gradient", True))

    @property
    def plain(self) -> bool:
        """Whether the inner model itself takes [0, 1] images and returns logits."""
        return not self.before and not self.after and self.batch is None

    def probabilities(self, logits: Tensor) -> Tensor:
        """What the model itself says of logits [B, K], float32 [B, K]."""
        return tf.sigmoid(logits) if self.independent else tf.nn.softmax(logits)

    def around(self, outputs: Function) -> Function:
        """Images -> logits, where `outputs` is what the inner model returns."""
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
    """A model of one batch size on any number of images: the last batch is filled up."""

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


def input_shape(model: Any) -> Shape | None:
    """(H, W, C) of the images that a model takes, None in it for any; None where not known."""
    shape = _whole_shape(model)
    if shape is None or len(shape) not in (3, 4):
        return None
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def _whole_shape(model: Any) -> Shape | None:
    """The shape of a model's one input, batch first."""
    if isinstance(model, Classifier):
        return _whole_shape(model.inner)
    if getattr(model, "batch_shape", None) is not None:  # a SavedModel, another file, an address
        return tuple(model.batch_shape)
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    if len(inputs) == 1 and getattr(inputs[0], "shape", None) is not None:
        return tuple(inputs[0].shape)
    return None


def as_classifier(model: Model, x: Array, view: InputView | None = None) -> Classifier:
    """Any model as a `Classifier`, tried on images.

    A last softmax, sigmoid or tanh is cut off where the model is a graph of layers, and
    inverted elsewhere. One output becomes two classes. A first Rescaling layer that can only
    be meant for pixels in 0..255 is given them.

    Args:
      model: a Keras model (tf_keras or Keras 3), what `load_any` returns, any callable, or
        already a `Classifier`, which is returned as it is.
      x: some of the images, float32 [N, H, W, C] in [0, 1].
      view: what the model takes for pixels; None finds out, or else [0, 1].

    Raises:
      TFRobustError: it does not take these images, or what it returns is not one row of
        finite outputs for each.

    Examples:
      >>> classifier = tr.as_classifier(model, x)
      >>> classifier.classes
      10
    """
    if isinstance(model, Classifier):
        return model
    _one_input(model)
    refuse_channels_first(model)
    notes: list[str] = []
    inner = _of_floats(model, notes)
    before = tuple(_before(inner, x.shape[1:], view, notes, integer=is_integer(model)))
    head = heads.cut(inner)
    if head.activation and not _decides_alike(inner, head.model, before, x):
        head = heads.Head(inner, "", known=False)
    if head.activation:
        inner = head.model
        notes.append(
            f"the model ends in {_article(head.activation)}: its logits are taken from before it"
        )
    whole = _whole_shape(inner)
    batch = whole[0] if whole else None
    if batch is not None:
        notes.append(
            f"the model takes batches of {batch}: images are shown to it {batch} at a "
            "time, which is slow"
        )
    after: list[Function] = [] if heads.is_graph(inner) and _single(inner) else [heads.pick_output]
    range_known = view is not None or declared_range(inner) is not None or is_integer(model)
    made = Classifier(
        inner, before, tuple(after), batch, notes=tuple(notes), range_known=range_known
    )
    return _settled(made, head, x, model)


def _decides_alike(model: Any, cut: Any, before: tuple[Function, ...], x: np.ndarray) -> bool:
    """Whether a model that was cut before its last activation takes images for the same."""
    pair = [Classifier(one, before, (heads.pick_output,)) for one in (model, cut)]
    try:
        own, other = (np.asarray(inference(one)(tf.constant(x[:_PROBED]))) for one in pair)
    except (ValueError, TypeError, AttributeError, tf.errors.OpError):
        return True  # it takes no such images at all: that is told elsewhere
    if own.shape != other.shape:
        return False
    # Where it is sure of itself an activation has ties, which the logits break.
    best = np.take_along_axis(own, np.argmax(other, axis=-1)[..., None], axis=-1)[..., 0]
    return bool(np.allclose(best, own.max(axis=-1), rtol=1e-2, atol=1e-3))


def _single(model: Any) -> bool:
    """Whether a graph of layers returns a tensor rather than a dict or list."""
    # A Sequential of Keras 3 has an output of its own only where it was called on a tensor.
    graph = getattr(model, "_functional", None) or model
    return not isinstance(graph.output, (dict, list, tuple))


def _article(activation: str) -> str:
    return f"{'an' if activation[0] in 'aeiou' else 'a'} {activation}"


def _settled(made: Classifier, head: heads.Head, x: np.ndarray, model: Any) -> Classifier:
    """The classifier with what only its outputs can tell: their range, and how many they are."""
    probe = _probe(x) if not head.known else x[:_PROBED].astype(np.float32)
    raw = _tried(made, probe)
    after, notes = [*made.after, *_one_row_each(raw, len(probe))], list(made.notes)
    outputs = raw.reshape(len(probe), -1)
    if not np.isfinite(outputs[: min(len(x), _PROBED)]).all():
        raise TFRobustError(
            "The model returns NaN or infinity on clean images: expected finite logits; "
            "check its weights and that it takes images in [0, 1]."
        )
    if head.activation == heads.SOFTMAX and outputs.shape[1] == 1:
        raise TFRobustError(
            "The model ends in a softmax over one output, which is 1 whatever the image: expected "
            "a sigmoid, or as many outputs as classes."
        )
    finite = outputs[np.isfinite(outputs).all(axis=1)]
    activation = _activation(made, head, finite, probe)
    if activation:
        after.append(heads.inverse(activation))
        notes.append(
            f"the model's outputs are those of {_article(activation)}, and what lies "
            "before it is not seen: they are inverted"
        )
    classes = outputs.shape[1]
    if classes == 1:
        after.append(heads.as_two_classes)
        classes = 2
        notes.append("the model has one output: it is the logit of class 1 of two classes")
    notes += getattr(made.inner, "notes", ())
    ended = head.activation or activation
    found = dataclasses.replace(
        made,
        after=tuple(after),
        classes=classes,
        notes=tuple(notes),
        independent=ended == heads.SIGMOID and outputs.shape[1] > 1,
    )
    return dataclasses.replace(found, twin=_twin(found, probe))


def _activation(made: Classifier, head: heads.Head, outputs: np.ndarray, x: np.ndarray) -> str:
    """What the model's outputs come from, as it says or as they look like; '' for logits."""
    told: str | None = "" if head.known else getattr(made.inner, "activation", None)
    # A layer of Keras has an attribute of that name, a function.
    if isinstance(told, str):
        return told
    found = heads.bounded_by(outputs)
    return "" if found and found != heads.SOFTMAX and _is_linear(made, x) else found


def _twin(made: Classifier, x: np.ndarray) -> Any:
    """The flat tf_keras graph of the inner model, where it returns the same."""
    if made.batch is not None or not needs_twin(made.inner):
        return None
    found = twin(made.inner)
    if found is None:
        return None
    own, other = (_tried(dataclasses.replace(made, inner=one), x) for one in (made.inner, found))
    fits = np.allclose(own, other, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(own).max())))
    return found if fits else None


def _is_linear(made: Classifier, x: np.ndarray) -> bool:
    """Whether the outputs are linear in the image, which those of an activation are not."""
    other = x[::-1]
    ends = (_tried(made, one) for one in (x, other))
    middle = _tried(made, (x + other) / 2)
    return bool(np.allclose(middle, sum(ends) / 2, atol=1e-4))


def _probe(x: np.ndarray) -> np.ndarray:
    """Images that drive a model to its extremes: clean, of high contrast, noise, black, white."""
    clean = x[:_PROBED].astype(np.float32)
    rng = np.random.default_rng(0)
    shape = (8, *x.shape[1:])
    uniform = rng.uniform(size=shape).astype(np.float32)
    coarse = (rng.uniform(size=shape) > 0.5).astype(np.float32)
    contrast = np.clip((clean - 0.5) * 4 + 0.5, 0, 1)
    plain = [np.full((1, *x.shape[1:]), value, np.float32) for value in (0, 1)]
    return np.concatenate([clean, contrast, 1 - clean, uniform, coarse, *plain])


def as_graph(made: Classifier, shape: tuple[int, ...]) -> Any:
    """A classifier as one flat tf_keras graph of [0, 1] images -> logits; None where it is none.

    Args:
      made: as `as_classifier` returns it.
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


def _tried(made: Classifier, x: np.ndarray) -> np.ndarray:
    """What the model returns for images, float32 [N, M].

    Raises:
      TFRobustError: it does not take them, or returns something else.
    """
    try:
        found = inference(made)(tf.constant(x))
    except TFRobustError:
        raise
    # A model may raise whatever it likes; a tf_keras layer raises ValueError.
    except (ValueError, TypeError, AttributeError, tf.errors.OpError) as error:
        raise TFRobustError(_not_taken(made, x.shape[1:], error)) from error
    return np.asarray(found, np.float32)


def _one_row_each(found: np.ndarray, count: int) -> list[Function]:
    """What makes rows [B, K] of outputs for `count` images.

    Raises:
      TFRobustError: they are more than one row for each.
    """
    if found.ndim == 2 and len(found) == count:
        return []
    if found.shape == (count,):
        return [lambda z: z[:, None]]
    if found.ndim == 4 and found.shape[:3] == (count, 1, 1):
        return [lambda z: z[:, 0, 0]]
    raise TFRobustError(
        f"The model returns {list(found.shape)} for {count} images, expected logits of shape "
        "[B, K], one for each class."
    )


def _not_taken(made: Classifier, shape: tuple[int, ...], error: Exception) -> str:
    wanted = input_shape(made)
    size = " x ".join(map(str, shape))
    if wanted and wanted[2] is not None and wanted[2] != shape[2]:
        return (
            f"The model takes images of {wanted[2]} channels, these have {shape[2]}: give it "
            "images of its own kind."
        )
    if wanted and None not in wanted and tuple(wanted) != tuple(shape):
        return (
            f"The model does not take images of {size}, but of {' x '.join(map(str, wanted))}: "
            "give it images of its own size, or have them resized by --image-size."
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Keras ends its messages with a list of arguments, which says nothing.
    told = [line for line in lines if not line.startswith(("•", "Arguments received", "Call arg"))]
    return (
        f"The model does not take images of {size} "
        f"({(told or lines or [type(error).__name__])[-1]}): give it images of its own size, or "
        "have them resized by --image-size."
    )


def refuse_channels_first(model: Any) -> None:
    """Refuses a model of images [C, H, W].

    Raises:
      TFRobustError: it is one.
    """
    shape = input_shape(model)
    if shape and None not in shape and shape[0] in (1, 3) and (shape[2] or 0) > 4:
        raise TFRobustError(
            f"The model takes images {' x '.join(map(str, shape))}, channels first: expected "
            "[H, W, C]; put a keras.layers.Permute((3, 1, 2)) in front of it."
        )


def _one_input(model: Any) -> None:
    """Refuses a graph of several inputs."""
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    if len(inputs) > 1:
        names = ", ".join(str(getattr(one, "name", "?")) for one in inputs)
        raise TFRobustError(
            f"The model takes {len(inputs)} inputs at once ({names}), expected images alone: make "
            "a model of one input, with the others fixed."
        )


def is_integer(model: Any) -> bool:
    """Whether a graph's input is of whole numbers."""
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    return bool(inputs) and "int" in str(getattr(inputs[0], "dtype", ""))


def _of_floats(model: Any, notes: list[str]) -> Any:
    """A graph whose input is of integers, as one of floats, which gradients pass through."""
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    if not is_integer(model):
        return model
    library = heads.library_of(model)
    image = (
        library.Input(batch_shape=inputs[0].shape, dtype="float32")
        if hasattr(library, "ops")
        else library.Input(inputs[0].shape[1:], dtype="float32")
    )
    copy = library.models.clone_model(model, input_tensors=image)
    copy.set_weights(model.get_weights())
    notes.append(
        "the model's input is of integers: it is given the same values as floats, for "
        "gradients to pass"
    )
    return copy


def _before(
    model: Any,
    shape: tuple[int, ...],
    view: InputView | None,
    notes: list[str],
    *,
    integer: bool = False,
) -> Iterator[Function]:
    """What is done to images before the model sees them."""
    found = view or declared_range(model) or (InputView((0.0, 255.0)) if integer else InputView())
    if not found.is_plain:
        yield found.function(shape[2])
        by_type = integer or getattr(model, "pixel_range", None)
        how = "as given" if view else "by its input's type" if by_type else "by its first layers"
        notes.append(f"the model takes pixels of {found} ({how}); eps is in [0, 1] all the same")
    whole = _whole_shape(model)
    if whole is not None and len(whole) == 3 and shape[2] == 1:
        yield lambda x: x[..., 0]
        notes.append("the model takes images [H, W] without an axis for channels")
    if whole is not None and len(whole) == 2 and whole[1] in (None, int(np.prod(shape))):
        yield lambda x: tf.reshape(x, [-1, int(np.prod(shape))])
        notes.append("the model takes flat vectors: images are flattened row by row")
