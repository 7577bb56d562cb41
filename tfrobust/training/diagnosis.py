"""Why a network has learnt nothing, as far as the learning curves show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrobust.chance import above_chance, guessing_loss, majority_rate

# With fewer training images per class, even a good recipe finds little to learn.
_FEW = 20
# How far above guessing training accuracy must be for train to count as memorised.
_LEARNT_BY_HEART = 0.15


def diagnose(rows: Sequence[dict[str, Any]], labels: np.ndarray) -> str:
    """The likely cause by the curves, and what to change, in half a sentence.

    Distinguishes a non-finite loss, a network that has memorised train but does not generalise
    (few images, or labels that look shuffled), training that was still improving, and training
    that never improved.

    Args:
      rows: of the history, one per epoch.
      labels: of the training images.
    """
    guess, classes = majority_rate(labels), max(len(np.unique(labels)), 1)
    each = len(labels) / classes
    events = [row["event"] for row in rows if row.get("event")]
    if events and "finite" in events[-1]:
        return "the loss was not finite: try a lower --learning-rate, or --clip-norm 1"
    seen = [row[name] for row in rows for name in ("clean_accuracy", "adv_accuracy") if name in row]
    if seen and max(seen) > guess + _LEARNT_BY_HEART:
        if each < _FEW:
            return (
                f"it has memorised the training images (accuracy {max(seen):.2f}), but {each:.0f} "
                "per class are too few to generalise from: add images, or start from --weights"
            )
        return (
            f"it has memorised the training images (accuracy {max(seen):.2f}) but does not "
            "generalise: the labels look shuffled, or test and 'select' come from elsewhere"
        )
    if _still_improves(rows, guessing_loss(labels)):
        return (
            f"the loss was still falling after {len(rows)} epochs: give more --epochs or "
            "--time-limit"
        )
    if each < _FEW:
        return f"{each:.0f} training images per class are few: add images, or start from --weights"
    known = [round(value * len(labels)) for value in seen[-2:]]
    if any(above_chance(count, len(labels), guess) for count in known):
        return (
            "training accuracy barely rises: the labels look shuffled, or eps is too large for "
            "this network: try --method standard, then a smaller --eps"
        )
    return (
        "training accuracy never rose: try --method standard, which shows whether the images and "
        "labels can be learnt at all, then a smaller --eps or another --learning-rate"
    )


def _still_improves(rows: Sequence[dict[str, Any]], guess: float) -> bool:
    """Whether the last epoch's loss is the lowest, and still far from its possible minimum."""
    losses = [row["loss"] for row in rows]
    if len(losses) < 2:
        return bool(losses)
    # A ramp of eps makes the task harder over time: a loss that still falls shows learning.
    falls = losses[-1] <= min(losses) and losses[-1] < losses[0] - 0.01
    return falls and losses[-1] > 0.3 * guess
