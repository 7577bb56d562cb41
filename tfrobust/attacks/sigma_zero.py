"""sigma-zero: gradient steps on a smooth count of changed values, with adaptive threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.active_rows import where
from tfrobust.attacks.ascent import input_gradient
from tfrobust.attacks.boundary import column
from tfrobust.attacks.minimal import (
    MinimalNorm,
    Model,
    Rows,
    adam,
    annealed,
    record,
    require_positive,
)
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class SigmaZero(MinimalNorm):
    """sigma-zero, Cina et al. (2024), https://arxiv.org/abs/2402.01879.

    In l0. Adam, as in the authors' code, minimises the right class's lead, if it has one, plus
    the share of changed pixels, counted smoothly: a pixel changed by the Euclidean length d
    counts d^2 / (d^2 + sigma). After each step, pixels that changed less than a threshold are
    reset; the threshold rises if the last image was adversarial and falls if not. The paper
    counts single values, this project pixels: with one channel they are the same.

    Attributes:
      steps: gradient steps.
      step_size: the largest change of a value in the first step, in pixel values; it decays to
        a tenth along a cosine.
      sigma: smoothness of the count.
      threshold: initial threshold, in pixel values.
      adaptation: change of the threshold in a step, per unit of step size.

    Raises:
      UsageError: a value that is not positive; when called, an unsupported norm.

    Examples:
      >>> found = tr.minimal_distance(model, (x[:16], y[:16]), tr.SigmaZero(steps=50))
      >>> found.norm, found.median >= 1
      ('l0', True)
    """

    gains_by_steps: ClassVar[bool] = True
    own_norm: ClassVar[str] = "l0"
    norms: ClassVar[tuple[str, ...]] = ("l0",)

    steps: int = 300
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    adaptation: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "step_size", "sigma", "threshold", "adaptation")

    def _memory(self, x: Tensor, y: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Any, ...]:
        return tf.fill(tf.shape(y), float(self.threshold)), tf.zeros_like(x), tf.zeros_like(x)

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        grad, logits = input_gradient(model, rows.z, rows.y, "margin")
        rows, wrong = record(rows, rows.z, logits, ball)
        size = annealed(self.step_size, self.step_size / 10, i, self.steps)
        descent = self._smooth_count_gradient(rows.z - rows.x) - where(
            wrong, tf.zeros_like(grad), grad
        )
        largest = tf.reduce_max(tf.abs(descent), axis=[1, 2, 3], keepdims=True)
        descent = tf.math.divide_no_nan(descent, largest)
        threshold, first, second = rows.memory
        step, first, second = adam(descent, first, second, tf.cast(i + 1, tf.float32))
        z = tf.clip_by_value(rows.z - size * step, *ball.bounds)
        change = self.adaptation * size * tf.where(wrong, 1.0, -1.0)
        threshold = tf.clip_by_value(threshold + change, 0.0, 1.0)
        changed = tf.reduce_max(tf.abs(z - rows.x), axis=3, keepdims=True) >= column(threshold)
        # Reset to x itself, not to a sum that rounds.
        z = tf.where(changed, z, rows.x)
        return rows._replace(z=z, memory=(threshold, first, second)), None

    def _smooth_count_gradient(self, delta: Tensor) -> Tensor:
        """The gradient of the smooth share of changed pixels by the change, like delta."""
        size = tf.reduce_sum(tf.square(delta), axis=3, keepdims=True)
        pixels = tf.cast(tf.shape(delta)[1] * tf.shape(delta)[2], tf.float32)
        return 2.0 * self.sigma * delta / (tf.square(size + self.sigma) * pixels)
