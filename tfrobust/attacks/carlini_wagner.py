"""Carlini and Wagner's attack in l2: Adam after a change of variables, and a weight search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.active_rows import where
from tfrobust.attacks.ascent import input_gradient, squared_size
from tfrobust.attacks.boundary import column
from tfrobust.attacks.minimal import Model, Rows, adam, record
from tfrobust.attacks.tradeoff import TradeOff
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

# The inverse of the hyperbolic tangent is infinite at the bounds.
_INSIDE = 0.999999


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(TradeOff):
    """Carlini and Wagner (2017), https://arxiv.org/abs/1608.04644, in l2.

    Adam descends ||x_adv - x||^2 + weight * max(confidence - margin, 0) over w, where tanh(w)
    spans the bounds. The authors' code tests convergence and stops by whole batches; here each
    example proceeds on its own.

    Attributes:
      steps: maximum gradient steps of each search.
      searches: number of weights to try.
      initial: initial weight.
      confidence: target margin, 0 or more; any misclassification counts.
      learning_rate: of Adam.

    Raises:
      UsageError: a value out of range; when called, an unsupported norm.

    Examples:
      >>> attack = tr.CarliniWagner(steps=20, searches=3, initial=1.0)
      >>> found = tr.minimal_distance(model, (x[:8], y[:8]), attack)
      >>> found.norm, len(found.distances)
      ('l2', 8)
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)

    def _memory(self, x: Tensor, y: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Any, ...]:
        return _as_free(x, ball), tf.zeros_like(x), tf.zeros_like(x), self._first(y)

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        free, first, second, search = rows.memory
        grad, logits = input_gradient(model, rows.z, rows.y, "margin")
        rows, wrong = record(rows, rows.z, logits, ball)
        delta = rows.z - rows.x
        penalty, pull = self._penalty(logits, rows.y, search)
        descent = (2.0 * delta - column(pull) * grad) * _slope(free, ball)
        count = column(tf.cast(search.done + 1, tf.float32))
        step, first, second = adam(descent, first, second, count)
        free = free - self.learning_rate * step
        search, ended = self._advance(search, wrong, squared_size(delta) + penalty)
        nothing = tf.zeros_like(delta)
        free = where(ended, _as_free(rows.x, ball), free)
        memory = (free, where(ended, nothing, first), where(ended, nothing, second), search)
        rows = rows._replace(z=_as_image(free, ball), memory=memory)
        return rows, search.searches >= self.searches


def _as_free(x: Tensor, ball: ThreatModel) -> Tensor:
    """The unconstrained variable of an image."""
    low, high = ball.bounds
    return tf.atanh((2.0 * (x - low) / (high - low) - 1.0) * _INSIDE)


def _as_image(free: Tensor, ball: ThreatModel) -> Tensor:
    low, high = ball.bounds
    return low + 0.5 * (high - low) * (tf.tanh(free) + 1.0)


def _slope(free: Tensor, ball: ThreatModel) -> Tensor:
    """The derivative of the image by its variable."""
    low, high = ball.bounds
    return 0.5 * (high - low) * (1.0 - tf.square(tf.tanh(free)))
