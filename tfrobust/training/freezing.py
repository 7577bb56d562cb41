"""Which layers of a model train, in either Keras, including nested models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfrobust.models.heads import library_of


def layers_in_order(model: Any) -> list[Any]:
    """All layers of a model in the order they were added, a nested model before its layers.

    Keras 3 itself lists the layers of a nested model from its end.
    """
    if library_of(model).__name__ == "tf_keras":
        return list(model._flatten_layers(include_self=False))
    found: list[Any] = []
    for layer in model._flatten_layers(include_self=False, recursive=False):
        found += [one for one in (layer, *layers_in_order(layer)) if one not in found]
    return found


def unfreeze(model: Any) -> None:
    """Makes every layer trainable, including those frozen with a nested model."""
    # One by one: if the value does not change, Keras 3 does not pass it to nested layers.
    for layer in (model, *layers_in_order(model)):
        layer.trainable = True


@contextmanager
def unfrozen(model: Any) -> Iterator[None]:
    """Inside the block every layer trains; after it, those that did before."""
    layers = [model, *layers_in_order(model)]
    flags = [layer.trainable for layer in layers]
    unfreeze(model)
    try:
        yield
    finally:
        # From the outside in: freezing a model freezes what is in it.
        for layer, trainable in zip(layers, flags, strict=True):
            layer.trainable = trainable
