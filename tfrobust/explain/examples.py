"""Chooses the images to explain: ones on which the attack can change something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrobust.attacks.gradient import PGD
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.threat_model import ThreatModel

# Images that are attacked to find a few of each kind.
_TRIED = 48


@dataclass(frozen=True)
class ExampleImages:
    """Images and their PGD-20 adversarial images for each model.

    Attributes:
      x: float32 [N, H, W, C] in [0, 1].
      labels: int [N].
      adversarial: model's name -> float32 [N, H, W, C].
      attacked: model's name -> bool [N], the images it classifies correctly without an attack:
        only these are attacked.
      right: number of images that every model classifies correctly.
    """

    x: np.ndarray
    labels: np.ndarray
    adversarial: dict[str, np.ndarray]
    attacked: dict[str, np.ndarray]
    right: int


def choose(
    models: Mapping[str, Any], data: ImageSet, threat_model: ThreatModel, count: int, *,
    seed: int = 42, mixed: bool = False,
) -> ExampleImages:  # fmt: skip
    """The first images that every model classifies correctly, then others if these run out.

    An image that is misclassified without an attack is not attacked: its adversarial image is
    the clean one, and carries no information.

    Args:
      models: name -> [0, 1] images -> logits.
      data: images to choose from, in random order.
      threat_model: the ball.
      count: at least 1.
      seed: of the attack.
      mixed: whether to alternate between images that some models withstand, that all do, and that
        none does, as far as available: for figures, not for scores.
    """
    evaluators = {name: Evaluator(model, data, seed=seed) for name, model in models.items()}
    right = np.logical_and.reduce([one.clean.correct for one in evaluators.values()])
    index = np.argsort(~right, kind="stable")[: max(count, _TRIED) if mixed else count]
    made = {name: _crafted(one, threat_model, index) for name, one in evaluators.items()}
    if mixed:
        robust = [_right(evaluators[name], x, data.labels[index]) for name, x in made.items()]
        kept = _alternating(np.sum(robust, axis=0), len(robust))[:count]
        index, made = index[kept], {name: x[kept] for name, x in made.items()}
    attacked = {name: one.clean.correct[index] for name, one in evaluators.items()}
    return ExampleImages(
        data.pixels(index), data.labels[index], made, attacked, int(right[index].sum())
    )


def _crafted(evaluator: Evaluator, threat_model: ThreatModel, index: np.ndarray) -> np.ndarray:
    """PGD-20's images for those classified correctly; the others unchanged."""
    # The attack itself would return those at its random start, which is mere noise.
    attacked = evaluator.clean.correct[index]
    x = evaluator.data.pixels(index)
    x[attacked] = evaluator.craft(PGD(steps=20), threat_model, index[attacked])
    return x


def _right(evaluator: Evaluator, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.argmax(evaluator.logits(x), axis=1) == labels


def _alternating(robust: np.ndarray, models: int) -> np.ndarray:
    """All indices, alternating between images that some, all and none of the models withstand.

    Args:
      robust: how many of the models withstand the attack on each image, int [N].
      models: number of models.
    """
    groups = [(robust > 0) & (robust < models), robust == models, robust == 0]
    turn = np.zeros(len(robust), int)
    for number, group in enumerate(groups):
        turn[group] = np.arange(group.sum()) * len(groups) + number
    return np.argsort(turn, kind="stable")
