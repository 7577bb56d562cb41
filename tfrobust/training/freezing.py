"""Which layers of a model train, in either Keras, however models are nested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfrobust.models.heads import library_of


def layers_in_order(model: Any) -> list[Any]:
    """All layers inside a model as they were added, a model inside before its own layers.

    Keras 3 itself lists the layers of a model inside from its end.
    """
    if library_of(model).__name__ == "tf_keras":
        return list(model._flatten_layers(include_self=False))
    found: list[Any] = []
    for layer in model._flatten_layers(include_self=False, recursive=False):
        found += [one for one in (layer, *layers_in_order(layer)) if one not in found]
    return found


def unfreeze(model: Any) -> None:
    """Lets every layer train, those too that were frozen with a model inside."""
    # One by one: set to what it was, Keras 3 takes nothing down to the layers inside.
    for layer in (model, *layers_in_order(model)):
        layer.trainable = True


@contextmanager
def unfrozen(model: Any) -> Iterator[None]:
    """Inside the block every layer trains; after it those that did before."""
    layers = [model, *layers_in_order(model)]
    flags = [layer.trainable for layer in layers]
    unfreeze(model)
    try:
        yield
    finally:
        # From the outside in: a model that is frozen freezes what is in it.
        for layer, trainable in zip(layers, flags, strict=True):
            layer.trainable = trainable
