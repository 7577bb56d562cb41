"""Losses that attacks climb: logits [B, K] and labels int [B] -> one value each, [B]."""

from __future__ import annotations

from typing import Any

from tfrobust.runtime import tf

Tensor = Any


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p(y), float32 [B]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The best wrong logit minus the right one, [B]; above 0 where misclassified.

    Carlini and Wagner (2017), https://arxiv.org/abs/1608.04644.
    """
    right = tf.gather(logits, y, batch_dims=1)
    own = tf.one_hot(y, tf.shape(logits)[1], on_value=True, off_value=False, dtype=tf.bool)
    masked = tf.where(own, -float("inf"), logits)
    return tf.reduce_max(masked, axis=1) - right


LOSSES = {"cross_entropy": cross_entropy, "margin": margin}
