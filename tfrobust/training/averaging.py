"""Averages of the weights over the steps of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfrobust.models.heads import raw
from tfrobust.runtime import tf
from tfrobust.typing import Tensor


class Averages:
    """Exponential moving averages of a model's weights and BatchNorm statistics.

    Each step moves an average by (1 - d) of its distance to the weight, where d is
    min(decay, (1 + t) / (10 + t)) after t steps, so that the random initial weights are soon
    forgotten. Polyak and Juditsky (1992), https://doi.org/10.1137/0330046; in adversarial
    training Gowal et al. (2020), https://arxiv.org/abs/2010.03593.

    Args:
      model: any built Keras model; the averages start at its current weights.
      decay: in (0, 1).
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._decay = decay
        self._weights = [raw(v) for v in model.weights if tf.as_dtype(v.dtype).is_floating]
        # Under a strategy each replica keeps its own average, which needs no communication.
        self.variables = [
            tf.Variable(
                v.read_value(), trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN,
            )
            for v in self._weights
        ]  # fmt: skip

    def update(self, step: Tensor) -> None:
        """Updates the averages; `step` is the number of steps done, int scalar."""
        t = tf.cast(step, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + t) / (10.0 + t))
        for weight, average in zip(self._weights, self.variables, strict=True):
            average.assign_add(tf.cast(share, average.dtype) * (weight - average))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the averages as its weights."""
        before = [weight.read_value() for weight in self._weights]
        self.apply()
        try:
            yield
        finally:
            for weight, value in zip(self._weights, before, strict=True):
                weight.assign(value)

    def apply(self) -> None:
        """Makes the averages the model's weights."""
        for weight, average in zip(self._weights, self.variables, strict=True):
            weight.assign(average)

    def restart(self) -> None:
        """Restarts the averages at the model's current weights."""
        for weight, average in zip(self._weights, self.variables, strict=True):
            average.assign(weight)
