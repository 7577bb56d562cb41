"""The default suite: close to AutoAttack's worst case at a fraction of its cost."""

from __future__ import annotations

import dataclasses

from tfrobust.typing import Attack

#: Target classes of the targeted attack, and the steps towards each.
TARGETS, STEPS = 9, 20
#: Steps of Auto-PGD on cross-entropy.
UNTARGETED_STEPS = 40


def quick(norm: str = "linf", classes: int | None = None) -> dict[str, Attack]:
    """FGSM, PGD, and Auto-PGD on the survivors: on cross-entropy, then towards other classes.

    PGD mostly overestimates robustness because of its fixed step and its untargeted loss. Auto-PGD
    (Croce and Hein 2020, https://arxiv.org/abs/2003.01690) has neither: 40 steps on
    cross-entropy, and 20 towards each of the nine most likely wrong classes on the examples that
    survive, find nearly all that the whole ensemble finds (`python -m benchmarks.quick`
    measures how nearly).

    Args:
      norm: of the ball. Auto-PGD does not support 'l0', where PGD on the margin replaces it.
      classes: of the model, K; None means "at least 4". There are at most K - 1 targets.

    Returns:
      name -> attack, in the order to run them, each on the examples that survived the previous.

    Examples:
      >>> list(tr.quick("linf", classes=10))
      ['fgsm', 'pgd', 'apgd-ce', 'apgd-t']
    """
    from tfrobust.attacks.apgd import APGD, TargetedAPGD
    from tfrobust.attacks.gradient import FGSM, PGD

    suite: dict[str, Attack] = {"fgsm": FGSM(), "pgd": PGD(restarts=2)}
    if norm not in TargetedAPGD.norms:
        return {**suite, "pgd-margin": dataclasses.replace(PGD(restarts=2), loss="margin")}
    # The targeted DLR loss divides by the spread of four logits.
    loss = "dlr" if classes is None or classes >= 4 else "margin"
    suite["apgd-ce"] = APGD(steps=UNTARGETED_STEPS)
    return {**suite, "apgd-t": TargetedAPGD(loss=loss, n_targets=TARGETS, steps=STEPS)}
