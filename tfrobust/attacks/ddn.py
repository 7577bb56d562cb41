"""DDN: the gradient sets the direction; the last image, adversarial or not, sets the norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.ascent import input_gradient
from tfrobust.attacks.boundary import column
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.minimal import MinimalNorm, Model, Rows, annealed, record, require_positive
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class DDN(MinimalNorm):
    """Decoupled direction and norm, Rony et al. (2019), https://arxiv.org/abs/1811.09600.

    In l2. The perturbation follows the gradient and is rescaled to a length that shrinks by the
    factor 1 - `gamma` if the last image was adversarial, and grows by 1 + `gamma` if not. The
    authors' code rounds images to 256 levels; this one does not.

    Attributes:
      steps: gradient steps; their size falls from 1 to 0.01 along a cosine.
      initial: initial length.
      gamma: relative change of the length in each step, in (0, 1).
      loss: the loss to maximise, a name of `LOSSES`.

    Raises:
      UsageError: a value out of range; when called, an unsupported norm.

    Examples:
      >>> found = tr.minimal_distance(model, (x[:16], y[:16]), tr.DDN(steps=30))
      >>> found.norm, found.found
      ('l2', 1.0)
    """

    gains_by_steps: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("l2",)

    initial: float = 1.0
    gamma: float = 0.05
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "initial", "gamma")
        if not self.gamma < 1:
            raise UsageError(f"gamma: expected less than 1, found {self.gamma!r}.")
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")

    def _memory(self, x: Tensor, y: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Any, ...]:
        return (tf.fill(tf.shape(y), float(self.initial)),)

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        grad, logits = input_gradient(model, rows.z, rows.y, self.loss)
        rows, wrong = record(rows, rows.z, logits, ball)
        length = rows.memory[0] * tf.where(wrong, 1.0 - self.gamma, 1.0 + self.gamma)
        size = annealed(1.0, 0.01, i, self.steps)
        delta = rows.z - rows.x + ball.steepest_step(grad, size)
        scale = tf.math.divide_no_nan(length, ball.distance(delta, tf.zeros_like(delta)))
        z = tf.clip_by_value(rows.x + column(scale) * delta, *ball.bounds)
        return rows._replace(z=z, memory=(length,)), None
