"""Chance: the accuracy of guessing, significance above it, and confidence intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# One in a hundred models that guess may pass as having learnt.
_LEVEL = 0.01


def majority_rate(labels: ArrayLike) -> float:
    """The accuracy of always predicting the most frequent class, in [0, 1]; 0 without labels."""
    counts = _counts(labels)
    return max(counts) / sum(counts) if counts else 0.0


def guessing_loss(labels: ArrayLike) -> float:
    """The cross-entropy of the best constant prediction: the entropy of the labels, in nats."""
    counts = _counts(labels)
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts)


def above_chance(correct: int, total: int, rate: float) -> bool:
    """Whether `correct` of `total` is significantly more than guessing at `rate`.

    A one-sided binomial test at the level of 0.01.

    Args:
      correct: images classified correctly.
      total: images; 0 is never significant.
      rate: accuracy of guessing, in [0, 1].
    """
    from scipy.stats import binom

    return total > 0 and bool(binom.sf(correct - 1, total, min(rate, 1.0)) < _LEVEL)


def wilson(successes: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion (Wilson, 1927)."""
    from scipy.stats import binomtest

    if total == 0:
        return 0.0, 1.0
    low, high = binomtest(successes, total).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def _counts(labels: ArrayLike) -> list[int]:
    import numpy as np

    counts = np.bincount(np.asarray(labels, dtype=np.int64))
    return [int(count) for count in counts if count]
