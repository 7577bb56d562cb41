"""How well a model's confidence matches its accuracy: calibration error and Brier score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from the truth, on one set of images.

    Attributes:
      error: the expected calibration error, in [0, 1]: the mean distance of accuracy from mean
        confidence over bins of confidence (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
      brier: the mean squared distance of the probabilities from the truth, in [0, 2]
        (Brier 1950). It is proper: only the true probabilities reach the minimum.
    """

    error: float
    brier: float

    @classmethod
    def of(cls, confidences: np.ndarray, correct: np.ndarray, squared: np.ndarray) -> Calibration:
        """The calibration of predictions.

        Args:
          confidences: the probability of the predicted class, float [N] in [0, 1].
          correct: whether it is the right one, bool [N].
          squared: from `brier_of`, float [N].
        """
        return cls(expected_calibration_error(confidences, correct), float(squared.mean()))

    @classmethod
    def mean(cls, several: Iterable[Calibration]) -> Calibration:
        """The mean of the calibrations on several sets of images, one or more."""
        errors, briers = zip(*((one.error, one.brier) for one in several), strict=True)
        return cls(float(np.mean(errors)), float(np.mean(briers)))

    def as_dict(self) -> dict[str, float]:
        """The JSON entry."""
        return {
            "expected_calibration_error": round(self.error, 6),
            "brier_score": round(self.brier, 6),
        }

    def __str__(self) -> str:
        return f"expected calibration error {self.error:.3f}, Brier score {self.brier:.3f}"


def expected_calibration_error(
    confidences: np.ndarray, correct: np.ndarray, bins: int = 15
) -> float:
    """The expected calibration error over bins of equal width.

    Args:
      confidences: the probability of the predicted class, float [N] in [0, 1].
      correct: whether it is the right one, bool [N].
      bins: of equal width over (0, 1], 1 or more.

    Raises:
      UsageError: no images, or fewer bins than 1.
    """
    if bins < 1 or not len(confidences):
        raise UsageError(f"Expected images and 1 bin or more, found {len(confidences)} and {bins}.")
    # A confidence on an edge belongs to the bin below it, as published.
    place = np.clip(np.ceil(np.asarray(confidences, np.float64) * bins).astype(int) - 1, 0, None)
    count = np.bincount(place, minlength=bins)
    gap = np.abs(
        np.bincount(place, weights=confidences, minlength=bins)
        - np.bincount(place, weights=np.asarray(correct, np.float64), minlength=bins)
    )
    return float(gap.sum() / count.sum())


def brier_of(logits: Tensor, y: Tensor) -> Tensor:
    """Each example's squared distance of its probabilities from the truth, float32 [B], in [0, 2].

    Args:
      logits: float32 [B, K]; where they are not finite the distance is 2, the largest.
      y: labels, int [B].
    """
    p = tf.nn.softmax(logits)
    truth = tf.one_hot(y, tf.shape(logits)[1])
    squared = tf.reduce_sum(tf.square(p - truth), axis=1)
    return tf.where(tf.math.is_finite(squared), squared, 2.0)
