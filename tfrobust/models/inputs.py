"""The images that a model takes, and the steps that make them of images in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models import heads
from tfrobust.models.kinds import KerasGraph, is_adapted
from tfrobust.models.pixel_range import declared_range
from tfrobust.models.views import InputView
from tfrobust.runtime import tf
from tfrobust.typing import Function, Model

Shape = tuple[int | None, ...]


def input_shape(model: Model) -> Shape | None:
    """(H, W, C) of the images that a model takes, None for any size; None if unknown."""
    shape = whole_shape(model)
    if shape is None or len(shape) not in (3, 4):
        return None
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def whole_shape(model: Model) -> Shape | None:
    """The shape of a model's one input, with the batch axis; None if unknown."""
    if is_adapted(model):
        return whole_shape(model.inner)
    declared = getattr(model, "batch_shape", None)  # of a SavedModel, another file, an address
    if declared is not None:
        return tuple(declared)
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    if len(inputs) == 1 and getattr(inputs[0], "shape", None) is not None:
        return tuple(inputs[0].shape)
    return None


def refuse_channels_first(model: Model) -> None:
    """Rejects a model of images [C, H, W].

    Raises:
      TFRobustError: it is one.
    """
    shape = input_shape(model)
    if shape and None not in shape and shape[0] in (1, 3) and (shape[2] or 0) > 4:
        raise TFRobustError(
            f"The model takes images {' x '.join(map(str, shape))}, channels first: expected "
            "[H, W, C]; put a keras.layers.Permute((3, 1, 2)) in front of it."
        )


def refuse_several_inputs(model: Model) -> None:
    """Rejects a graph of several inputs.

    Raises:
      TFRobustError: it is one.
    """
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    if len(inputs) > 1:
        names = ", ".join(str(getattr(one, "name", "?")) for one in inputs)
        raise TFRobustError(
            f"The model takes {len(inputs)} inputs at once ({names}), expected images alone: make "
            "a model of one input, with the others fixed."
        )


def is_integer(model: Model) -> bool:
    """Whether a graph's input has an integer type."""
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    return bool(inputs) and "int" in str(getattr(inputs[0], "dtype", ""))


def as_floats(model: Model, notes: list[str]) -> Model:
    """A graph with integer inputs as one with float inputs, for gradients to pass.

    Args:
      model: any; returned as it is unless it is such a graph.
      notes: takes a note of it.
    """
    inputs = heads.graph_ends(model)[0] if heads.is_keras(model) else []
    if not is_integer(model) or not heads.is_graph(model):
        return model
    library = heads.library_of(model)
    image = (
        library.Input(batch_shape=inputs[0].shape, dtype="float32")
        if hasattr(library, "ops")
        else library.Input(inputs[0].shape[1:], dtype="float32")
    )
    copy: Model = library.models.clone_model(model, input_tensors=image)
    cast(KerasGraph, copy).set_weights(model.get_weights())
    notes.append(
        "the model's input is of integers: it is given the same values as floats, for "
        "gradients to pass"
    )
    return copy


def steps_before(
    model: Model,
    shape: tuple[int, ...],
    view: InputView | None,
    notes: list[str],
    *,
    integer: bool = False,
) -> Iterator[Function]:
    """The functions that make a model's inputs of images, applied in order.

    Args:
      model: the model.
      shape: (H, W, C) of the images.
      view: the range of pixels that it takes; None finds out, or assumes [0, 1].
      notes: takes a note of each step.
      integer: whether its input had an integer type.
    """
    found = view or declared_range(model) or (InputView((0.0, 255.0)) if integer else InputView())
    if not found.is_plain:
        yield found.function(shape[2])
        by_type = integer or getattr(model, "pixel_range", None)
        how = "as given" if view else "by its input's type" if by_type else "by its first layers"
        notes.append(f"the model takes pixels of {found} ({how}); eps is in [0, 1] all the same")
    whole = whole_shape(model)
    if whole is not None and len(whole) == 3 and shape[2] == 1:
        yield lambda x: x[..., 0]
        notes.append("the model takes images [H, W] without an axis for channels")
    if whole is not None and len(whole) == 2 and whole[1] in (None, int(np.prod(shape))):
        yield lambda x: tf.reshape(x, [-1, int(np.prod(shape))])
        notes.append("the model takes flat vectors: images are flattened row by row")
