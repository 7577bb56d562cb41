"""Losses that attacks maximise: logits [B, K] and labels int [B] -> one value each, [B].

Each grows as the prediction gets worse. The targeted losses grow as the prediction approaches
a target class.
"""

from __future__ import annotations

from tfrobust.runtime import tf
from tfrobust.typing import Tensor

_TINY = 1e-12


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p(y), float32 [B]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The largest wrong logit minus the right one, [B]; positive where misclassified.

    Carlini and Wagner (2017), https://arxiv.org/abs/1608.04644.
    """
    masked = tf.where(_is(logits, y), -float("inf"), logits)
    return tf.reduce_max(masked, axis=1) - _at(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The margin over the spread of the three largest logits, [B]: invariant to their scale.

    Croce and Hein (2020), https://arxiv.org/abs/2003.01690, equation 6. Needs 3 classes;
    the caller checks.
    """
    top = tf.math.top_k(logits, 3).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + _TINY)


def kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    """KL(p || q) of p = softmax(logits) from q = softmax(other), in nats, float32 [B].

    Not in `LOSSES`: it compares two predictions and takes no label.
    """
    log_p, log_q = tf.nn.log_softmax(logits), tf.nn.log_softmax(other)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=1)


def targeted_cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """log p(target), float32 [B]."""
    return -cross_entropy(logits, target)


def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The target's logit minus the right one's, [B]."""
    return _at(logits, target) - _at(logits, y)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The targeted margin over the spread of the four largest logits, [B].

    Croce and Hein (2020), equation 7. Needs 4 classes; the caller checks.
    """
    top = tf.math.top_k(logits, 4).values
    spread = top[:, 0] - 0.5 * (top[:, 2] + top[:, 3])
    return targeted_margin(logits, y, target) / (spread + _TINY)


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    # The gradient of a batched tf.gather is dozens of operations, traced for every attack.
    return tf.reduce_sum(tf.where(_is(logits, classes), logits, 0.0), axis=1)


def _is(logits: Tensor, classes: Tensor) -> Tensor:
    """One-hot classes, bool [B, K]."""
    return tf.one_hot(classes, tf.shape(logits)[1], on_value=True, off_value=False, dtype=tf.bool)


LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
TARGETED_LOSSES = {
    "cross_entropy": targeted_cross_entropy,
    "margin": targeted_margin,
    "dlr": targeted_dlr,
}
