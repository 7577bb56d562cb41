"""Doubts about an evaluation: what makes its figure too good to be believed.

Carlini et al. (2019), https://arxiv.org/abs/1902.06705, and Athalye et al. (2018),
https://arxiv.org/abs/1802.00420, give the reasons; Croce and Hein (2020),
https://arxiv.org/abs/2003.01690, the marks of randomised and masked models.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.chance import above_chance, majority_rate
from tfrobust.evaluation.flags import SAMPLE, Flag, drawn, is_iterative
from tfrobust.evaluation.flags import flag as _flag
from tfrobust.evaluation.gradient_checks import misleading, no_gradient, overfitted
from tfrobust.evaluation.large_ball import never_falls
from tfrobust.models.views import views
from tfrobust.run import GUESSES
from tfrobust.runtime import tf
from tfrobust.typing import Attack

if TYPE_CHECKING:
    from tfrobust.attacks.results import AttackResult
    from tfrobust.evaluation.evaluator import Evaluator

# Draws and images that show whether a model is random: one of two states, each as likely, is
# missed once in 128.
_DRAWS, _DRAWN = 8, 16
# The part of the images that an attack may leave to a weaker or a longer one, by luck.
_LUCK = 0.02
# The published margin by which a black-box attack may be the better one: 0.2 points.
BLACK_BOX_MARGIN = 0.002


def doubts(
    evaluator: Evaluator, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> tuple[Flag, ...]:
    """What makes this evaluation unreliable, as named flags with their meaning.

    Args:
      evaluator: the model and the images.
      attacks: what was run.
      results: what it found, in the order run, at one radius.
    """
    if not evaluator.classifier.has_gradient:
        return _doubts_of_outputs(evaluator, results)
    unsteady = [_randomised(evaluator), _batch_dependent(evaluator)]
    found = [
        _constant_predictions(evaluator),
        _no_better_than_guessing(evaluator),
        no_gradient(evaluator),
        _non_finite(evaluator, results),
        *unsteady,
        _only_single_step(attacks),
    ]
    if results:
        found += [
            _black_box_beats_white_box(evaluator, attacks, results),
            _out_of_steps(evaluator, attacks, results),
            never_falls(evaluator, attacks, results[0].threat_model),
        ]
    if not any(unsteady):
        found += _doubts_of_a_steady_model(evaluator, attacks, results)
    return tuple(flag for flag in found if flag)


def _doubts_of_a_steady_model(
    evaluator: Evaluator, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> list[Flag | None]:
    """What compares outputs with one another: of others they differ by the draw or the batch.

    A random model is to be looked at in expectation, and then all of these are asked of it.
    """
    found = [_other_pixels(evaluator)]
    if results:
        ball = results[0].threat_model
        first = next((result for result in results if is_iterative(attacks[result.name])), None)
        found += [
            misleading(evaluator, ball, (first or results[-1]).outcome),
            overfitted(evaluator, ball, attacks[first.name], first.outcome) if first else None,
            _single_step_beats_iterative(evaluator, attacks, results),
        ]
    return found


def _doubts_of_outputs(evaluator: Evaluator, results: Sequence[AttackResult]) -> tuple[Flag, ...]:
    """Of a model without gradients: what its outputs alone can tell, with few queries."""
    found = [
        _constant_predictions(evaluator),
        _no_better_than_guessing(evaluator),
        _non_finite(evaluator, results),
        _randomised(evaluator),
        _batch_dependent(evaluator),
    ]
    return tuple(flag for flag in found if flag)


def _constant_predictions(evaluator: Evaluator) -> Flag | None:
    predictions = evaluator.clean.predictions
    if len(predictions) < 2 or len(np.unique(predictions)) > 1:
        return None
    return _flag(
        "constant_predictions",
        f"the model predicts class {predictions[0]} for every image: that no attack changes "
        "this is not robustness",
    )


def _no_better_than_guessing(evaluator: Evaluator) -> Flag | None:
    """Clean accuracy that always naming the most frequent class could reach too."""
    correct, labels = evaluator.clean.correct, evaluator.data.labels
    rate = majority_rate(labels)
    if rate == 1.0 or above_chance(int(correct.sum()), len(correct), rate):
        return None
    return _flag(
        GUESSES,
        f"clean accuracy, {correct.mean():.3f}, is not above that of the most frequent class, "
        f"{rate:.3f}: the model has learnt nothing that an attack could take away",
    )


def _other_pixels(evaluator: Evaluator) -> Flag | None:
    """Whether the model does far better on pixels of another range than it was shown."""
    if evaluator.classifier.range_known:
        return None  # its pixels were chosen, by the user or by its first layers
    data = evaluator.data.sample(4 * SAMPLE, 0)
    x, y = data.pixels(slice(None)), data.labels
    shown = float((np.argmax(evaluator.logits(x), axis=1) == y).mean())
    best, rate = None, shown
    for view in views(x):
        with contextlib.suppress(ValueError, tf.errors.OpError):  # the graph checks its range
            seen = evaluator.logits(view.function(x.shape[3])(tf.constant(x)))
            found = float((np.argmax(seen, axis=1) == y).mean())
            if found > rate:
                best, rate = view, found
    # Four deviations of the difference, and enough to matter.
    if best is None or rate - shown < max(0.05, 4 * (0.5 / len(y)) ** 0.5 * (1 - shown) ** 0.5):
        return None
    return _flag(
        "other_input_range",
        f"clean accuracy is {shown:.3f} on pixels of [0, 1] and {rate:.3f} on {best}: the model "
        f"seems to take these; give {best.as_flags()}",
    )


def _non_finite(evaluator: Evaluator, results: Sequence[AttackResult]) -> Flag | None:
    """Images whose logits are NaN or infinite, clean or under attack."""
    outcomes = [evaluator.clean, *(result.outcome for result in results)]
    # Finite logits leave the largest probability above 0.
    count = int(np.logical_or.reduce([one.confidences == 0 for one in outcomes]).sum())
    if not count:
        return None
    clean = int((evaluator.clean.confidences == 0).sum())
    return _flag(
        "non_finite_outputs",
        f"the model returns NaN or infinity for {count} of {len(evaluator.data)} images, {clean} "
        "of them without attack: they count as wrong, for such a model has no answer; mend it (a "
        "logarithm, root or division that meets 0?)",
    )


def _randomised(evaluator: Evaluator) -> Flag | None:
    x = tf.constant(evaluator.data.pixels(slice(0, _DRAWN)))
    first, *others = (np.asarray(evaluator.logits(x)) for _ in range(_DRAWS))
    if all(np.allclose(first, other, rtol=1e-4, atol=1e-4) for other in others):
        return None
    return _flag(
        "randomised_outputs",
        "the same images give other logits each time: a success may be luck and a failure too; "
        "attack the expectation: tr.models.expectation(model, draws), --eot N, or autoattack-rand",
    )


def _batch_dependent(evaluator: Evaluator) -> Flag | None:
    x = evaluator.data.pixels(slice(0, 8))
    together = np.asarray(evaluator.logits(x))
    alone = np.concatenate([np.asarray(evaluator.logits(x[i : i + 1])) for i in range(len(x))])
    scale = max(float(np.abs(together).max()), 1.0)
    if np.abs(together - alone).max() <= 1e-3 * scale or _randomised(evaluator):
        return None
    return _flag(
        "batch_dependence",
        "an image's logits depend on what else is in the batch (BatchNorm in training mode?): "
        "accuracy and attacks depend on how images are grouped",
    )


def _only_single_step(attacks: Mapping[str, Attack]) -> Flag | None:
    if not attacks or any(map(is_iterative, attacks.values())):
        return None
    return _flag(
        "no_iterative_attack",
        f"only {', '.join(attacks)} was run: without an iterative gradient attack the figure is an "
        "upper bound that masked gradients raise; run pgd or autoattack (linf, l2)",
    )


def _single_step_beats_iterative(
    evaluator: Evaluator, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> Flag | None:
    """Shows images that a single step broke to the iterative attack as well."""
    single = next((r for r in results if getattr(attacks[r.name], "steps", 0) == 1), None)
    iterative = next((r for r in results if is_iterative(attacks[r.name])), None)
    if single is None or iterative is None:
        return None
    fell = np.flatnonzero(evaluator.clean.correct & ~single.outcome.correct)
    fell = drawn(fell, evaluator.seed)
    if not len(fell):
        return None
    attack = attacks[iterative.name]
    # As it was run: a restart of it breaks what the one before did not.
    standing = fell
    for run in range(attack.restarts):
        broken = evaluator.broken(attack, iterative.threat_model, standing, run)
        standing = standing[~broken]
    kept = len(standing)
    if not above_chance(kept, len(fell), _LUCK):
        return None
    return _flag(
        "single_step_beats_iterative",
        f"{iterative.name} does not break {kept} of {len(fell)} images that {single.name} breaks: "
        "the iterative attack ought to be the stronger one; gradients are masked or its step "
        "size does not fit",
    )


def _searches_blindly(attack: Attack) -> bool:
    """Whether it searches the ball by the model's outputs alone."""
    return getattr(attack, "whole_ball", True) and not getattr(attack, "needs_gradient", True)


def _black_box_beats_white_box(
    evaluator: Evaluator, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> Flag | None:
    white_box = False
    for before, result in zip(results, results[1:], strict=False):
        white_box = white_box or is_iterative(attacks[before.name])
        if _searches_blindly(attacks[result.name]) and white_box:
            fell = int((before.outcome.correct & ~result.outcome.correct).sum())
            total = len(evaluator.data)
            # One image of a few hundred is more than the margin, and no evidence.
            if above_chance(fell, total, BLACK_BOX_MARGIN):
                return _flag(
                    "black_box_beats_white_box",
                    f"{result.name}, which sees no gradient, lowers accuracy by another "
                    f"{100 * fell / total:.1f} points: gradients are masked",
                )
    return None


def _out_of_steps(
    evaluator: Evaluator, attacks: Mapping[str, Attack], results: Sequence[AttackResult]
) -> Flag | None:
    """Gives the last PGD four times the steps on images that still stand."""
    last = results[-1]
    attack = attacks[last.name]
    standing = drawn(np.flatnonzero(last.outcome.correct), evaluator.seed)
    steps = int(getattr(attack, "steps", 1)) if getattr(attack, "gains_by_steps", False) else 1
    if steps == 1 or not len(standing):
        return None
    longer = dataclasses.replace(attack, steps=4 * steps)
    fell = int(evaluator.broken(longer, last.threat_model, standing).sum())
    if not above_chance(fell, len(standing), _LUCK):
        return None
    return _flag(
        "out_of_steps",
        f"with four times the steps {last.name} breaks another {fell} of {len(standing)} images: "
        f"{steps} steps are too few; raise --steps, or run autoattack",
    )
