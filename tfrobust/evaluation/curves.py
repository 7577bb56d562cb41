"""Accuracy against the radius of the ball, and against the steps of an attack.

Carlini et al. (2019), https://arxiv.org/abs/1902.06705, require both: accuracy has to reach 0 in
a ball that is large enough, and to level off before the steps run out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrobust.attacks.results import AttackResult, Outcome
from tfrobust.chance import wilson
from tfrobust.errors import UsageError
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.evaluation.report import RobustnessReport
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack

#: The first radii of a curve, as parts of the run's eps; further ones double.
SHARES = (0.25, 0.5, 1.0)
#: A curve ends below this accuracy.
NEAR_ZERO = 0.005


@dataclass(frozen=True)
class Curve:
    """Accuracy on one sample of images, at P points.

    Attributes:
      quantity: of the x-axis: 'eps' (in the units of the norm) or 'steps'.
      values: its P values, rising; 0 means clean images.
      correct: how many images are classified correctly at each, P counts.
      total: images in the sample.
      attack: the name of the attack.
      threat_model: the run's ball, whose radius a curve against eps varies.
      chance: the accuracy of guessing, 1 / classes.
    """

    quantity: str
    values: tuple[float, ...]
    correct: tuple[int, ...]
    total: int
    attack: str
    threat_model: ThreatModel
    chance: float

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.values, self.values[1:], strict=False))
        if len(self.values) != len(self.correct) or not self.values or not rising:
            raise UsageError(
                "Curve: expected rising values and as many counts, found "
                f"{self.values} and {self.correct}."
            )

    @property
    def accuracy(self) -> tuple[float, ...]:
        """The P accuracies, in [0, 1]."""
        return tuple(count / self.total for count in self.correct)

    @property
    def intervals(self) -> tuple[tuple[float, float], ...]:
        """Their 95 % confidence intervals (Wilson), (low, high) each."""
        return tuple(wilson(count, self.total) for count in self.correct)

    def as_dict(self) -> dict[str, Any]:
        """The JSON entry."""
        return {
            "attack": self.attack,
            "norm": self.threat_model.norm,
            "eps": self.threat_model.eps,
            "images": self.total,
            "chance": round(self.chance, 6),
            "points": [
                {
                    self.quantity: value,
                    "accuracy": round(accuracy, 6),
                    "accuracy_interval": [round(low, 4), round(high, 4)],
                }
                for value, accuracy, (low, high) in zip(
                    self.values, self.accuracy, self.intervals, strict=True
                )
            ],
        }


def accuracy_against_eps(
    evaluator: Evaluator,
    attack: Attack,
    threat_model: ThreatModel,
    radii: Sequence[float] | None = None,
    *,
    limit: int = 512,
    seed: int = 42,
    name: str | None = None,
) -> Curve:
    """Accuracy under one attack as the ball grows, down to 0.

    At each radius all images are attacked, not only those that smaller radii left: a curve that
    rises again is a sign of masked gradients. The radii share one trace.

    Args:
      evaluator: the model and its images.
      attack: the attack; its default step size has to depend on eps, as that of PGD does.
      threat_model: the run's ball.
      radii: 0 or more each. By default 0, a quarter, a half and the whole of the run's eps,
        then doubled until accuracy is below 0.5 % or the ball contains every image.
      limit: images in the sample.
      seed: of the sample.
      name: of the attack; that of its class if None.

    Raises:
      UsageError: a radius below 0, no radii, or a limit below 1.
    """
    index = sample_index(len(evaluator.data), limit, seed)
    base = only(evaluator.clean, index)
    found = {0.0: base} if radii is None else {}
    wanted = _doubling(threat_model, evaluator.data.image_shape) if radii is None else radii
    for eps in wanted if radii is None else _checked_radii(wanted):
        ball = dataclasses.replace(threat_model, eps=float(eps))
        found[float(eps)] = (
            evaluator.run(f"curve, {_name(name, attack)}", attack, ball, base).outcome
            if eps
            else base
        )
        if radii is None and found[float(eps)].correct[index].mean() < NEAR_ZERO:
            break
    return _curve("eps", found, index, _name(name, attack), threat_model, _chance(evaluator))


def accuracy_against_steps(
    evaluator: Evaluator,
    attack: Attack,
    threat_model: ThreatModel,
    steps: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    *,
    limit: int = 512,
    seed: int = 42,
    name: str | None = None,
) -> Curve:
    """Accuracy under one attack as it is given more steps; the first point is clean.

    Every number of steps is an attack of its own, with the step size that belongs to it. Where the
    curve has not levelled off, the steps are too few.

    Args:
      evaluator: the model and its images.
      attack: an attack with a field `steps`.
      threat_model: the ball.
      steps: the numbers of steps, 1 or more each.
      limit: images in the sample.
      seed: of the sample.
      name: of the attack; that of its class if None.

    Raises:
      UsageError: the attack has no steps to set, or a number is below 1.
    """
    if not any(item.name == "steps" and item.init for item in dataclasses.fields(attack)):
        raise UsageError(
            f"Expected an attack whose steps can be set, such as PGD, found {_name(None, attack)}."
        )
    index = sample_index(len(evaluator.data), limit, seed)
    base = only(evaluator.clean, index)
    found = {0.0: base}
    for count in sorted(set(steps)):
        longer = dataclasses.replace(attack, steps=count)
        label = f"curve, {_name(name, attack)}, {count} steps,"
        found[float(count)] = evaluator.run(label, longer, threat_model, base).outcome
    return _curve("steps", found, index, _name(name, attack), threat_model, _chance(evaluator))


def sweep_curve(report: RobustnessReport, classes: int) -> Curve | None:
    """The worst case over all attacks against eps, from the radii of a report.

    Args:
      report: of an evaluation with a sweep.
      classes: of the model.

    Returns:
      A curve over all images of the report, or None where it has no sweep.
    """
    if not report.sweep or not report.attacks:
        return None
    # At each radius the outcome of the last attack is the worst case over all attacks.
    last: dict[float, AttackResult] = {
        float(result.threat_model.eps): result for result in (*report.sweep, *report.attacks)
    }
    found = {0.0: report.clean, **{eps: last[eps].outcome for eps in sorted(last)}}
    every = np.arange(len(report.labels))
    name = f"worst case of {len(report.attacks)} attacks"
    name = report.attacks[0].name if len(report.attacks) == 1 else name
    return _curve("eps", found, every, name, report.threat_model, 1 / classes)


def sample_index(count: int, limit: int, seed: int) -> np.ndarray:
    """At most `limit` of `count` images, int64, rising, drawn by `seed`.

    Raises:
      UsageError: the limit is below 1.
    """
    if limit < 1:
        raise UsageError(f"limit: expected 1 image or more, found {limit!r}.")
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def _doubling(threat_model: ThreatModel, image_shape: Sequence[int]) -> Iterator[float]:
    eps, top = float(threat_model.eps), threat_model.largest_radius(image_shape)
    if not eps > 0:
        raise UsageError("eps: expected more than 0 to draw a curve from, found 0.")
    whole = threat_model.norm == "l0"
    radii = [eps * share for share in SHARES]
    while radii[-1] < top:
        radii.append(2 * radii[-1])
    # In l0 the radius is a whole number of pixels.
    yield from sorted({min(max(round(r), 1) if whole else r, top) for r in radii})


def _checked_radii(radii: Sequence[float] | Iterator[float]) -> list[float]:
    wanted = sorted({float(eps) for eps in radii})
    if not wanted or wanted[0] < 0:
        raise UsageError(f"radii: expected one or more numbers from 0 on, found {wanted}.")
    return wanted


def only(clean: Outcome, index: np.ndarray) -> Outcome:
    """The clean outcome, with nothing to attack outside the sample."""
    inside = np.zeros(len(clean.correct), bool)
    inside[index] = True
    return dataclasses.replace(clean, correct=clean.correct & inside)


def _curve(
    quantity: str,
    found: dict[float, Outcome],
    index: np.ndarray,
    attack: str,
    threat_model: ThreatModel,
    chance: float,
) -> Curve:
    correct = tuple(int(outcome.correct[index].sum()) for outcome in found.values())
    return Curve(quantity, tuple(found), correct, len(index), attack, threat_model, chance)


def _chance(evaluator: Evaluator) -> float:
    return 1 / int(evaluator.logits(evaluator.data.pixels(slice(0, 1))).shape[1])


def _name(name: str | None, attack: Attack) -> str:
    return name or type(attack).__name__
