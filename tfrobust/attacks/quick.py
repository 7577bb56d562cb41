"""The suite where none is named: near AutoAttack's worst case at a part of its cost."""

from __future__ import annotations

import dataclasses

from tfrobust.typing import Attack

#: Goal classes of the targeted attack, and the steps towards each.
TARGETS, STEPS = 9, 20
#: Steps of Auto-PGD on cross-entropy.
UNTARGETED_STEPS = 40


def quick(norm: str = "linf", classes: int | None = None) -> dict[str, Attack]:
    """FGSM and PGD, and what they leave to Auto-PGD: on cross-entropy, then towards other classes.

    What keeps a score too high after PGD is most often its fixed step, and its loss, which aims
    at no class. Auto-PGD (Croce and Hein 2020, https://arxiv.org/abs/2003.01690) has neither
    fault: 40 steps on cross-entropy, and 20 towards each of the nine likeliest wrong classes on
    what still stands, find nearly all of what the whole ensemble finds (`python -m
    benchmarks.quick` measures how near).

    Args:
      norm: of the ball. Auto-PGD does not work in 'l0', where PGD on the margin takes its place.
      classes: of the model, K; None is "at least 4". Targets are at most K - 1 in any case.

    Returns:
      name -> attack, in the order to run them, each on what the ones before it left standing.

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
