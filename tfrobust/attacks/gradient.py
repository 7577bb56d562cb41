"""FGSM, BIM and PGD: one loop of projected gradient ascent, with other arguments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from tfrobust.attacks.ascent import (
    Climb,
    Model,
    Rows,
    ascend,
    begin,
    input_gradient,
    named_loss,
    require_classes,
    stands,
)
from tfrobust.attacks.losses import LOSSES, TARGETED_LOSSES, kl_divergence
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

__all__ = ["BIM", "FGSM", "PGD", "TARGETS", "choose_target", "input_gradient"]

TARGETS = ("least_likely", "second", "random")
# How far all steps together go, in radii. On a sphere the way is longest: a random start
# lies at a right angle to the goal, and exp(-path) of that angle is left in the end.
_PATH = {"linf": 2.5, "l2": 4.0, "l1": 2.5, "l0": 2.5}
# The last part of the way in l1, in radii, goes to single values: enough to take all that
# is spread over others back.
_FILLING = 1.25


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent, Madry et al. (2018), https://arxiv.org/abs/1706.06083.

    In l1 the first steps are spread over 1 % of the values; the last ones, a way of 1.25
    radii, change single values as far as the bounds let them (`filling_step`).

    Attributes:
      steps: gradient steps.
      step_size: length of a step, in the units of eps; None is 2.5 * eps / steps (in l2
        4 * eps / steps), and eps itself for a single step.
      random_start: start at random in the ball instead of at x.
      restarts: independent runs; the caller repeats the attack with other seeds on
        the examples that still stand.
      loss: what is climbed, a name of `LOSSES`; for a targeted attack its counterpart in
        `TARGETED_LOSSES`. 'dlr' needs 3 classes, targeted 4.
      early_stop: leave an example where it is once it is misclassified, and spend nothing
        more on it; off for training, where the loss is to be climbed as far as the steps
        go.
      momentum: share of the gathered gradient that a step keeps, 0 or more; each new
        gradient enters it with l1 norm 1. Dong et al. (2018),
        https://arxiv.org/abs/1710.06081, who use 1.
      targeted: climb towards a goal class instead of away from the label.
      target: the goal class: 'least_likely' (the smallest logit on the clean image),
        'second' (the largest wrong one), 'random' (any wrong class, by the seed).
      reach_target: what ends a targeted attack for an example. Off: misclassification,
        which is what a measured robust accuracy counts. On: the goal class itself; an
        example that misses it is returned where its steps end.

    Raises:
      UsageError: a value out of range, or `reach_target` without `targeted`; when called,
        a loss that needs more classes than the model has.

    Examples:
      >>> x_adv = tr.PGD(steps=10, restarts=2).perturb(model, x, y, ball, seed=0)
      >>> bool(np.abs(x_adv - x).max() <= ball.eps + 1e-6)
      True
      >>> right = [np.mean(np.argmax(model(images), axis=1) == y) for images in (x, x_adv)]
      >>> bool(right[1] < right[0])
      True
    """

    gains_by_steps: ClassVar[bool] = True
    takes_budget: ClassVar[bool] = True

    steps: int = 20
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    loss: str = "cross_entropy"
    early_stop: bool = True
    momentum: float = 0.0
    targeted: bool = False
    target: str = "least_likely"
    reach_target: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("loss", LOSSES), ("target", TARGETS)):
            if getattr(self, name) not in choices:
                expected, found = ", ".join(choices), getattr(self, name)
                raise UsageError(f"{name}: expected one of {expected}, found {found!r}.")
        if self.steps < 1 or self.restarts < 1:
            raise UsageError("PGD: steps and restarts are expected to be at least 1.")
        if self.step_size is not None and not self.step_size > 0:
            raise UsageError(f"step_size: expected more than 0, found {self.step_size!r}.")
        if not self.momentum >= 0:
            raise UsageError(f"momentum: expected 0 or more, found {self.momentum!r}.")
        if self.reach_target and not self.targeted:
            raise UsageError("reach_target: expected together with targeted, found it alone.")

    def tensors(self, ball: ThreatModel) -> dict[str, np.generic]:
        """The number of steps and their size."""
        if type(self) not in (PGD, BIM):
            return {}  # a subclass may count its steps in Python
        size = self.resolved_step_size(float(ball.eps), ball.norm)
        return {"steps": np.int32(self.steps), "step_size": np.float32(size)}

    @property
    def gradient_evaluations(self) -> int:
        """Gradients per example in one run, restarts aside; the most, with `early_stop`."""
        return self.steps

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Any batch size works, also one that is unknown while tracing. Examples do not
        influence each other, but for random draws, which depend on the position in the
        batch. A targeted attack looks at the clean logits once, before its steps.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball.
          seed: int32 [2], for the random start and a random target.
        """
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        start = threat_model.random_start(x, seed) if self.random_start else x
        goal = self._goal(model, x, y, seed) if self.targeted else None
        memory = tf.zeros_like(x) if self.momentum else None
        climb = self._climb(threat_model, goal)
        return ascend(model, begin(x, y, start, memory), climb, early_stop=self.early_stop)

    def diverge(
        self, model: Model, x: Tensor, y: Tensor, x_adv: Tensor, threat_model: ThreatModel
    ) -> Tensor:
        """Moves the prediction away from that on x: KL(p(x) || p(x_adv)) is climbed.

        The inner maximisation of TRADES: Zhang et al. (2019),
        https://arxiv.org/abs/1901.08573. Every example makes every step. The loss, the
        start and the target of this attack play no part.

        Args:
          model: as above; it is called once more, on x.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B]; they decide nothing.
          x_adv: where to start, inside the ball, like x; not x itself, where the gradient
            of the divergence is 0.
          threat_model: the ball.
        """

        def objective(logits: Tensor, rows: Rows) -> Tensor:
            return kl_divergence(rows.memory, logits)

        # The memory holds the clean logits, so there is none for momentum.
        plain = replace(self, momentum=0.0) if self.momentum else self
        climb = plain._climb(threat_model, None)._replace(objective=objective)
        return ascend(model, begin(x, y, x_adv, model(x)), climb, early_stop=False)

    def first_step(self, x: Tensor, y: Tensor, grad: Tensor, threat_model: ThreatModel) -> Tensor:
        """Where the first step from x itself leads, for those who have the gradient already.

        Args:
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          grad: of the loss that is climbed, by x; its scale plays no part. What is not finite
            counts as 0.
          threat_model: the ball.

        Returns:
          float32 like x, inside the ball and the bounds; no gradient flows through it.
        """
        grad = tf.where(tf.math.is_finite(grad), grad, tf.zeros_like(grad))
        step = self._step(threat_model, tf.constant(0), begin(x, y, x), grad)
        return tf.stop_gradient(threat_model.project(x + step, x))

    def resolved_step_size(self, eps: float, norm: str = "linf") -> float:
        """The step size in use in the ball of `norm` with radius `eps`."""
        if self.step_size is not None:
            return self.step_size
        return eps if self.steps == 1 else _PATH[norm] * eps / self.steps

    def _goal(self, model: Model, x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
        return choose_target(self.target, model(x), y, seed)

    def _climb(self, threat_model: ThreatModel, goal: Tensor | None) -> Climb:
        def objective(logits: Tensor, rows: Rows) -> Tensor:
            if goal is None:
                return named_loss(self.loss)(logits, rows.y)
            require_classes(logits, 4 if self.loss == "dlr" else 2, f"targeted {self.loss!r}")
            return TARGETED_LOSSES[self.loss](logits, rows.y, tf.gather(goal, rows.index))

        def move(i: Tensor, rows: Rows, grad: Tensor) -> tuple[Tensor, Tensor]:
            memory = rows.memory
            if self.momentum:
                grad = memory = self.momentum * memory + _unit_l1(grad)
            step = self._step(threat_model, i, rows, grad)
            return threat_model.project(rows.x_adv + step, rows.x), memory

        def misses(logits: Tensor, rows: Rows) -> Tensor:
            top = tf.argmax(logits, axis=1, output_type=rows.y.dtype)
            return top != tf.gather(goal, rows.index)

        return Climb(self.steps, objective, move, misses if self.reach_target else stands)

    def _step(self, threat_model: ThreatModel, i: Tensor, rows: Rows, grad: Tensor) -> Tensor:
        size = self.resolved_step_size(threat_model.eps, threat_model.norm)
        if threat_model.norm != "l1":
            return threat_model.steepest_step(grad, size)
        left = size * tf.cast(self.steps - 1 - i, tf.float32)
        return tf.cond(
            left >= _FILLING * threat_model.eps,
            lambda: threat_model.steepest_step(grad, size),
            lambda: filling_step(grad, rows.x_adv, size, threat_model.bounds),
        )


@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """Basic iterative method, Kurakin et al. (2017), https://arxiv.org/abs/1607.02533.

    PGD from x itself, in steps that together are as long as eps: `step_size` None is
    eps / steps. Targeted at the least likely class it is their iterative least-likely
    class method.

    Examples:
      >>> tr.BIM(steps=5).resolved_step_size(0.1)
      0.02
    """

    steps: int = 10
    random_start: bool = field(default=False, init=False)
    restarts: int = field(default=1, init=False)
    momentum: float = field(default=0.0, init=False)

    def resolved_step_size(self, eps: float, norm: str = "linf") -> float:
        """The step size in use at radius `eps`, in any norm."""
        return eps / self.steps if self.step_size is None else self.step_size


@dataclass(frozen=True, kw_only=True)
class FGSM(PGD):
    """Fast gradient sign method, Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572.

    PGD with one step of length eps from x itself; all that can be chosen is the loss and
    the target.

    Examples:
      >>> x_adv = tr.FGSM().perturb(model, x, y, ball)
      >>> moved = np.abs(x_adv - x)[(x > 0.2) & (x < 0.8)]
      >>> bool(np.allclose(moved, ball.eps, atol=1e-6))
      True
    """

    gains_by_steps: ClassVar[bool] = False
    takes_budget: ClassVar[bool] = False

    steps: int = field(default=1, init=False)
    step_size: float | None = field(default=None, init=False)
    random_start: bool = field(default=False, init=False)
    restarts: int = field(default=1, init=False)
    early_stop: bool = field(default=False, init=False)
    momentum: float = field(default=0.0, init=False)
    reach_target: bool = field(default=False, init=False)


def choose_target(how: str, logits: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """A wrong class for each example, like y.

    Args:
      how: one of `TARGETS`.
      logits: on the clean images, float32 [B, K], K at least 2.
      y: labels, int [B].
      seed: int32 [2], for 'random'.
    """
    require_classes(logits, 2, "a targeted attack")
    classes = tf.cast(tf.shape(logits)[1], y.dtype)
    if how == "random":
        # A seed of its own: the random start draws from `seed` itself.
        seed = tf.random.experimental.stateless_fold_in(seed, 1)
        return (y + tf.random.stateless_uniform(tf.shape(y), seed, 1, classes, y.dtype)) % classes
    own = tf.one_hot(y, tf.shape(logits)[1], on_value=True, off_value=False, dtype=tf.bool)
    if how == "second":
        masked = tf.where(own, -float("inf"), logits)
        return tf.argmax(masked, axis=1, output_type=y.dtype)
    return tf.argmin(tf.where(own, float("inf"), logits), axis=1, output_type=y.dtype)


def filling_step(
    grad: Tensor, x_adv: Tensor, size: float | Tensor, bounds: tuple[float, float]
) -> Tensor:
    """The step of l1 length `size` along which a linear function grows most in the bounds.

    The value with the largest gradient goes as far as the bounds let it, then the next,
    until the length is used up. Croce and Hein (2021), https://arxiv.org/abs/2103.01208.

    Args:
      grad: float32 [B, ...].
      x_adv: where the step starts, inside the bounds, like grad.
      size: the length, 0 or more.
      bounds: the valid pixel range.

    Returns:
      float32 like grad, of l1 norm `size`, or less where the bounds leave less room.
    """
    shape = tf.shape(grad)
    flat, here = (tf.reshape(each, [shape[0], -1]) for each in (grad, x_adv))
    room = tf.where(flat > 0, bounds[1] - here, here - bounds[0])
    room = tf.where(flat == 0, 0.0, room)
    order = tf.argsort(tf.abs(flat), axis=1, direction="DESCENDING", stable=True)
    ordered = tf.gather(room, order, batch_dims=1)
    left = tf.maximum(size - tf.cumsum(ordered, axis=1, exclusive=True), 0.0)
    used = tf.gather(tf.minimum(ordered, left), tf.argsort(order, axis=1), batch_dims=1)
    return tf.reshape(used * tf.sign(flat), shape)


def _unit_l1(grad: Tensor) -> Tensor:
    axes = list(range(1, len(grad.shape)))
    size = tf.reduce_sum(tf.abs(grad), axis=axes, keepdims=True)
    return tf.math.divide_no_nan(grad, size)
