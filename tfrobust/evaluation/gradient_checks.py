"""Doubts about the gradient that attacks follow: is there one, and does it tell the truth?

Athalye et al. (2018), https://arxiv.org/abs/1802.00420, name the ways in which a model hides it.
All of these checks together take a few gradients and forward passes of a few dozen images.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfrobust.attacks.losses import margin
from tfrobust.chance import above_chance
from tfrobust.evaluation.flags import Flag, drawn
from tfrobust.evaluation.flags import flag as _flag
from tfrobust.runtime import tf
from tfrobust.typing import Attack

if TYPE_CHECKING:
    from tfrobust.attacks.results import Outcome
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.threat_model import ThreatModel

# The step of the default attack, PGD-20, in radii.
_STEP = 1 / 8
# So much more or less than the gradient says, a step may do. Curved, but honest, networks stay
# within a factor of 2.
_FACTOR = 3.0
# What rounding may change, as a part of the largest logit: in float32, and in 16 bits, of which
# bfloat16 has 8 for digits.
_ROUNDING, _ROUNDING_16 = 0.001, 0.01
# Parts of the images that may show a mark without doubt.
_FEW, _MANY = 0.05, 0.25


def no_gradient(evaluator: Evaluator) -> Flag | None:
    """Gradients that are 0 everywhere, of the margin or of the cross-entropy."""
    sample = drawn(np.arange(len(evaluator.data)), evaluator.seed)
    if share := _dead(evaluator, sample, "margin"):
        return _flag(
            "zero_gradients",
            f"the logits have no gradient on {share:.0%} of the images: gradients are masked, and "
            "gradient attacks see nothing; attack through a step without gradient with "
            "tr.models.straight_through, or without gradients with square",
        )
    if share := _dead(evaluator, sample, "cross_entropy"):
        return _flag(
            "vanishing_gradients",
            f"the cross-entropy has no gradient on {share:.0%} of the images, for the logits are "
            "too large for float32: attacks on it see nothing; margin, DLR and autoattack do not "
            "depend on the logits' scale",
        )
    return None


def _dead(evaluator: Evaluator, sample: np.ndarray, loss: str) -> float:
    """The share of the images that have no gradient; 0 where these may be a few."""
    dead = (evaluator.gradient_at(sample, loss) == 0).all(axis=(1, 2, 3))
    return float(dead.mean()) if above_chance(int(dead.sum()), len(sample), _FEW) else 0.0


class _Start(NamedTuple):
    """Some images [M, ...], with labels, margins [M], logits [M, K] and gradients there."""

    x: np.ndarray
    y: np.ndarray
    logits: np.ndarray
    margin: np.ndarray
    grad: np.ndarray


def _start(evaluator: Evaluator, index: np.ndarray) -> _Start:
    x, y = evaluator.data.pixels(index), evaluator.data.labels[index]
    logits = np.asarray(evaluator.logits(tf.constant(x)))
    return _Start(x, y, logits, _margin(logits, y), evaluator.gradient_at(index, "margin"))


def _margin(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(margin(tf.constant(logits), tf.constant(y)))


def _step(
    evaluator: Evaluator, start: _Start, ball: ThreatModel, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where a step of so many radii up the margin leads, like x, and the margin there, [M]."""
    x = tf.constant(start.x)
    step = ball.steepest_step(tf.constant(start.grad), length * ball.eps)
    moved = ball.project(x + step, x)
    return np.asarray(moved), _margin(np.asarray(evaluator.logits(moved)), start.y)


def misleading(evaluator: Evaluator, ball: ThreatModel, attacked: Outcome) -> Flag | None:
    """Whether a step of an attack does what the gradient says, where the attack fails.

    For images that fell the gradient was good enough. On the others a short step up the margin
    must change it by about the step times the gradient: networks of smooth or piecewise linear
    parts do so, where the step is a small part of the way to the boundary.

    Args:
      evaluator: the model and the images.
      ball: the threat model; one of pixels ('l0') has no short steps, and is not looked at.
      attacked: what the first iterative attack left, or whatever was run where there was none.
    """
    sample = drawn(np.flatnonzero(attacked.correct), evaluator.seed)
    if not len(sample) or ball.norm == "l0" or not ball.eps > 0:
        return None
    start = _start(evaluator, sample)
    moved, found = _step(evaluator, start, ball, _STEP)
    promised = (start.grad * (moved - start.x)).sum(axis=(1, 2, 3))
    gained = found - start.margin
    told = (gained >= promised / _FACTOR) & (gained <= promised * _FACTOR)
    slack = _rounding(evaluator, start.logits) * np.abs(start.logits).max(axis=1)
    rounded = np.abs(gained - promised) <= slack
    wrong = ~told & ~rounded
    if not above_chance(int(wrong.sum()), len(sample), _MANY):
        return None
    return _flag(
        "misleading_gradients",
        f"on {wrong.mean():.0%} of the images that still stand a short step does something else "
        f"than the gradient says, less than 1/{_FACTOR:g} or more than {_FACTOR:g} times of it: "
        "gradients are shattered (jumps, fast waves) or not the model's own; attack without them "
        "(square), or with those of a smooth substitute: tr.models.straight_through, "
        "tr.models.smoothed",
    )


def _rounding(evaluator: Evaluator, logits: np.ndarray) -> float:
    """What rounding may change of logits, as a part of the largest."""
    dtype = getattr(evaluator.classifier.inner, "compute_dtype", "float32")
    # Of 23 bits after the point bfloat16 has 7 and float16 10.
    coarse = not np.any(logits.astype(np.float32).view(np.uint32) & 0x1FFF)
    return _ROUNDING_16 if coarse or dtype in ("bfloat16", "float16") else _ROUNDING


def overfitted(
    evaluator: Evaluator, ball: ThreatModel, attack: Attack, attacked: Outcome
) -> Flag | None:
    """Whether a single step does worse than several do in a ball of half the radius.

    The mark of catastrophic overfitting to single-step attacks: Wong et al. (2020),
    https://arxiv.org/abs/2001.03994. That it does worse in the same ball is no fault: the best
    of several steps reaches further, but not twice as far where gradients can be trusted.

    Args:
      evaluator: the model and the images.
      ball: as for `misleading`.
      attack: the first iterative attack.
      attacked: what it left.
    """
    if ball.norm == "l0" or not ball.eps > 0:
        return None
    fell = drawn(np.flatnonzero(evaluator.clean.correct & ~attacked.correct), evaluator.seed)
    half = dataclasses.replace(ball, eps=float(ball.eps) / 2)
    near = fell[evaluator.broken(attack, half, fell)]
    if not len(near):
        return None
    _, found = _step(evaluator, _start(evaluator, near), ball, 1.0)
    failed = int((found < 0).sum())
    if not above_chance(failed, len(near), _MANY):
        return None
    return _flag(
        "catastrophic_overfitting",
        f"a single step of eps fails on {failed / len(near):.0%} of the images that several steps "
        "break within half of eps: the model has learnt to withstand single steps alone; train by "
        "pgd or trades, or fast with wider noise, and believe no single-step figure",
    )
