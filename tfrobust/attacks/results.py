"""What attacks leave of a set of images: outcomes per image, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrobust.chance import wilson
from tfrobust.threat_model import ThreatModel


@dataclass(frozen=True)
class Outcome:
    """Predictions of a model on one set of images, clean or attacked.

    Attributes:
      predictions: int [N], the top class.
      confidences: float [N], its softmax probability.
      correct: bool [N]; under attack False only where a verified success was found.
      in_top5: bool [N], the label is among the 5 largest logits.
    """

    predictions: np.ndarray
    confidences: np.ndarray
    correct: np.ndarray
    in_top5: np.ndarray


@dataclass(frozen=True)
class AttackResult:
    """One attack at one radius.

    Attributes:
      name: of the attack.
      threat_model: the ball.
      parameters: all hyper-parameters.
      outcome: per example, the worst case of this attack and those before it; images
        that are misclassified without attack stay as they are.
      attacked: how many images it was run on.
      gradient_evaluations: input gradients, over all examples.
      forward_evaluations: forward passes, those of the gradients among them.
      seconds: of wall-clock time.
      spared: images that count as robust without being attacked, because they withstood the
        same attacks in a larger ball.
    """

    name: str
    threat_model: ThreatModel
    parameters: dict[str, Any]
    outcome: Outcome
    attacked: int
    gradient_evaluations: int
    forward_evaluations: int
    seconds: float
    spared: int = 0

    @property
    def success_rate(self) -> float:
        """The share of the images it was run on that this attack broke."""
        broken = self.attacked + self.spared - int(self.outcome.correct.sum())
        return round(broken / self.attacked, 6) if self.attacked else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The JSON entry."""
        return {
            **accuracy_entry(self.outcome.correct, "accuracy"),
            "top5_accuracy": rate(self.outcome.in_top5),
            "eps": self.threat_model.eps,
            "parameters": self.parameters,
            "attacked": self.attacked,
            "spared": self.spared,
            "attack_success_rate": self.success_rate,
            "gradient_evaluations": self.gradient_evaluations,
            "forward_evaluations": self.forward_evaluations,
            "seconds": round(self.seconds, 3),
        }


def accuracy_entry(correct: np.ndarray, name: str) -> dict[str, Any]:
    """The accuracy under `name`, and its confidence interval under `name`_interval."""
    low, high = wilson(int(correct.sum()), len(correct))
    return {name: rate(correct), f"{name}_interval": [round(low, 4), round(high, 4)]}


def rate(values: np.ndarray) -> float:
    """The mean of bool [N], to six digits as JSON has it."""
    return round(float(values.mean()), 6)
