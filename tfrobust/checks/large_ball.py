"""The check of a ball that is larger than any defence: whether attacks reach the model at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfrobust.attacks.apgd import APGD
from tfrobust.attacks.gradient import PGD
from tfrobust.chance import above_chance
from tfrobust.checks.flags import Flag, flag
from tfrobust.checks.protocol import Evaluation, is_iterative, sample_rows
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack

# The part of the images on which attacks may get stuck.
_STUCK = 0.05


def never_falls(
    evaluation: Evaluation, attacks: Mapping[str, Attack], threat_model: ThreatModel
) -> Flag | None:
    """Attacks in a ball so large that it contains a plain grey image.

    Where the model gives the grey image another class than an image's own, that ball is certain
    to contain an adversarial example of the image. Gradient attacks should find one.
    """
    middle = sum(threat_model.bounds) / 2
    grey = np.full((1, *evaluation.data.image_shape), middle, np.float32)
    grey_class = int(np.argmax(evaluation.logits(tf.constant(grey))[0]))
    breakable = evaluation.clean.correct & (evaluation.data.labels != grey_class)
    sample = sample_rows(np.flatnonzero(breakable), evaluation.seed)
    ball, left = _grey_ball(evaluation, threat_model), sample
    for attack in _far_reaching(attacks, ball):
        if not above_chance(len(left), len(sample), _STUCK):
            return None
        left = left[~evaluation.broken(attack, ball, left)]
    if not above_chance(len(left), len(sample), _STUCK):
        return None
    return flag(
        "never_falls_to_zero",
        "in a ball so large that it contains a grey image, which the model gives another class, "
        f"gradient attacks do not break {len(left) / len(sample):.0%} of the images, although all "
        "of them can be broken there: gradients are masked, and the attack does not reach the "
        "model; attack without gradients (square), or through a substitute: "
        "tr.models.straight_through",
    )


def _grey_ball(evaluation: Evaluation, threat_model: ThreatModel) -> ThreatModel:
    """The smallest ball around any image that contains the grey one."""
    # In l0 a ball of all pixels contains every image; the linf ball that contains grey is enough.
    norm = "linf" if threat_model.norm == "l0" else threat_model.norm
    ball = dataclasses.replace(threat_model, norm=norm, eps=0.0)
    return dataclasses.replace(ball, eps=ball.largest_radius(evaluation.data.image_shape) / 2)


def _far_reaching(attacks: Mapping[str, Attack], ball: ThreatModel) -> list[Attack]:
    """Attacks that can cross a large ball, the cheapest first.

    Attacks that were run before need no further trace, and suffice for nearly all models. After
    them come APGD, whose steps shrink as needed, and PGD with long steps: short steps make no
    headway where gradients are small.
    """
    own = [
        attack
        for attack in attacks.values()
        if is_iterative(attack)
        and getattr(attack, "needs_gradient", True)
        and not getattr(attack, "minimal", False)
        and ball.norm in getattr(attack, "norms", ())
    ]
    long = PGD(steps=50, loss="margin", step_size=0.2 * float(ball.eps), random_start=False)
    shrinking = [APGD(steps=20, loss="margin")] if ball.norm in APGD.norms else []
    return [*own[:2], *shrinking, long]
