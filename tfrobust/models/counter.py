"""Counts the passes through a model."""

from __future__ import annotations

from tfrobust.models.inference import Function
from tfrobust.runtime import tf
from tfrobust.typing import Tensor


class Counter:
    """Counts the passes through a model: examples forward, and examples backward."""

    def __init__(self) -> None:
        # int64: 5,000 queries on a million images pass 2^31.
        self._forward, self._backward = (
            tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(2)
        )

    def wrap(self, model: Function) -> Function:
        """`model`, counted; inside and outside of a `tf.function`."""

        @tf.custom_gradient
        def counted(logits: Tensor) -> tuple[Tensor, Function]:
            def grad(upstream: Tensor) -> Tensor:
                self._backward.assign_add(tf.shape(upstream, out_type=tf.int64)[0])
                return upstream

            return tf.identity(logits), grad

        def forward(x: Tensor) -> Tensor:
            self._forward.assign_add(tf.shape(x, out_type=tf.int64)[0])
            return counted(model(x))

        return forward

    def total(self) -> tuple[int, int]:
        """(forward, backward) so far."""
        return int(self._forward.numpy()), int(self._backward.numpy())
