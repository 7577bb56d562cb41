"""The doubt of a ball in which no image can stand: whether the attacks reach the model at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.attacks.apgd import APGD
from tfrobust.attacks.gradient import PGD
from tfrobust.chance import above_chance
from tfrobust.evaluation.flags import Flag, drawn, is_iterative
from tfrobust.evaluation.flags import flag as _flag
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack

if TYPE_CHECKING:
    from tfrobust.evaluation.evaluator import Evaluator

# The part of the images that may be stuck.
_STUCK = 0.05


def never_falls(
    evaluator: Evaluator, attacks: Mapping[str, Attack], threat_model: ThreatModel
) -> Flag | None:
    """Attacks with a ball so large that it holds a grey image.

    An image that the model takes for another class when it is grey has an adversarial image in
    that ball for certain. Gradient attacks from the image itself ought to find one.
    """
    middle = sum(threat_model.bounds) / 2
    grey = np.full((1, *evaluator.data.image_shape), middle, np.float32)
    named = int(np.argmax(evaluator.logits(tf.constant(grey))[0]))
    certain = evaluator.clean.correct & (evaluator.data.labels != named)
    sample = drawn(np.flatnonzero(certain), evaluator.seed)
    ball, standing = _grey_ball(evaluator, threat_model), sample
    for attack in _far_reaching(attacks, ball):
        if not above_chance(len(standing), len(sample), _STUCK):
            return None
        standing = standing[~evaluator.broken(attack, ball, standing)]
    if not above_chance(len(standing), len(sample), _STUCK):
        return None
    return _flag(
        "never_falls_to_zero",
        f"in a ball so large that it holds a grey image, which is misclassified, gradient attacks "
        f"leave {len(standing) / len(sample):.0%} of the images standing, where none can: "
        "gradients are masked, and the attack does not reach the model; attack without them "
        "(square), or through a substitute: tr.models.straight_through",
    )


def _grey_ball(evaluator: Evaluator, threat_model: ThreatModel) -> ThreatModel:
    """The smallest ball around any image that holds the grey one."""
    pixels = int(np.prod(evaluator.data.image_shape))
    low, high = threat_model.bounds
    half = (high - low) / 2
    radius = {"linf": half, "l2": half * pixels**0.5, "l1": half * pixels}
    # All pixels of an image, in l0, are every image: the cube holds those that matter.
    norm = "linf" if threat_model.norm == "l0" else threat_model.norm
    return dataclasses.replace(threat_model, norm=norm, eps=float(radius[norm]))


def _far_reaching(attacks: Mapping[str, Attack], ball: ThreatModel) -> list[Attack]:
    """Attacks that cross a large ball, the cheapest first.

    Those that were run need no further trace: nearly all models end with them. Then steps that
    shrink as they must, and long ones: short ones crawl where gradients are small.
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
