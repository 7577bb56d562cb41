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
    still_correct,
)
from tfrobust.attacks.losses import LOSSES, TARGETED_LOSSES, kl_divergence
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

__all__ = ["BIM", "FGSM", "PGD", "TARGETS", "choose_target", "input_gradient"]

TARGETS = ("least_likely", "second", "random")
# The total length of all steps, in radii. On a sphere the path is longest: a random start is
# perpendicular to the optimum, and exp(-path) of that angle remains at the end.
_PATH = {"linf": 2.5, "l2": 4.0, "l1": 2.5, "l0": 2.5}
# The last part of the path in l1, in radii, changes single values: long enough to take back
# everything that is spread over others.
_FILLING = 1.25


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent, Madry et al. (2018), https://arxiv.org/abs/1706.06083.

    In l1 the first steps are spread over 1 % of the values; the last ones, 1.25 radii in total,
    change single values as far as the bounds allow (`filling_step`).

    Attributes:
      steps: gradient steps.
      step_size: length of a step, in the units of eps; None is 2.5 * eps / steps (in l2
        4 * eps / steps), and eps itself for a single step.
      random_start: start at random in the ball instead of at x.
      restarts: independent runs; the caller repeats the attack with other seeds on the examples
        that survive.
      loss: the loss to maximise, a name of `LOSSES`; with `targeted`, its counterpart in
        `TARGETED_LOSSES`. 'dlr' needs 3 classes, 4 if targeted.
      early_stop: stop an example once it is misclassified, and spend nothing more on it; off for
        training, where all steps are meant to maximise the loss.
      momentum: share of the accumulated gradient that a step keeps, 0 or more; each new gradient
        is added with l1 norm 1. Dong et al. (2018), https://arxiv.org/abs/1710.06081, who use 1.
      targeted: move towards a target class instead of away from the label.
      target: the target class: 'least_likely' (the smallest logit on the clean image), 'second'
        (the largest wrong one), 'random' (any wrong class, by the seed).
      reach_target: when an example of a targeted attack is done. Off: at any misclassification,
        which is what robust accuracy counts. On: at the target class; an example that misses it
        is returned as its last step left it.

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
            raise UsageError("reach_target: only valid with targeted=True.")

    def tensors(self, ball: ThreatModel) -> dict[str, np.generic]:
        """The number of steps and their size."""
        if type(self) not in (PGD, BIM):
            return {}  # a subclass may count its steps in Python
        size = self.resolved_step_size(float(ball.eps), ball.norm)
        return {"steps": np.int32(self.steps), "step_size": np.float32(size)}

    @property
    def gradient_evaluations(self) -> int:
        """Maximum gradients per example in one run, without restarts."""
        return self.steps

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Any batch size works, including one that is unknown while tracing. Examples are independent
        except for random draws, which depend on the position in the batch. A targeted attack
        evaluates the clean logits once, before its steps.

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
        """Moves the prediction away from that on x: maximises KL(p(x) || p(x_adv)).

        The inner maximisation of TRADES: Zhang et al. (2019), https://arxiv.org/abs/1901.08573.
        Every example makes every step. This attack's loss, start and target are ignored.

        Args:
          model: as above; it is evaluated once more, on x.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B]; unused.
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
        """The end of the first step from x itself, for callers that already have the gradient.

        Args:
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          grad: of the loss to maximise, by x; its scale does not matter. Non-finite values count
            as 0.
          threat_model: the ball.

        Returns:
          float32 like x, inside the ball and the bounds; no gradient flows through it.
        """
        grad = tf.where(tf.math.is_finite(grad), grad, tf.zeros_like(grad))
        step = self._step(threat_model, tf.constant(0), begin(x, y, x), grad)
        return tf.stop_gradient(threat_model.project(x + step, x))

    def resolved_step_size(self, eps: float, norm: str = "linf") -> float:
        """The step size used in the ball of `norm` with radius `eps`."""
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

        return Climb(self.steps, objective, move, misses if self.reach_target else still_correct)

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

    PGD from x itself, in steps that add up to eps: `step_size` None is eps / steps. With the
    least likely class as target it is their iterative least-likely class method.

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

    PGD with one step of length eps from x itself; only the loss and the target can be chosen.

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
        # A separate seed: the random start draws from `seed` itself.
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
    """The step of l1 length `size` that increases a linear function most within the bounds.

    The value with the largest gradient goes as far as the bounds allow, then the next, until
    the length is used up. Croce and Hein (2021), https://arxiv.org/abs/2103.01208.

    Args:
      grad: float32 [B, ...].
      x_adv: start of the step, inside the bounds, like grad.
      size: the length, 0 or more.
      bounds: the valid pixel range.

    Returns:
      float32 like grad, of l1 norm `size`, or less if the bounds leave less room.
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
