"""Attacks that trade the distance against misclassification, and search for the weight.

The common part of Carlini and Wagner's attack and EAD: each example has its own weight, makes
its searches at its own pace, and is done after the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from tfrobust.attacks.losses import margin
from tfrobust.attacks.minimal import MinimalNorm, require, require_positive
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

# A cost that fell by less than this share since the last check has converged.
_RESTS = 0.9999
_LOOKS = 10


class Search(NamedTuple):
    """The state of each example's search for the weight; all [M].

    Attributes:
      weight: of misclassification, float32.
      low: the largest weight that failed, initially 0.
      high: the smallest weight that succeeded, initially infinite.
      done: steps of the current search, int32.
      searches: finished searches, int32.
      crossed: whether the current search found anything adversarial, bool.
      cost: at the last check, float32.
    """

    weight: Tensor
    low: Tensor
    high: Tensor
    done: Tensor
    searches: Tensor
    crossed: Tensor
    cost: Tensor


@dataclass(frozen=True, kw_only=True)
class TradeOff(MinimalNorm):
    """Minimises size + weight * max(confidence - margin, 0) for several weights.

    The weight is raised tenfold until it succeeds, and bisected from then on. An example whose
    cost has converged on the right side of the boundary starts its next search early; beyond the
    boundary the cost oscillates while the distance still falls.

    Attributes:
      steps: maximum gradient steps of each search.
      searches: number of weights to try.
      initial: initial weight.
      confidence: target margin, 0 or more.
      learning_rate: size of the steps.
    """

    # The size of the perturbation is traded against its goal.
    whole_ball: ClassVar[bool] = False

    steps: int = 1000
    searches: int = 9
    initial: float = 1e-3
    confidence: float = 0.0
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 1, "searches")
        require(self, 0, "confidence")
        require_positive(self, "initial", "learning_rate")

    @property
    def gradient_evaluations(self) -> int:
        """Maximum number of gradients per example."""
        return self.steps * self.searches

    @property
    def _most_steps(self) -> int:
        return self.steps * self.searches

    def _first(self, y: Tensor) -> Search:
        """The search before its first step."""
        zero, nothing = tf.zeros(tf.shape(y)), tf.zeros_like(y, tf.int32)
        far = zero + float("inf")
        crossed = tf.zeros_like(y, tf.bool)
        return Search(zero + self.initial, zero, far, nothing, nothing, crossed, far)

    def _penalty(self, logits: Tensor, y: Tensor, search: Search) -> tuple[Tensor, Tensor]:
        """weight * max(confidence - margin, 0), and the factor on the margin's gradient."""
        missing = self.confidence - margin(logits, y)
        pull = tf.where(missing > 0, search.weight, 0.0)
        return pull * missing, pull

    def _advance(self, search: Search, wrong: Tensor, cost: Tensor) -> tuple[Search, Tensor]:
        """The search after a step, and which examples start the next search, bool [M].

        Args:
          search: before the step.
          wrong: whether the step's image was adversarial, bool [M].
          cost: of that image, float32 [M].
        """
        done, crossed = search.done + 1, search.crossed | wrong
        looks = tf.equal(done % max(self.steps // _LOOKS, 1), 0)
        rests = looks & (cost > _RESTS * search.cost) & ~crossed
        ended = rests | (done >= self.steps)
        high = tf.where(ended & crossed, tf.minimum(search.high, search.weight), search.high)
        low = tf.where(ended & ~crossed, tf.maximum(search.low, search.weight), search.low)
        bracketed = tf.math.is_finite(high)
        middle = 0.5 * (low + tf.where(bracketed, high, low))
        following = tf.where(bracketed, middle, 10.0 * search.weight)
        seen = tf.where(looks, cost, search.cost)
        return Search(
            weight=tf.where(ended, following, search.weight),
            low=low, high=high,
            done=tf.where(ended, 0, done),
            searches=search.searches + tf.cast(ended, tf.int32),
            crossed=crossed & ~ended,
            cost=tf.where(ended, float("inf"), seen),
        ), ended  # fmt: skip
