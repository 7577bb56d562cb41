"""Single-step adversarial training with noise, at the price of two gradients a step."""

from __future__ import annotations

from tfrobust.training.pgd import AdversarialTraining


class Fast(AdversarialTraining):
    """Adversarial training that crafts by N-FGSM whatever the recipe's crafting is.

    De Jorge et al. (2022), https://arxiv.org/abs/2202.01181. Single steps can overfit within
    a few hundred steps of training: see `Guard`.
    """

    perturbs_weights = False
    aims = False
    single_step = True
