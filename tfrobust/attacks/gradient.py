"""FGSM and PGD: one loop of projected gradient ascent, with other arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tfrobust.attacks.losses import LOSSES
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

Tensor = Any
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent, Madry et al. (2018), https://arxiv.org/abs/1706.06083.

    Attributes:
      steps: gradient steps.
      step_size: length of a step, in the units of eps; None is 2.5 * eps / steps, and
        eps itself for a single step.
      random_start: start at random in the ball instead of at x.
      restarts: independent runs; the caller repeats the attack with other seeds on
        the examples that still stand.
      loss: what is climbed, a name of `LOSSES`.
      early_stop: leave an example where it is once it is misclassified; off for
        training, where the loss is to be climbed as far as the steps go.
    """

    steps: int = 20
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    loss: str = "cross_entropy"
    early_stop: bool = True

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")
        if self.steps < 1 or self.restarts < 1:
            raise UsageError("PGD: steps and restarts are expected to be at least 1.")

    @property
    def gradient_evaluations(self) -> int:
        """Gradients per example in one run, restarts aside; the most, with `early_stop`."""
        return self.steps

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Any batch size works, also one that is unknown while tracing. Examples do not
        influence each other, but for the random start, which depends on the position
        in the batch.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball.
          seed: int32 [2], for the random start.
        """
        step_size = self.resolved_step_size(threat_model.eps)
        start = threat_model.random_start(x, seed) if self.random_start else x

        def goes_on(i: Tensor, x_adv: Tensor, standing: Tensor) -> Tensor:
            return (i < self.steps) & tf.reduce_any(standing)

        def step(i: Tensor, x_adv: Tensor, standing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            grad, logits = input_gradient(model, x_adv, y, self.loss)
            moved = x_adv + threat_model.steepest_step(grad, step_size)
            moved = threat_model.project(moved, x)
            if self.early_stop:
                standing = tf.argmax(logits, axis=1, output_type=y.dtype) == y
                moved = tf.where(standing[:, None, None, None], moved, x_adv)
            return i + 1, moved, standing

        # One step at a time: parallel iterations would only hold more memory.
        state = (tf.constant(0), start, tf.ones_like(y, tf.bool))
        _, x_adv, _ = tf.while_loop(goes_on, step, state, parallel_iterations=1)
        return tf.stop_gradient(x_adv)

    def resolved_step_size(self, eps: float) -> float:
        """The step size in use at radius `eps`."""
        if self.step_size is not None:
            return self.step_size
        return eps if self.steps == 1 else 2.5 * eps / self.steps


@dataclass(frozen=True, kw_only=True)
class FGSM(PGD):
    """Fast gradient sign method, Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572.

    PGD with one step of length eps from x itself; all that can be chosen is the loss.
    """

    steps: int = field(default=1, init=False)
    step_size: float | None = field(default=None, init=False)
    random_start: bool = field(default=False, init=False)
    restarts: int = field(default=1, init=False)
    early_stop: bool = field(default=False, init=False)


def input_gradient(model: Model, x: Tensor, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """The gradient of each example's own loss at x, like x, and the logits there.

    Gradients that are not finite count as 0: the example is not moved along them.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = model(x)
        # The sum, not the mean: no gradient may shrink with the batch size.
        total = tf.reduce_sum(LOSSES[loss](logits, y))
    # A model that blocks its gradient (rounding) is one with gradient 0, not an error.
    grad = tape.gradient(total, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.where(tf.math.is_finite(grad), grad, tf.zeros_like(grad)), logits
