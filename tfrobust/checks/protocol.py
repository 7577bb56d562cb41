"""What a check looks at: an evaluation, a sample of its images, and the kind of its attacks."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tfrobust.attacks.results import Outcome
from tfrobust.data.types import ImageSet
from tfrobust.models.classifier import Classifier
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Function

#: The most images that a check attacks, so that its cost does not grow with the data.
SAMPLE = 64


class Evaluation(Protocol):
    """A model and images whose clean accuracy is measured; an `Evaluator` is one."""

    @property
    def data(self) -> ImageSet:
        """The images."""

    @property
    def classifier(self) -> Classifier:
        """The model."""

    @property
    def logits(self) -> Function:
        """The model as a function of images float32 [B, H, W, C], in inference mode."""

    @property
    def clean(self) -> Outcome:
        """The model's predictions without attack."""

    @property
    def seed(self) -> int:
        """The seed of random starts and samples."""

    def gradient_at(self, index: np.ndarray, loss: str) -> np.ndarray:
        """The input gradient of a loss at clean images, float32 [M, H, W, C]."""

    def broken(
        self, attack: Attack, threat_model: ThreatModel, index: np.ndarray, run: int = 0
    ) -> np.ndarray:
        """Which of the images one run of an attack breaks, bool [M]."""


def sample_rows(index: np.ndarray, seed: int) -> np.ndarray:
    """At most `SAMPLE` of `index` at random, because splits are ordered by class.

    Args:
      index: int [M].
      seed: the same seed gives the same sample.
    """
    if len(index) <= SAMPLE:
        return index
    return np.sort(np.random.default_rng(seed).choice(index, SAMPLE, replace=False))


def is_iterative(attack: Attack) -> bool:
    """Whether it searches the whole ball by gradient, in more than one step.

    An attack that trades the size of the noise against its goal, or that moves a few pixels of
    its own choice, does not look for the worst case in the ball.
    """
    return getattr(attack, "steps", 1) > 1 and getattr(attack, "whole_ball", True)
