"""Runs every check that applies to an evaluation.

Carlini et al. (2019), https://arxiv.org/abs/1902.06705, and Athalye et al. (2018),
https://arxiv.org/abs/1802.00420, give the reasons; Croce and Hein (2020),
https://arxiv.org/abs/2003.01690, the signs of randomised models and masked gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfrobust.attacks.results import AttackResult
from tfrobust.checks.attacks import (
    black_box_beats_white_box,
    only_single_step,
    out_of_steps,
    single_step_beats_iterative,
)
from tfrobust.checks.flags import Flag
from tfrobust.checks.gradients import misleading, no_gradient, overfitted
from tfrobust.checks.large_ball import never_falls
from tfrobust.checks.outputs import (
    batch_dependent,
    constant_predictions,
    no_better_than_guessing,
    non_finite,
    other_pixels,
    randomised,
)
from tfrobust.checks.protocol import Evaluation, is_iterative
from tfrobust.typing import Attack


def run_checks(
    evaluation: Evaluation, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> tuple[Flag, ...]:
    """Why this evaluation is unreliable; empty where nothing was found.

    Args:
      evaluation: the model and the images.
      attacks: the attacks that were run, by name.
      results: their results, in the order run, at one radius.
    """
    if not evaluation.classifier.has_gradient:
        return _checks_of_outputs(evaluation, results)
    unsteady = [randomised(evaluation), batch_dependent(evaluation)]
    found = [
        constant_predictions(evaluation),
        no_better_than_guessing(evaluation),
        no_gradient(evaluation),
        non_finite(evaluation, results),
        *unsteady,
        only_single_step(attacks),
    ]
    if results:
        found += [
            black_box_beats_white_box(evaluation, attacks, results),
            out_of_steps(evaluation, attacks, results),
            never_falls(evaluation, attacks, results[0].threat_model),
        ]
    if not any(unsteady):
        found += _checks_of_a_steady_model(evaluation, attacks, results)
    return tuple(flag for flag in found if flag)


def _checks_of_a_steady_model(
    evaluation: Evaluation, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> list[Flag | None]:
    """Checks that compare outputs with each other.

    The outputs of a random model differ by the draw, those of a batch-dependent one by the batch.
    A random model is evaluated in expectation, and then these checks apply to it too.
    """
    found = [other_pixels(evaluation)]
    if results:
        ball = results[0].threat_model
        first = next((result for result in results if is_iterative(attacks[result.name])), None)
        found += [
            misleading(evaluation, ball, (first or results[-1]).outcome),
            overfitted(evaluation, ball, attacks[first.name], first.outcome) if first else None,
            single_step_beats_iterative(evaluation, attacks, results),
        ]
    return found


def _checks_of_outputs(evaluation: Evaluation, results: Sequence[AttackResult]) -> tuple[Flag, ...]:
    """Checks of a model without gradients, which take few queries."""
    found = [
        constant_predictions(evaluation),
        no_better_than_guessing(evaluation),
        non_finite(evaluation, results),
        randomised(evaluation),
        batch_dependent(evaluation),
    ]
    return tuple(flag for flag in found if flag)
