"""Batches of an evaluation: how images are divided into them, and the outcome of logits."""

from __future__ import annotations

import numpy as np

from tfrobust.attacks.active_rows import is_finite
from tfrobust.evaluation.calibration import brier_of
from tfrobust.runtime import tf
from tfrobust.typing import Tensor


def even_batches(index: np.ndarray, most: int) -> list[np.ndarray]:
    """`index` in batches of about the same size, at most `most`, the same on any machine.

    From 64 images on their number is even: two are worked on at once, and neither should wait.
    """
    count = -(-len(index) // most)
    count += count % 2 if len(index) >= 64 else 0
    return np.array_split(index, count) if count else []


def judge_logits(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predictions int32 [B], confidences float32 [B], whether correct and in the top 5, bool [B].

    An example whose logits are not finite is misclassified, with a confidence of 0, which finite
    logits cannot have.
    """
    predictions = tf.argmax(logits, axis=1, output_type=tf.int32)
    finite = is_finite(logits)
    confidences = tf.where(finite, tf.reduce_max(tf.nn.softmax(logits), axis=1), 0.0)
    k = tf.minimum(5, tf.shape(logits)[1])
    in_top5 = tf.math.in_top_k(y, logits, k) & finite
    return predictions, confidences, (predictions == y) & finite, in_top5


def judge_confidence(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Confidences float32 [B], whether correct, bool [B], and Brier scores, float32 [B]."""
    _, confidences, correct, _ = judge_logits(logits, y)
    return confidences, correct, brier_of(logits, y)
