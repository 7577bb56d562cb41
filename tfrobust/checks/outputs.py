"""Checks of a model's outputs: degenerate, random, dependent on the batch, or of other pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from tfrobust.attacks.results import AttackResult
from tfrobust.chance import above_chance, majority_rate
from tfrobust.checks.flags import Flag, flag
from tfrobust.checks.protocol import SAMPLE, Evaluation
from tfrobust.models.views import views
from tfrobust.run import GUESSES
from tfrobust.runtime import tf

# Draws and images that show whether a model is random: one of two equally likely states is
# missed once in 128.
_DRAWS, _DRAWN = 8, 16


def constant_predictions(evaluation: Evaluation) -> Flag | None:
    """Whether the model predicts the same class for every image."""
    predictions = evaluation.clean.predictions
    if len(predictions) < 2 or len(np.unique(predictions)) > 1:
        return None
    return flag(
        "constant_predictions",
        f"the model predicts class {predictions[0]} for every image: that attacks do not change "
        "this is not robustness",
    )


def no_better_than_guessing(evaluation: Evaluation) -> Flag | None:
    """Whether clean accuracy is that of always predicting the most frequent class."""
    correct, labels = evaluation.clean.correct, evaluation.data.labels
    rate = majority_rate(labels)
    if rate == 1.0 or above_chance(int(correct.sum()), len(correct), rate):
        return None
    return flag(
        GUESSES,
        f"clean accuracy, {correct.mean():.3f}, is not above that of the most frequent class, "
        f"{rate:.3f}: the model has learnt nothing that an attack could take away",
    )


def other_pixels(evaluation: Evaluation) -> Flag | None:
    """Whether the model does far better on pixels of another range than those it was given."""
    if evaluation.classifier.range_known:
        return None  # the user or its first layers say which pixels it takes
    data = evaluation.data.sample(4 * SAMPLE, 0)
    x, y = data.pixels(slice(None)), data.labels
    given = float((np.argmax(evaluation.logits(x), axis=1) == y).mean())
    best, rate = None, given
    for view in views(x):
        with contextlib.suppress(ValueError, tf.errors.OpError):  # the graph checks its range
            seen = evaluation.logits(view.function(x.shape[3])(tf.constant(x)))
            found = float((np.argmax(seen, axis=1) == y).mean())
            if found > rate:
                best, rate = view, found
    # Four deviations of the difference, and enough to matter.
    if best is None or rate - given < max(0.05, 4 * (0.5 / len(y)) ** 0.5 * (1 - given) ** 0.5):
        return None
    return flag(
        "other_input_range",
        f"clean accuracy is {given:.3f} on pixels of [0, 1] and {rate:.3f} on {best}: the model "
        f"seems to take the latter; give {best.as_flags()}",
    )


def non_finite(evaluation: Evaluation, results: Sequence[AttackResult]) -> Flag | None:
    """Images whose logits are NaN or infinite, clean or under attack."""
    outcomes = [evaluation.clean, *(result.outcome for result in results)]
    # Finite logits leave the largest probability above 0.
    count = int(np.logical_or.reduce([one.confidences == 0 for one in outcomes]).sum())
    if not count:
        return None
    clean = int((evaluation.clean.confidences == 0).sum())
    return flag(
        "non_finite_outputs",
        f"the model returns NaN or infinity for {count} of {len(evaluation.data)} images, {clean} "
        "of them without attack: they count as misclassified; fix the model (a logarithm, root or "
        "division that meets 0?)",
    )


def randomised(evaluation: Evaluation) -> Flag | None:
    """Whether the logits of an image differ from call to call."""
    x = tf.constant(evaluation.data.pixels(slice(0, _DRAWN)))
    first, *others = (np.asarray(evaluation.logits(x)) for _ in range(_DRAWS))
    if all(np.allclose(first, other, rtol=1e-4, atol=1e-4) for other in others):
        return None
    return flag(
        "randomised_outputs",
        "the same images give other logits each time: an attack may succeed or fail by luck; "
        "attack the expectation: tr.models.expectation(model, draws), --eot N, or autoattack-rand",
    )


def batch_dependent(evaluation: Evaluation) -> Flag | None:
    """Whether the logits of an image depend on the other images of its batch."""
    x = evaluation.data.pixels(slice(0, 8))
    together = np.asarray(evaluation.logits(x))
    alone = np.concatenate([np.asarray(evaluation.logits(x[i : i + 1])) for i in range(len(x))])
    scale = max(float(np.abs(together).max()), 1.0)
    if np.abs(together - alone).max() <= 1e-3 * scale or randomised(evaluation):
        return None
    return flag(
        "batch_dependence",
        "an image's logits depend on what else is in the batch (BatchNorm in training mode?): "
        "accuracy and attacks depend on how images are grouped",
    )
