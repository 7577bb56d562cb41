"""Which batches update BatchNorm's running statistics: one explicit policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfrobust.models.heads import raw


def batch_norm_layers(model: Any) -> list[Any]:
    """All BatchNormalization layers of a model of either Keras, including nested models."""
    return [layer for layer in model._flatten_layers() if _is_batch_norm(layer)]


def _is_batch_norm(layer: Any) -> bool:
    return any(cls.__name__ == "BatchNormalization" for cls in type(layer).__mro__)


class Statistics:
    """The running means and variances of a model's trainable BatchNorm layers."""

    def __init__(self, model: Any) -> None:
        layers = [layer for layer in batch_norm_layers(model) if layer.trainable]
        self._variables = [raw(v) for x in layers for v in (x.moving_mean, x.moving_variance)]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restores the statistics after a training pass inside the block.

        The pass still normalises by its own batch; only the running averages, which inference
        uses, are restored.
        """
        before = [variable.read_value() for variable in self._variables]
        yield
        for variable, value in zip(self._variables, before, strict=True):
            variable.assign(value)
