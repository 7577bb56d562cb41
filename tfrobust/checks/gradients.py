"""Checks of the gradient that attacks follow: whether there is one, and whether it is right.

Athalye et al. (2018), https://arxiv.org/abs/1802.00420, describe the ways in which a model can
mask it. Together these checks take a few gradients and forward passes of a few dozen images.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from tfrobust.attacks.losses import margin
from tfrobust.attacks.results import Outcome
from tfrobust.chance import above_chance
from tfrobust.checks.flags import Flag, flag
from tfrobust.checks.protocol import Evaluation, sample_rows
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack

# The step of the default attack, PGD-20, in radii.
_STEP = 1 / 8
# The factor by which a step may do more or less than the gradient predicts. Networks that are
# curved, but mask nothing, stay within a factor of 2.
_FACTOR = 3.0
# What rounding may change, as a part of the largest logit: in float32, and in 16-bit formats
# (bfloat16 has 8 significant bits).
_ROUNDING, _ROUNDING_16 = 0.001, 0.01
# Parts of the images that may show a sign without raising a flag.
_FEW, _MANY = 0.05, 0.25


def no_gradient(evaluation: Evaluation) -> Flag | None:
    """Whether the gradient of the margin, or of the cross-entropy, is 0 on many images."""
    sample = sample_rows(np.arange(len(evaluation.data)), evaluation.seed)
    if share := _dead(evaluation, sample, "margin"):
        return flag(
            "zero_gradients",
            f"the gradient of the logits is 0 on {share:.0%} of the images: gradients are masked, "
            "and gradient attacks cannot move; attack through the step without gradient with "
            "tr.models.straight_through, or without gradients with square",
        )
    if share := _dead(evaluation, sample, "cross_entropy"):
        return flag(
            "vanishing_gradients",
            f"the gradient of the cross-entropy is 0 on {share:.0%} of the images, because the "
            "logits are too large for float32: attacks on it cannot move; margin, DLR and "
            "autoattack do not depend on the logits' scale",
        )
    return None


def _dead(evaluation: Evaluation, sample: np.ndarray, loss: str) -> float:
    """The share of the images whose gradient is 0; 0 where it is within chance of `_FEW`."""
    dead = (evaluation.gradient_at(sample, loss) == 0).all(axis=(1, 2, 3))
    return float(dead.mean()) if above_chance(int(dead.sum()), len(sample), _FEW) else 0.0


class _Start(NamedTuple):
    """Images [M, ...] with their labels, margins [M], logits [M, K] and gradients."""

    x: np.ndarray
    y: np.ndarray
    logits: np.ndarray
    margin: np.ndarray
    grad: np.ndarray


def _start(evaluation: Evaluation, index: np.ndarray) -> _Start:
    x, y = evaluation.data.pixels(index), evaluation.data.labels[index]
    logits = np.asarray(evaluation.logits(tf.constant(x)))
    return _Start(x, y, logits, _margin(logits, y), evaluation.gradient_at(index, "margin"))


def _margin(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(margin(tf.constant(logits), tf.constant(y)))


def _step(
    evaluation: Evaluation, start: _Start, ball: ThreatModel, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """The images after a step of `length` radii up the margin, and their margins [M]."""
    x = tf.constant(start.x)
    step = ball.steepest_step(tf.constant(start.grad), length * ball.eps)
    moved = ball.project(x + step, x)
    return np.asarray(moved), _margin(np.asarray(evaluation.logits(moved)), start.y)


def misleading(evaluation: Evaluation, ball: ThreatModel, attacked: Outcome) -> Flag | None:
    """Whether a step does what the gradient predicts, on images that the attack did not break.

    For broken images the gradient was good enough. On the others a short step up the margin must
    change it by about the step times the gradient: this holds for networks of smooth or piecewise
    linear parts, where the step is a small part of the way to the boundary.

    Args:
      evaluation: the model and the images.
      ball: the threat model; 'l0' has no short steps, and is not checked.
      attacked: the outcome of the first iterative attack, or of any where there was none.
    """
    sample = sample_rows(np.flatnonzero(attacked.correct), evaluation.seed)
    if not len(sample) or ball.norm == "l0" or not ball.eps > 0:
        return None
    start = _start(evaluation, sample)
    moved, found = _step(evaluation, start, ball, _STEP)
    predicted = (start.grad * (moved - start.x)).sum(axis=(1, 2, 3))
    gained = found - start.margin
    as_predicted = (gained >= predicted / _FACTOR) & (gained <= predicted * _FACTOR)
    slack = _rounding(evaluation, start.logits) * np.abs(start.logits).max(axis=1)
    rounded = np.abs(gained - predicted) <= slack
    wrong = ~as_predicted & ~rounded
    if not above_chance(int(wrong.sum()), len(sample), _MANY):
        return None
    return flag(
        "misleading_gradients",
        f"on {wrong.mean():.0%} of the unbroken images a short step does less than 1/{_FACTOR:g} "
        f"or more than {_FACTOR:g} times what the gradient predicts: gradients are shattered "
        "(jumps, fast oscillations) or not those of the model itself; attack without them "
        "(square), or with those of a smooth substitute: tr.models.straight_through, "
        "tr.models.smoothed",
    )


def _rounding(evaluation: Evaluation, logits: np.ndarray) -> float:
    """How much rounding may change logits, as a part of the largest."""
    dtype = getattr(evaluation.classifier.inner, "compute_dtype", "float32")
    # Of float32's 23 bits of mantissa bfloat16 keeps 7 and float16 10.
    coarse = not np.any(logits.astype(np.float32).view(np.uint32) & 0x1FFF)
    return _ROUNDING_16 if coarse or dtype in ("bfloat16", "float16") else _ROUNDING


def overfitted(
    evaluation: Evaluation, ball: ThreatModel, attack: Attack, attacked: Outcome
) -> Flag | None:
    """Whether a single step fails where several steps succeed in a ball of half the radius.

    The sign of catastrophic overfitting to single-step attacks: Wong et al. (2020),
    https://arxiv.org/abs/2001.03994. In the same ball a single step may well do worse: several
    steps reach further, but not twice as far where gradients can be trusted.

    Args:
      evaluation: the model and the images.
      ball: as for `misleading`.
      attack: the first iterative attack.
      attacked: its outcome.
    """
    if ball.norm == "l0" or not ball.eps > 0:
        return None
    broken = np.flatnonzero(evaluation.clean.correct & ~attacked.correct)
    broken = sample_rows(broken, evaluation.seed)
    half = dataclasses.replace(ball, eps=float(ball.eps) / 2)
    near = broken[evaluation.broken(attack, half, broken)]
    if not len(near):
        return None
    _, found = _step(evaluation, _start(evaluation, near), ball, 1.0)
    failed = int((found < 0).sum())
    if not above_chance(failed, len(near), _MANY):
        return None
    return flag(
        "catastrophic_overfitting",
        f"a single step of eps fails on {failed / len(near):.0%} of the images that several steps "
        "break within eps / 2: the model has learnt to withstand single steps alone; train by pgd "
        "or trades, or fast with wider noise, and do not trust the score of a single-step attack",
    )
