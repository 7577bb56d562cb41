"""The outputs of a model on images: its last activation, its number of classes, its twin."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models import heads
from tfrobust.models.inference import inference
from tfrobust.models.inputs import input_shape
from tfrobust.models.kinds import KerasGraph
from tfrobust.models.twin import needs_twin, twin
from tfrobust.runtime import tf
from tfrobust.typing import Function

if TYPE_CHECKING:
    from tfrobust.models.classifier import Classifier

# Images that a model is tried on, besides noise and black and white ones.
_TRIED = 32


def completed(made: Classifier, head: heads.Head, x: np.ndarray) -> Classifier:
    """The classifier with all that follows from its outputs: activation, classes and twin.

    Args:
      made: a classifier whose inputs are adapted.
      head: of its inner model.
      x: some of the images, float32 [N, H, W, C] in [0, 1].

    Raises:
      TFRobustError: it does not take these images, or its outputs are no logits.
    """
    probe = _extremes(x) if not head.known else x[:_TRIED].astype(np.float32)
    raw = _tried(made, probe)
    after, notes = [*made.after, *_one_row_each(raw, len(probe))], list(made.notes)
    outputs = raw.reshape(len(probe), -1)
    if not np.isfinite(outputs[: min(len(x), _TRIED)]).all():
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
            f"the model's outputs are those of {with_article(activation)}, and what lies "
            "before it is not accessible: they are inverted"
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


def with_article(activation: str) -> str:
    """'a softmax', 'an elu'."""
    return f"{'an' if activation[0] in 'aeiou' else 'a'} {activation}"


def _activation(made: Classifier, head: heads.Head, outputs: np.ndarray, x: np.ndarray) -> str:
    """The last activation, as the model declares it or as its outputs suggest; '' for logits."""
    declared: str | None = "" if head.known else getattr(made.inner, "activation", None)
    # A layer of Keras has an attribute of that name, a function.
    if isinstance(declared, str):
        return declared
    found = heads.bounded_by(outputs)
    return "" if found and found != heads.SOFTMAX and _is_linear(made, x) else found


def _twin(made: Classifier, x: np.ndarray) -> KerasGraph | None:
    """The flat tf_keras graph of the inner model, if it returns the same outputs."""
    if made.batch is not None or not needs_twin(made.inner):
        return None
    found = twin(made.inner)
    if found is None:
        return None
    own, other = (_tried(dataclasses.replace(made, inner=one), x) for one in (made.inner, found))
    fits = np.allclose(own, other, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(own).max())))
    return found if fits else None


def _is_linear(made: Classifier, x: np.ndarray) -> bool:
    """Whether the outputs are linear in the image, unlike those of an activation."""
    other = x[::-1]
    ends = (_tried(made, one) for one in (x, other))
    middle = _tried(made, (x + other) / 2)
    return bool(np.allclose(middle, sum(ends) / 2, atol=1e-4))


def _extremes(x: np.ndarray) -> np.ndarray:
    """Images on which outputs are extreme: clean, of high contrast, noise, black, white."""
    clean = x[:_TRIED].astype(np.float32)
    rng = np.random.default_rng(0)
    shape = (8, *x.shape[1:])
    uniform = rng.uniform(size=shape).astype(np.float32)
    coarse = (rng.uniform(size=shape) > 0.5).astype(np.float32)
    contrast = np.clip((clean - 0.5) * 4 + 0.5, 0, 1)
    plain = [np.full((1, *x.shape[1:]), value, np.float32) for value in (0, 1)]
    return np.concatenate([clean, contrast, 1 - clean, uniform, coarse, *plain])


def _tried(made: Classifier, x: np.ndarray) -> np.ndarray:
    """The outputs of the model for images, float32.

    Raises:
      TFRobustError: it does not take them.
    """
    try:
        found = inference(made)(tf.constant(x))
    except TFRobustError:
        raise
    # A tf_keras layer raises ValueError, models of users any of these.
    except (ValueError, TypeError, AttributeError, tf.errors.OpError) as error:
        raise TFRobustError(_not_taken(made, x.shape[1:], error)) from error
    return np.asarray(found, np.float32)


def _one_row_each(found: np.ndarray, count: int) -> list[Function]:
    """The functions that make rows [B, K] of outputs for `count` images.

    Raises:
      TFRobustError: they are not one row for each image.
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
    # Keras ends its messages with a list of arguments, which does not help.
    sentences = [
        line for line in lines if not line.startswith(("•", "Arguments received", "Call arg"))
    ]
    why = (sentences or lines or [type(error).__name__])[-1]
    return (
        f"The model does not take images of {size} ({why}): give it images of its own size, or "
        "have them resized by --image-size."
    )
