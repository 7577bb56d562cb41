"""Doubts about an evaluation: what makes its figure too good to be believed.

Carlini et al. (2019), https://arxiv.org/abs/1902.06705, and Athalye et al. (2018),
https://arxiv.org/abs/1802.00420, give the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.errors import TFRobustError

if TYPE_CHECKING:
    from tfrobust.evaluation.report import AttackResult

Flag = dict[str, str]


def refuse_probabilities(outputs: np.ndarray) -> None:
    """Refuses a model whose outputs are probabilities.

    Args:
      outputs: float [N, K], what the model returned.

    Raises:
      TFRobustError: outputs are not finite, or every row is non-negative and sums to 1.
    """
    if not np.isfinite(outputs).all():
        raise TFRobustError(
            "The model returns NaN or infinity on clean images: expected finite logits; "
            "check its weights and that it takes images in [0, 1]."
        )
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise TFRobustError(
            "The model returns probabilities (every row is non-negative and sums to 1), expected "
            "logits: attacks through a softmax see vanishing gradients; remove the last softmax."
        )


def doubts(
    predictions: np.ndarray, zero_gradients: float, attacks: Sequence[AttackResult]
) -> tuple[Flag, ...]:
    """What makes this evaluation unreliable, as named flags with their meaning.

    Args:
      predictions: int [N], the top classes on the clean images.
      zero_gradients: part of the examples whose input gradient is 0 everywhere.
      attacks: the results at one radius.
    """
    flags = []
    if len(predictions) > 1 and len(np.unique(predictions)) == 1:
        flags.append(_flag("constant_predictions", (
            f"the model predicts class {predictions[0]} for every image: that no attack changes "
            "this is not robustness"
        )))  # fmt: skip
    if zero_gradients > 0.05:
        flags.append(_flag("zero_gradients", (
            f"the loss has no gradient on {zero_gradients:.0%} of the images: gradients are masked "
            "or vanish, and gradient attacks see nothing"
        )))  # fmt: skip
    by_name: dict[str, Any] = {a.name: a.outcome.correct for a in attacks}
    if "fgsm" in by_name and "pgd" in by_name:
        fgsm, pgd = by_name["fgsm"].mean(), by_name["pgd"].mean()
        if fgsm < pgd - 0.002:
            flags.append(_flag("single_step_beats_iterative", (
                f"FGSM leaves {fgsm:.3f}, PGD {pgd:.3f}: the iterative attack ought to be the "
                "stronger one; gradients are masked or PGD's step size does not fit"
            )))  # fmt: skip
    return tuple(flags)


def _flag(name: str, meaning: str) -> Flag:
    return {"name": name, "meaning": meaning}
