"""What an evaluation does with a batch: how images are cut into them, and how they are judged."""

from __future__ import annotations

import numpy as np

from tfrobust.attacks.active_rows import is_finite
from tfrobust.runtime import tf
from tfrobust.typing import Tensor


def even_batches(index: np.ndarray, most: int) -> list[np.ndarray]:
    """`index` in batches of about the same size, `most` or less, on any machine the same.

    Of 64 and more an even number: two are worked on at once, and neither is to wait.
    """
    count = -(-len(index) // most)
    count += count % 2 if len(index) >= 64 else 0
    return np.array_split(index, count) if count else []


def as_pixels(x: Tensor) -> Tensor:
    """Images as the data holds them (uint8, or float32 in [0, 1]) as float32 in [0, 1]."""
    return tf.cast(x, tf.float32) / 255 if x.dtype == tf.uint8 else x


def judge_logits(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predictions int32 [B], confidences float32 [B], whether right and in the top 5, bool [B].

    Where logits are not finite the example is wrong, with a confidence of 0, which no finite
    logits have.
    """
    predictions = tf.argmax(logits, axis=1, output_type=tf.int32)
    finite = is_finite(logits)
    confidences = tf.where(finite, tf.reduce_max(tf.nn.softmax(logits), axis=1), 0.0)
    k = tf.minimum(5, tf.shape(logits)[1])
    in_top5 = tf.math.in_top_k(y, logits, k) & finite
    return predictions, confidences, (predictions == y) & finite, in_top5
