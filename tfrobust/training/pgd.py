"""Adversarial training, and the methods that differ from it only in what they craft."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tfrobust.attacks.gradient import FGSM
from tfrobust.runtime import tf
from tfrobust.training.step import RobustStep
from tfrobust.typing import Tensor


class AdversarialTraining(RobustStep):
    """Cross-entropy on the adversarial batch only: one training pass per step.

    Madry et al. (2018), https://arxiv.org/abs/1706.06083. The same loss and examples as 'nsl' with
    a `clean_weight` of 0 and an `adv_weight` of 1, but without NSL's wrapper, and with `awp`.
    The adversarial batch updates BatchNorm's statistics under any policy but 'none': there is no
    other batch.
    """

    perturbs_weights = True

    def losses_of(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> dict[str, Any]:
        """Cross-entropy on x_adv."""
        logits = self.forward(x_adv, "adversarial", alone=True)
        return {"loss": self.cross_entropy(logits, y), "adv": logits}


class Blend(AdversarialTraining):
    """Trains on a weighted average of the clean and the adversarial image.

    The loss is cross-entropy on (1 - blend) * x + blend * x_adv, which lies in the ball of radius
    blend * eps; `adv_accuracy` is measured on this average.
    """

    perturbs_weights = False

    def craft(self, x: Tensor, y: Tensor) -> Tensor:
        """The average, like x."""
        return x + self.recipe.blend * (super().craft(x, y) - x)


class Noise(AdversarialTraining):
    """Gaussian augmentation: cross-entropy on x plus noise, for randomised smoothing.

    Cohen et al. (2019), https://arxiv.org/abs/1902.02918. The noise is neither clipped to the
    bounds nor projected onto the ball: smoothing certifies the classifier under exactly this
    noise. `adv_accuracy` is measured under the noise.
    """

    perturbs_weights = False
    aims = False

    def craft(self, x: Tensor, y: Tensor) -> Tensor:
        """x + noise_std * normal noise, like x, possibly outside the bounds."""
        return x + tf.random.stateless_normal(
            tf.shape(x), self.seed(), stddev=self.recipe.noise_std
        )


class Mixture(AdversarialTraining):
    """Each batch is clean, or crafted by FGSM, or by PGD; one training pass for each.

    A batch is adversarial with probability `adv_probability`, then crafted by FGSM with radius
    `fgsm_eps` or by the recipe's PGD at even odds, drawn by seed and step. Only the drawn kind is
    computed. x_adv lies in the ball if `fgsm_eps` does. `clean_accuracy` and `adv_accuracy` are
    measured on the batches of each kind.
    """

    perturbs_weights = False

    def kind(self) -> Tensor:
        """The kind of this step's batch: 0 clean, 1 FGSM, 2 PGD; int32 scalar."""
        # A separate seed: the random start draws from the step's.
        seed = tf.random.experimental.stateless_fold_in(self.shared_seed(), 2)
        first, second = tf.unstack(tf.random.stateless_uniform([2], seed))
        which = 1 + tf.cast(second >= 0.5, tf.int32)
        return tf.where(first < self.recipe.adv_probability, which, 0)

    def craft(self, x: Tensor, y: Tensor) -> Tensor:
        """The step's batch, like x: x itself, or adversarial."""
        return tf.switch_case(
            self.kind(),
            [lambda: tf.identity(x), lambda: self._fgsm(x, y), lambda: self._pgd(x, y)],
        )

    def losses_of(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> dict[str, Any]:
        """Cross-entropy on the step's batch."""
        terms = super().losses_of(x, x_adv, y)
        hit = tf.cast(self.kind() > 0, tf.float32)
        counted = {"clean": 1.0 - hit, "adv": hit}
        shares = {"clean": 1.0 - self.recipe.adv_probability, "adv": self.recipe.adv_probability}
        # A kind that is never drawn has no accuracy.
        seen = {key: terms["adv"] for key, share in shares.items() if share}
        return {"loss": terms["loss"], "counted": counted, **seen}

    def _pgd(self, x: Tensor, y: Tensor) -> Tensor:
        return super().craft(x, y)

    def _fgsm(self, x: Tensor, y: Tensor) -> Tensor:
        attack = FGSM(targeted=self.recipe.attack.targeted, target=self.recipe.attack.target)
        ball = replace(self.ball, eps=self.eps_share * self.recipe.fgsm_eps)
        return attack(self.attacked(), x, y, ball, self.seed())
