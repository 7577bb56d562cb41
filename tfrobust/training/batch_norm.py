"""Which batches move BatchNorm's running statistics: one explicit policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfrobust.models.heads import raw


def batch_norm_layers(model: Any) -> list[Any]:
    """All BatchNormalization layers of a model of either Keras, those of models inside too."""
    return [layer for layer in model._flatten_layers() if _is_batch_norm(layer)]


def _is_batch_norm(layer: Any) -> bool:
    return any(cls.__name__ == "BatchNormalization" for cls in type(layer).__mro__)


class Statistics:
    """The running means and variances of a model's trainable BatchNorm layers."""

    def __init__(self, model: Any) -> None:
        layers = [layer for layer in batch_norm_layers(model) if layer.trainable]
        self._variables = [raw(v) for x in layers for v in (x.moving_mean, x.moving_variance)]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Undoes what a training pass inside the block does to the statistics.

        The pass still normalises by its own batch; only the running averages, which
        inference uses, are put back.
        """
        before = [variable.read_value() for variable in self._variables]
        yield
        for variable, value in zip(self._variables, before, strict=True):
            variable.assign(value)
