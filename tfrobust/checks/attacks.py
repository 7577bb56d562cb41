"""Checks of the attacks' results: whether a weaker or a longer attack does better."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfrobust.attacks.results import AttackResult
from tfrobust.chance import above_chance
from tfrobust.checks.flags import Flag, flag
from tfrobust.checks.protocol import Evaluation, is_iterative, sample_rows
from tfrobust.typing import Attack

# The part of the images that an attack may leave to a weaker or a longer one, by luck.
_LUCK = 0.02
# The published margin by which a black-box attack may be the better one: 0.2 points.
BLACK_BOX_MARGIN = 0.002


def only_single_step(attacks: Mapping[str, Attack]) -> Flag | None:
    """Whether no attack was an iterative gradient attack."""
    if not attacks or any(map(is_iterative, attacks.values())):
        return None
    return flag(
        "no_iterative_attack",
        f"only {', '.join(attacks)} was run: without an iterative gradient attack robust accuracy "
        "is an upper bound that masked gradients raise; run pgd or autoattack (linf, l2)",
    )


def single_step_beats_iterative(
    evaluation: Evaluation, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> Flag | None:
    """Runs the iterative attack on images that a single step broke."""
    single = next((r for r in results if getattr(attacks[r.name], "steps", 0) == 1), None)
    iterative = next((r for r in results if is_iterative(attacks[r.name])), None)
    if single is None or iterative is None:
        return None
    broken = np.flatnonzero(evaluation.clean.correct & ~single.outcome.correct)
    broken = sample_rows(broken, evaluation.seed)
    if not len(broken):
        return None
    attack = attacks[iterative.name]
    # With its restarts, each on what the one before did not break.
    left = broken
    for run in range(attack.restarts):
        left = left[~evaluation.broken(attack, iterative.threat_model, left, run)]
    if not above_chance(len(left), len(broken), _LUCK):
        return None
    return flag(
        "single_step_beats_iterative",
        f"{iterative.name} does not break {len(left)} of {len(broken)} images that {single.name} "
        "breaks: the iterative attack should be the stronger one; gradients are masked, or its "
        "step size does not fit",
    )


def _is_black_box(attack: Attack) -> bool:
    """Whether it searches the whole ball without gradients."""
    return getattr(attack, "whole_ball", True) and not getattr(attack, "needs_gradient", True)


def black_box_beats_white_box(
    evaluation: Evaluation, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> Flag | None:
    """Whether an attack without gradients breaks what a gradient attack before it did not."""
    white_box = False
    for before, result in zip(results, results[1:], strict=False):
        white_box = white_box or is_iterative(attacks[before.name])
        if _is_black_box(attacks[result.name]) and white_box:
            broken = int((before.outcome.correct & ~result.outcome.correct).sum())
            total = len(evaluation.data)
            # One image of a few hundred exceeds the margin, but is no evidence.
            if above_chance(broken, total, BLACK_BOX_MARGIN):
                return flag(
                    "black_box_beats_white_box",
                    f"{result.name}, which sees no gradient, lowers accuracy by another "
                    f"{100 * broken / total:.1f} points: gradients are masked",
                )
    return None


def out_of_steps(
    evaluation: Evaluation, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> Flag | None:
    """Runs the last attack that gains by steps with four times as many on images that remain.

    Other attacks may have come after it: the images are those that all attacks left.
    """
    names = [result.name for result in results if _steps(attacks[result.name]) > 1]
    left = sample_rows(np.flatnonzero(results[-1].outcome.correct), evaluation.seed)
    if not names or not len(left):
        return None
    name, attack = names[-1], attacks[names[-1]]
    longer = dataclasses.replace(attack, steps=4 * _steps(attack))
    broken = int(evaluation.broken(longer, results[-1].threat_model, left).sum())
    if not above_chance(broken, len(left), _LUCK):
        return None
    return flag(
        "out_of_steps",
        f"with four times the steps {name} breaks another {broken} of {len(left)} images: "
        f"{_steps(attack)} steps are too few; raise --steps, or run autoattack",
    )


def _steps(attack: Attack) -> int:
    """How many steps an attack makes that more of them would make stronger; 1 of others."""
    return int(getattr(attack, "steps", 1)) if getattr(attack, "gains_by_steps", False) else 1
