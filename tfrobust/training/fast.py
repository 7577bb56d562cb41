"""Single-step adversarial training with noise, at the price of two gradients a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tfrobust.attacks.ascent import input_gradient
from tfrobust.backbones.folding import fold
from tfrobust.runtime import tf
from tfrobust.training.pgd import AdversarialTraining
from tfrobust.training.recipe import Recipe

Tensor = Any


class Fast(AdversarialTraining):
    """N-FGSM: noise wider than the ball, then one step of length eps; no projection.

    De Jorge et al. (2022), https://arxiv.org/abs/2202.01181. In linf the noise is uniform
    in [-k eps, k eps] with k = `noise_reach`; in other norms it is a random start in a
    ball k times as large. The exception to the guarantee that x_adv lies in the ball: it
    lies within (k + 1) * eps of x, and in the bounds. The recipe's step size is the length
    of the step, eps where it is None; its number of steps and random start are not used.

    Single steps can overfit within a few hundred steps of training: see `Guard`.

    Attributes:
      reach: the k in use, a variable; the guard raises it.
    """

    perturbs_weights = False
    aims = False

    def __init__(self, base_model: Any, recipe: Recipe) -> None:
        super().__init__(base_model, recipe)
        self.reach = tf.Variable(recipe.noise_reach, trainable=False, dtype=tf.float32)

    def craft(self, x: Tensor, y: Tensor) -> Tensor:
        """Noise, then one step; like x, inside the bounds."""
        ball = self.recipe.threat_model
        wide = replace(ball, eps=self.reach * ball.eps)
        start = wide.random_start(x, self.seed())
        grad, _ = input_gradient(fold(self.base_model), start, y, "cross_entropy")
        size = self.recipe.attack.step_size or ball.eps
        moved = start + ball.steepest_step(grad, size)
        return tf.stop_gradient(tf.clip_by_value(moved, *ball.bounds))

    def widen(self) -> float:
        """Widens the noise by one radius of the ball and returns the new reach."""
        self.reach.assign_add(1.0)
        return float(self.reach.numpy())
