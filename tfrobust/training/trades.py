"""TRADES and MART: losses that weigh the clean prediction against its stability."""

from __future__ import annotations

from typing import Any

from tfrobust.attacks.losses import kl_divergence
from tfrobust.runtime import tf
from tfrobust.training.step import RobustStep
from tfrobust.typing import Tensor

# At x itself the divergence has its minimum, with gradient 0.
_START = 0.001
# Keeps MART's logarithm finite if another class has probability 1.
_MARGIN = 1e-4


class Trades(RobustStep):
    """Cross-entropy on x plus beta * KL(p(x) || p(x_adv)).

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573. x_adv maximises that divergence,
    from x plus normal noise of standard deviation 0.001, in the ball. Gradients flow through
    both predictions. Steps and step size are the recipe's; its random start is ignored.
    """

    perturbs_weights = True
    aims = False
    trained = 2

    def craft(self, x: Tensor, y: Tensor) -> Tensor:
        """Images on which the prediction differs most from that on x, like x."""
        ball = self.ball
        noise = tf.random.stateless_normal(tf.shape(x), self.seed(), stddev=_START)
        start = ball.project(x + noise, x)
        return self.recipe.attack.diverge(self.attacked(), x, y, start, ball)

    def losses_of(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> dict[str, Any]:
        """The two terms; label smoothing applies to the first."""
        clean, adv = self.forward(x, "clean"), self.forward(x_adv, "adversarial")
        divergence = self.mean(kl_divergence(clean, adv))
        loss = self.cross_entropy(clean, y) + self.recipe.beta * divergence
        return {"loss": loss, "clean": clean, "adv": adv}


class Mart(RobustStep):
    """Boosted cross-entropy on x_adv plus beta * KL(p(x) || p(x_adv)) * (1 - p_y(x)).

    Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS. The first term is
    -log p_y(x_adv) - log(1 - the largest wrong p(x_adv)); the second weighs images more if they
    are misclassified even when clean. x_adv maximises cross-entropy, as in 'pgd'.
    """

    trained = 2

    def losses_of(self, x: Tensor, x_adv: Tensor | None, y: Tensor) -> dict[str, Any]:
        """The two terms; label smoothing applies to the cross-entropy."""
        clean, adv = self.forward(x, "clean"), self.forward(x_adv, "adversarial")
        own = tf.one_hot(y, tf.shape(adv)[1])
        wrong = tf.reduce_max(tf.nn.softmax(adv) * (1.0 - own), axis=1)
        boosted = self.cross_entropy(adv, y) - self.mean(tf.math.log(1.0 + _MARGIN - wrong))
        doubt = 1.0 - tf.reduce_sum(tf.nn.softmax(clean) * own, axis=1)
        unstable = self.mean(kl_divergence(clean, adv) * doubt)
        loss = boosted + self.recipe.beta * unstable
        return {"loss": loss, "clean": clean, "adv": adv}

    def loss_of_guessing(self, entropy: float) -> None:
        """Unknown: the boosted term depends on which class is second."""
        return None
