"""PGD-L0: gradient ascent in a ball of a few pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tfrobust.attacks.ascent import Climb, Model, Rows, ascend, begin, named_loss
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.minimal import require, require_positive
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

_NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class PGDL0(Attack):
    """PGD in l0, Croce and Hein (2019), https://arxiv.org/abs/1909.05040.

    Steps along the gradient, with a length proportional to the image's size, projected onto ball
    and bounds together: every step can choose all pixels anew.

    Attributes:
      steps: gradient steps.
      step_size: mean change of a value in a step, before the projection.
      random_start: start from slightly noisy pixels instead of x. (Random colours would keep
        their pixels: the projection keeps the largest changes.)
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      loss: the loss to maximise, a name of `LOSSES`.

    Raises:
      UsageError: a value out of range; when called, an unsupported norm.

    Examples:
      >>> x_adv = tr.PGDL0(steps=5).perturb(model, x[:8], y[:8], tr.L0(3))
      >>> int((x_adv != x[:8]).any(axis=3).sum(axis=(1, 2)).max()) <= 3
      True
    """

    gains_by_steps: ClassVar[bool] = True
    takes_budget: ClassVar[bool] = True
    own_norm: ClassVar[str] = "l0"
    norms: ClassVar[tuple[str, ...]] = ("l0",)

    steps: int = 20
    step_size: float = 0.15
    random_start: bool = True
    restarts: int = 1
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        require(self, 1, "steps", "restarts")
        require_positive(self, "step_size")
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")

    @property
    def gradient_evaluations(self) -> int:
        """Maximum number of gradients per example in one run."""
        return self.steps

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball, in l0.
          seed: int32 [2], for the random start.

        Raises:
          UsageError: an unsupported norm.
        """
        if threat_model.norm != "l0":
            raise UsageError(f"PGDL0: expected the norm l0, found {threat_model.norm!r}; use PGD.")
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)

        def move(i: Tensor, rows: Rows, grad: Tensor) -> tuple[Tensor, Tensor]:
            # Divided by the largest value first: sums of tiny gradients underflow.
            grad = _over(grad, tf.reduce_max(tf.abs(grad), axis=[1, 2, 3], keepdims=True))
            step = _over(grad, tf.reduce_mean(tf.abs(grad), axis=[1, 2, 3], keepdims=True))
            return threat_model.project(rows.x_adv + self.step_size * step, rows.x), rows.memory

        start = threat_model.project(x + _noise(x, seed), x) if self.random_start else x
        climb = Climb(self.steps, lambda logits, rows: named_loss(self.loss)(logits, rows.y), move)
        return ascend(model, begin(x, y, start), climb)


def _noise(x: Tensor, seed: Tensor) -> Tensor:
    return tf.random.stateless_uniform(tf.shape(x), seed, -_NOISE, _NOISE)


def _over(values: Tensor, divisor: Tensor) -> Tensor:
    return tf.math.divide_no_nan(values, divisor)
