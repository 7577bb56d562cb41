"""Noise: plain random noise, the baseline of every attack, and optimised noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter
from tfrobust.attacks.ascent import (
    Climb,
    Model,
    Path,
    Rows,
    ascend,
    begin,
    record,
    squared_size,
)
from tfrobust.attacks.losses import margin
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class UniformNoise(Attack):
    """Noise drawn by `ThreatModel.random_start`: a baseline that every attack must beat.

    In 'linf' and 'l2' it is uniform in the ball. Each run keeps the first misclassified draw,
    or else the draw with the largest margin (the largest wrong logit minus the right one). It
    needs no gradients.

    Attributes:
      tries: draws for each example in one run.
      restarts: independent runs, repeated by the caller with other seeds on the examples
        that survive.

    Raises:
      UsageError: a value below 1.
    """

    needs_gradient: ClassVar[bool] = False
    whole_ball: ClassVar[bool] = False

    tries: int = 10
    restarts: int = 1

    def __post_init__(self) -> None:
        _at_least_one(self, "tries", "restarts")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Noisy images, float32 [B, H, W, C], inside the ball and the bounds.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball.
          seed: int32 [2], for the draws.
        """
        return _worst_draw(model, x, y, seed, self.tries, threat_model.random_start)


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Attack):
    """Gaussian noise, projected onto the ball: a baseline that every attack must beat.

    Selects among its `tries` draws as `UniformNoise` does, and needs no gradients either.

    Attributes:
      std: standard deviation, in pixel values of [0, 1]; None fits the ball: eps in 'linf', the
        deviation at which noise has length eps on average in 'l2' and 'l1', half the width of
        the bounds in 'l0', where eps random pixels are changed.
      tries: draws for each example in one run.
      restarts: independent runs, repeated by the caller with other seeds on the examples
        that survive.

    Raises:
      UsageError: tries or restarts below 1, or a std that is not positive.
    """

    needs_gradient: ClassVar[bool] = False
    whole_ball: ClassVar[bool] = False

    std: float | None = None
    tries: int = 10
    restarts: int = 1

    def __post_init__(self) -> None:
        _at_least_one(self, "tries", "restarts")
        if self.std is not None:
            _positive(self, "std")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Noisy images, float32 [B, H, W, C], inside the ball and the bounds.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball.
          seed: int32 [2], for the draws.
        """

        def draw(x: Tensor, seed: Tensor) -> Tensor:
            std = fitting_std(threat_model, x) if self.std is None else self.std
            return gaussian_start(x, std, threat_model, seed)

        return _worst_draw(model, x, y, seed, self.tries, draw)


@dataclass(frozen=True, kw_only=True)
class OptimisedNoise(Attack):
    """Gaussian noise moved towards misclassification by gradient ascent.

    From x plus Gaussian noise it maximises ``1 - p(y) - penalty * ||x_adv - x||_2 ** 2`` by
    plain gradient steps, projected onto the ball; an example is done once it is misclassified.
    Where p(y) is nearly 1 the gradient almost vanishes: the method finds small, natural-looking
    noise, and does not measure robustness.

    Attributes:
      steps: gradient steps.
      learning_rate: a step is this many times the gradient (in pixel values).
      std: standard deviation of the initial noise, in pixel values of [0, 1].
      penalty: weight of the squared size of the noise; 0 or more.
      restarts: independent runs, repeated by the caller with other seeds on the examples
        that survive.

    Raises:
      UsageError: a value out of range, or penalty and learning_rate so large that the penalty
        alone overshoots (2 * penalty * learning_rate of 1 or more).
    """

    whole_ball: ClassVar[bool] = False
    path_title: ClassVar[str] = "Optimised noise"

    steps: int = 50
    learning_rate: float = 0.1
    std: float = 0.01
    penalty: float = 0.1
    restarts: int = 1

    def __post_init__(self) -> None:
        _at_least_one(self, "steps", "restarts")
        _positive(self, "learning_rate", "std")
        if not self.penalty >= 0:
            raise UsageError(f"penalty: expected 0 or more, found {self.penalty!r}.")
        if 2 * self.penalty * self.learning_rate >= 1:
            raise UsageError(
                f"penalty: expected less than 1 / (2 * learning_rate) = "
                f"{1 / (2 * self.learning_rate):g}, found {self.penalty!r}: lower one of them."
            )

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Noisy images, float32 [B, H, W, C], inside the ball and the bounds.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball.
          seed: int32 [2], for the start.
        """
        return ascend(model, *self._setup(x, y, threat_model, seed))

    def path(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Path:
        """The course of the attack, `steps` + 1 points; its last images are the attack's result."""
        return record(model, *self._setup(x, y, threat_model, seed))

    def _setup(
        self, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> tuple[Rows, Climb]:
        x = tf.convert_to_tensor(x)

        def objective(logits: Tensor, rows: Rows) -> Tensor:
            return wrong_probability(logits, rows.y) - self.penalty * squared_size(
                rows.x_adv - rows.x
            )

        def move(i: Tensor, rows: Rows, grad: Tensor) -> tuple[Tensor, Tensor]:
            moved = rows.x_adv + self.learning_rate * grad
            return threat_model.project(moved, rows.x), rows.memory

        start = gaussian_start(x, self.std, threat_model, seed)
        return begin(x, y, start), Climb(self.steps, objective, move)


def gaussian_start(
    x: Tensor, std: float | Tensor, threat_model: ThreatModel, seed: Tensor
) -> Tensor:
    """x plus Gaussian noise with deviation `std`, projected onto the ball, like x."""
    noise = std * tf.random.stateless_normal(tf.shape(x), seed, dtype=x.dtype)
    return threat_model.project(x + noise, x)


def fitting_std(threat_model: ThreatModel, x: Tensor) -> float | Tensor:
    """The deviation of Gaussian noise that fills the ball around images like x [B, ...].

    Returns:
      In pixel values, a scalar: see `GaussianNoise.std`.
    """
    values = tf.cast(tf.math.reduce_prod(tf.shape(x)[1:]), tf.float32)
    if threat_model.norm == "linf":
        return threat_model.eps
    if threat_model.norm == "l2":
        return threat_model.eps / tf.sqrt(values)
    if threat_model.norm == "l1":
        # The mean of a Gaussian's absolute value is std * sqrt(2 / pi).
        return threat_model.eps / (values * math.sqrt(2 / math.pi))
    return (threat_model.bounds[1] - threat_model.bounds[0]) / 2


def wrong_probability(logits: Tensor, y: Tensor) -> Tensor:
    """1 - p(y), float32 [B], summed over the wrong classes.

    Computed as 1 minus p(y) it would round to 0, with gradient 0, where p(y) is near 1.
    """
    own = tf.one_hot(y, tf.shape(logits)[1], on_value=True, off_value=False, dtype=tf.bool)
    probs = tf.nn.softmax(logits)
    return tf.reduce_sum(tf.where(own, tf.zeros_like(probs), probs), axis=1)


def _worst_draw(
    model: Model,
    x: Tensor,
    y: Tensor,
    seed: Tensor,
    tries: int,
    draw: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The first misclassified one of `tries` draws (x, seed) -> x_adv, or the worst of them."""
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)

    def step(i: Tensor, x_adv: Tensor, worst: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        labels = tf.gather(y, index)
        drawn = draw(tf.gather(x, index), tf.random.experimental.stateless_fold_in(seed, i))
        logits = model(drawn)
        active, score = is_correct(logits, labels), margin(logits, labels)
        taken = ~active | (score > tf.gather(worst, index))
        rows, drawn, score = keep(index, taken, drawn, score)
        x_adv, worst = scatter(x_adv, rows, drawn), scatter(worst, rows, score)
        return i + 1, x_adv, worst, keep(index, active)[0]

    state = (tf.constant(0), x, tf.fill(tf.shape(y), -float("inf")), all_rows(y))
    shapes = (state[0].shape, x.shape, state[2].shape, tf.TensorShape([None]))
    _, x_adv, _, _ = tf.while_loop(
        lambda i, x_adv, worst, index: (i < tries) & (tf.size(index) > 0),
        step,
        state,
        shape_invariants=shapes,
        parallel_iterations=1,
    )
    return tf.stop_gradient(x_adv)


def _at_least_one(attack: Any, *names: str) -> None:
    for name in names:
        if getattr(attack, name) < 1:
            raise UsageError(f"{name}: expected 1 or more, found {getattr(attack, name)!r}.")


def _positive(attack: Any, *names: str) -> None:
    for name in names:
        if not getattr(attack, name) > 0:
            raise UsageError(f"{name}: expected more than 0, found {getattr(attack, name)!r}.")
