"""FMN: projected gradient steps in a ball whose radius adapts to the points found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tfrobust.attacks.ascent import input_gradient
from tfrobust.attacks.hyperplane import dual_norm
from tfrobust.attacks.losses import margin
from tfrobust.attacks.minimal import MinimalNorm, Model, Rows, annealed, record, require_positive
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class FMN(MinimalNorm):
    """Fast minimum-norm attack, Pintor et al. (2021), https://arxiv.org/abs/2102.12827.

    In l0, l1, l2 and linf. Each step ascends the margin and is projected onto a ball with its own
    radius: before anything adversarial is found, the estimated distance of the boundary plus a
    share gamma (which the paper omits); afterwards smaller by that share if the last image was
    adversarial, larger if not. In l0 pixels are counted, whatever the number of channels, and the
    radius changes by at least one pixel.

    Attributes:
      steps: gradient steps.
      step_size: Euclidean length of the first step, in pixel values; it decays to a hundredth
        along a cosine.
      gamma: relative change of the radius in the first step, in (0, 1); it decays to a fiftieth
        along a cosine.

    Raises:
      UsageError: a value out of range.

    Examples:
      >>> found = tr.minimal_distance(model, (x[:16], y[:16]), tr.FMN(steps=30), "linf")
      >>> found.accuracy(0.0) == found.clean_accuracy
      True
      >>> found.accuracy(0.5)
      0.0
    """

    gains_by_steps: ClassVar[bool] = True

    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "step_size", "gamma")
        if not self.gamma < 1:
            raise UsageError(f"gamma: expected less than 1, found {self.gamma!r}.")

    def _memory(self, x: Tensor, y: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Any, ...]:
        return (tf.fill(tf.shape(y), 1.0),)

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        grad, logits = input_gradient(model, rows.z, rows.y, "margin")
        found_before = tf.math.is_finite(rows.distance)
        rows, wrong = record(rows, rows.z, logits, ball)
        gamma = annealed(self.gamma, self.gamma / 50, i, self.steps)
        if ball.norm == "l0":
            radius = _pixels(rows, wrong, gamma)
        else:
            radius = _length(rows, wrong, gamma, found_before, logits, grad, ball)
        size = annealed(self.step_size, self.step_size / 100, i, self.steps)
        step = replace(ball, norm="l2").steepest_step(grad, size)
        z = ball.with_radii(radius).project(rows.z + step, rows.x)
        return rows._replace(z=z, memory=(radius,)), None


def _length(
    rows: Rows, wrong: Tensor, gamma: Tensor, found_before: Tensor, logits: Tensor, grad: Tensor,
    ball: ThreatModel,
) -> Tensor:  # fmt: skip
    """The next radius, float32 [M]."""
    radius = rows.memory[0]
    slope = dual_norm(tf.reshape(grad, [tf.shape(grad)[0], -1]), ball.norm)
    away = tf.abs(margin(logits, rows.y)) / tf.maximum(slope, 1e-12)
    expected = ball.distance(rows.z, rows.x) + away
    # Beyond the boundary: at it nothing is ever found, however many steps are made.
    larger = (1.0 + gamma) * tf.where(found_before, radius, expected)
    return tf.where(wrong, tf.minimum(radius * (1.0 - gamma), rows.distance), larger)


def _pixels(rows: Rows, wrong: Tensor, gamma: Tensor) -> Tensor:
    """The next radius, a whole number of pixels, float32 [M]."""
    count = rows.memory[0]
    fewer = tf.minimum(count - 1.0, tf.floor(count * (1.0 - gamma)))
    more = tf.maximum(count + 1.0, tf.floor(count * (1.0 + gamma)))
    return tf.maximum(tf.where(wrong, tf.minimum(fewer, rows.distance), more), 0.0)
