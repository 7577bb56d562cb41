"""Single-step adversarial training with noise, at the cost of two gradients per step."""

from __future__ import annotations

from tfrobust.training.pgd import AdversarialTraining


class Fast(AdversarialTraining):
    """Adversarial training that always crafts by N-FGSM, ignoring the recipe's `crafting`.

    De Jorge et al. (2022), https://arxiv.org/abs/2202.01181. Single steps can overfit within
    a few hundred steps of training: see `Guard`.
    """

    perturbs_weights = False
    aims = False
    single_step = True
