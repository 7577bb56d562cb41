"""Score-based attacks that estimate the gradient from the outputs at nearby points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from tfrobust.attacks.active_rows import where
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.queries import (
    ask,
    ask_each,
    at_once,
    check_norm,
    check_queries,
    fold,
    repeat,
    several,
    wide,
)
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function, Tensor

Memory = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class _Estimated(Attack):
    """Ascent along a gradient estimated from antithetic pairs of points.

    Subclasses define how directions are drawn and how the estimate becomes a step.
    """

    needs_gradient: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf",)

    queries: int = 5000
    samples: int = 50
    sigma: float = 0.001
    step_size: float | None = None
    restarts: int = 1
    loss: str = "margin"

    def __post_init__(self) -> None:
        # The image itself, one pair of points, and the point after the step.
        check_queries(self, least=4)
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")
        if self.samples < 2:
            raise UsageError(f"samples: expected 2 or more, found {self.samples!r}.")
        for name in ("sigma", "step_size"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected more than 0, found {getattr(self, name)!r}.")

    def __call__(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        An example is done at its first misclassified iterate; otherwise the last one is returned.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode; no
            gradient is taken.
          x: clean images, float32 [B, H, W, C]; H, W and C are known when traced.
          y: labels, int [B].
          threat_model: the ball.
          seed: int32 [2], for the directions.

        Raises:
          UsageError: the attack does not support the norm.
        """
        check_norm(self, threat_model, self.norms)
        x, y = tf.stop_gradient(tf.convert_to_tensor(x)), tf.convert_to_tensor(y)
        loss, broken = ask(model, x, y, tf.fill(tf.shape(y), True), self.loss)
        steps = (self.queries - 1) // (2 * self._pairs + 1)

        def goes_on(i: Tensor, x_adv: Tensor, loss: Tensor, broken: Tensor, *_: Tensor) -> Tensor:
            return (i < steps) & ~tf.reduce_all(broken)

        def step(i: Tensor, x_adv: Tensor, loss: Tensor, broken: Tensor, *memory: Tensor) -> Memory:
            grad = self._gradient(model, x_adv, y, ~broken, threat_model, fold(seed, i))
            move, memory = self._move(i, grad, loss, memory, threat_model)
            moved = where(broken, x_adv, threat_model.project(x_adv + move, x))
            loss, fell = ask(model, moved, y, ~broken, self.loss)
            return (i + 1, moved, loss, broken | fell, *memory)

        state = (tf.constant(0), x, loss, broken, *self._memory(x))
        return tf.stop_gradient(repeat(goes_on, step, state)[1])

    @property
    def _pairs(self) -> int:
        """Pairs of points per estimate, at most what the budget allows for one step."""
        return max(1, min(self.samples, self.queries - 2) // 2)

    def _gradient(
        self, model: Function, x_adv: Tensor, y: Tensor, wanted: Tensor, ball: ThreatModel,
        seed: Tensor,
    ) -> Tensor:  # fmt: skip
        """The mean of the directions weighted by the loss's slope along each, like x_adv."""
        pairs, count = self._pairs, at_once(x_adv, self._pairs)

        def add(j: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            drawn = self._draw(several(x_adv, count), fold(seed, j))
            there = self.sigma * drawn
            points = tf.concat([x_adv[:, None] + there, x_adv[:, None] - there], axis=1)
            points = tf.clip_by_value(points, *ball.bounds)
            chosen = wanted[:, None] & (j * count + tf.range(count) < pairs)
            values, _ = ask_each(model, points, y, tf.tile(chosen, [1, 2]), self.loss)
            change = values[:, :count] - values[:, count:]
            change = tf.where(tf.math.is_finite(change), change, 0.0)
            return j + 1, total + tf.reduce_sum(wide(change) * drawn, axis=1)

        turns = math.ceil(pairs / count)
        start = (tf.constant(0), tf.zeros_like(x_adv))
        total = repeat(lambda j, _: j < turns, add, start)[1]
        return total / (2 * self.sigma * pairs)

    def _draw(self, shape: Tensor, seed: Tensor) -> Tensor:
        raise NotImplementedError

    def _memory(self, x: Tensor) -> Memory:
        raise NotImplementedError

    def _move(
        self, i: Tensor, grad: Tensor, loss: Tensor, memory: Memory, ball: ThreatModel
    ) -> tuple[Tensor, Memory]:
        """The step, like x, and the updated memory."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class NES(_Estimated):
    """Projected ascent with natural evolution strategies, in linf and l2.

    Ilyas et al. (2018), https://arxiv.org/abs/1804.08598: antithetic pairs of Gaussian directions,
    momentum, signed steps (in l2 along the direction, as in Ilyas et al. 2019,
    https://arxiv.org/abs/1807.07978), and a step size that is halved when the loss stops
    improving. The published loss is the cross-entropy; the default is the margin, as it does not
    saturate.

    Attributes:
      queries: maximum model evaluations per example, the image itself included; at least 4.
      samples: model evaluations per gradient estimate, in pairs.
      sigma: standard deviation of the points around the iterate, in pixels of [0, 1].
      step_size: in the units of eps; None is eps / 5, the published ratio (0.01 at 0.05).
      momentum: share of the last direction that is kept, in [0, 1).
      patience: steps without improvement before an example's step size is halved.
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      loss: the loss to maximise, a name of `LOSSES`.

    Raises:
      UsageError: a value out of range.

    Examples:
      >>> attack = tr.NES(queries=20, samples=4)
      >>> attack.perturb(model, x[:8], y[:8], ball).shape == x[:8].shape
      True
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    momentum: float = 0.9
    patience: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum: expected a number in [0, 1), found {self.momentum!r}.")
        if self.patience < 1:
            raise UsageError(f"patience: expected 1 or more, found {self.patience!r}.")

    def _draw(self, shape: Tensor, seed: Tensor) -> Tensor:
        return tf.random.stateless_normal(shape, seed)

    def _memory(self, x: Tensor) -> Memory:
        """Mean direction; step size factor, best loss and steps without improvement, [B] each."""
        rows = tf.shape(x)[:1]
        return (tf.zeros_like(x), tf.fill(rows, 1.0), tf.fill(rows, -float("inf")),
                tf.zeros(rows, tf.int32))  # fmt: skip

    def _move(
        self, i: Tensor, grad: Tensor, loss: Tensor, memory: Memory, ball: ThreatModel
    ) -> tuple[Tensor, Memory]:
        mean, share, best, waited = memory
        mean = self.momentum * mean + (1 - self.momentum) * grad
        waited = tf.where(loss > best, 0, waited + 1)
        halved = waited >= self.patience
        share = tf.where(halved, 0.5 * share, share)
        waited = tf.where(halved, 0, waited)
        size = ball.eps / 5 if self.step_size is None else self.step_size
        return ball.steepest_step(mean, size * share), (mean, share, tf.maximum(loss, best), waited)


@dataclass(frozen=True, kw_only=True)
class SPSA(_Estimated):
    """Simultaneous perturbation stochastic approximation with Adam's steps, in linf.

    Uesato et al. (2018), https://arxiv.org/abs/1802.05666: every value of an image moves by
    +sigma or -sigma at once, at random; the steps maximise the margin.

    Attributes:
      queries: maximum model evaluations per example, the image itself included; at least 4.
      samples: model evaluations per gradient estimate, in pairs; the strongest published attack
        uses thousands, and needs as many queries.
      sigma: size of the perturbation, in pixels of [0, 1].
      step_size: Adam's learning rate, in pixels of [0, 1]; None is 0.3 eps, about the published
        0.01 at 8/255.
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      loss: the loss to maximise, a name of `LOSSES`.

    Raises:
      UsageError: a value out of range.

    Examples:
      >>> attack = tr.SPSA(queries=20, samples=4)
      >>> attack.perturb(model, x[:8], y[:8], ball).shape == x[:8].shape
      True
    """

    samples: int = 128
    sigma: float = 0.01

    def _draw(self, shape: Tensor, seed: Tensor) -> Tensor:
        return tf.where(tf.random.stateless_uniform(shape, seed) < 0.5, -1.0, 1.0)

    def _memory(self, x: Tensor) -> Memory:
        """Adam's two means."""
        return tf.zeros_like(x), tf.zeros_like(x)

    def _move(
        self, i: Tensor, grad: Tensor, loss: Tensor, memory: Memory, ball: ThreatModel
    ) -> tuple[Tensor, Memory]:
        done = tf.cast(i + 1, tf.float32)
        mean = 0.9 * memory[0] + 0.1 * grad
        square = 0.999 * memory[1] + 0.001 * grad**2
        unbiased = tf.sqrt(square / (1 - 0.999**done))
        rate = 0.3 * ball.eps if self.step_size is None else self.step_size
        return rate * mean / (1 - 0.9**done) / (unbiased + 1e-8), (mean, square)
