"""Adversarial weight perturbation: the gradient is taken at worst-case weights.

Wu et al. (2020), https://arxiv.org/abs/2004.05884. A flatter loss in the weights correlates
with a smaller gap between robust accuracy on training images and on new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tfrobust.distribution import assign_own
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

# Avoids a gradient of 0 at an offset of 0.
_TINY = 1e-20


def offsets(variables: Sequence[Any], grads: Sequence[Tensor], size: float) -> list[Tensor]:
    """The offset to worse weights: along the gradient, layer by layer.

    Args:
      variables: the weights w, one tensor per layer.
      grads: gradient of the loss by each; its scale does not matter.
      size: length of a layer's offset, relative to ||w||.

    Returns:
      size * ||w|| * g / ||g|| for each variable, like it.
    """
    return [
        (size * tf.norm(variable) / (tf.norm(grad) + _TINY)) * grad
        for variable, grad in zip(variables, grads, strict=True)
    ]


@contextmanager
def perturbed(variables: Sequence[Any], moves: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block each variable is moved; after it, exactly restored.

    With several replicas each moves its own copy: by the same offset, if the moves are the same.
    """
    before = [variable.read_value() for variable in variables]
    for variable, value, move in zip(variables, before, moves, strict=True):
        assign_own(variable, value + move)
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            assign_own(variable, value)
