"""What kind of object a model is: a `Classifier`, or a graph of layers of either Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np

from tfrobust.typing import Tensor

if TYPE_CHECKING:
    from tfrobust.models.classifier import Classifier


class KerasGraph(Protocol):
    """A graph of layers, functional or Sequential, of tf_keras or Keras 3."""

    name: str
    layers: Sequence[Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]

    def __call__(self, x: Tensor, /, *, training: bool = False) -> Tensor:
        """The outputs for a batch of inputs."""

    def get_weights(self) -> list[np.ndarray]:
        """The values of all weights."""

    def set_weights(self, weights: list[np.ndarray], /) -> None:
        """Sets the values of all weights."""


def is_adapted(model: object) -> TypeGuard[Classifier]:
    """Whether a model is a `Classifier`, without importing it."""
    return hasattr(model, "around")
