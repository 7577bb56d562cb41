"""EAD: perturbations with a small l1 norm, by iterative shrinkage and thresholding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.active_rows import where
from tfrobust.attacks.ascent import input_gradient, squared_size
from tfrobust.attacks.boundary import column
from tfrobust.attacks.minimal import Model, Rows, record, require
from tfrobust.attacks.tradeoff import TradeOff
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class EAD(TradeOff):
    """Elastic-net attack, Chen et al. (2018), https://arxiv.org/abs/1709.04114, in l1.

    Minimises weight * max(confidence - margin, 0) + ||delta||_2^2 + beta * ||delta||_1 by
    accelerated shrinkage and thresholding. The iterate nearest in l1 is returned, the paper's l1
    rule.

    Attributes:
      steps: maximum gradient steps of each search; their size decays to 0 as a square root.
      searches: number of weights to try.
      initial: initial weight.
      confidence: target margin, 0 or more; any misclassification counts.
      learning_rate: size of the first steps.
      beta: minimum change of a value, in pixel values, for it to change at all in a step; as in the
        authors' code, which makes the weight of the l1 norm beta over the step size.

    Raises:
      UsageError: a value out of range; when called, an unsupported norm.

    Examples:
      >>> attack = tr.EAD(steps=20, searches=3, initial=1.0)
      >>> tr.minimal_distance(model, (x[:8], y[:8]), attack).norm
      'l1'
    """

    own_norm: ClassVar[str] = "l1"
    norms: ClassVar[tuple[str, ...]] = ("l1",)

    beta: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0, "beta")

    def _memory(self, x: Tensor, y: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Any, ...]:
        return x, self._first(y)

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        ahead, search = rows.memory
        grad, logits = input_gradient(model, ahead, rows.y, "margin")
        _, pull = self._penalty(logits, rows.y, search)
        descent = 2.0 * (ahead - rows.x) - column(pull) * grad
        done = tf.cast(search.done, tf.float32)
        size = self.learning_rate * tf.sqrt(1.0 - done / self.steps)
        z = self._shrunk(ahead - column(size) * descent, rows.x, ball)
        logits = model(z)
        before, (rows, wrong) = rows.z, record(rows, z, logits, ball)
        penalty, _ = self._penalty(logits, rows.y, search)
        search, ended = self._advance(search, wrong, self._cost(z - rows.x) + penalty)
        ahead = z + column(done / (done + 3.0)) * (z - before)
        rows = rows._replace(
            z=where(ended, rows.x, z), memory=(where(ended, rows.x, ahead), search)
        )
        return rows, search.searches >= self.searches

    def _shrunk(self, point: Tensor, x: Tensor, ball: ThreatModel) -> Tensor:
        """The point with each value moved by `beta` towards x, at most to x, and clipped."""
        delta = point - x
        shrunk = tf.sign(delta) * tf.maximum(tf.abs(delta) - self.beta, 0.0)
        return tf.clip_by_value(x + shrunk, *ball.bounds)

    def _cost(self, delta: Tensor) -> Tensor:
        size = tf.reduce_sum(tf.abs(delta), axis=[1, 2, 3])
        return squared_size(delta) + self.beta * size
