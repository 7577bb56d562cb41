"""FAB: minimal adversarial perturbations by steps onto linearised decision boundaries.

Croce and Hein (2020), https://arxiv.org/abs/1907.02044.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter, where
from tfrobust.attacks.boundary import (
    boundary_with,
    column,
    likely_classes,
    nearest_boundary,
    search_segment,
)
from tfrobust.attacks.hyperplane import NORMS, step_onto_hyperplane
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor

State = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """The fast adaptive boundary attack, in linf, l2 and l1.

    Croce and Hein (2020), https://arxiv.org/abs/1907.02044.

    Every step linearises the boundary between the right class and another one, projects the
    iterate and x onto it inside the bounds, and moves to a weighted mean of both projections.
    If that point crosses the boundary, it is kept if it is the nearest so far, and the iterate
    is pulled back towards x.

    One call makes `starts` runs (with `targeted`, for each target) in sequence on the examples
    that survive: the first from x itself, as published, the others from random points at half
    the radius. FAB with `starts=5` is what AutoAttack calls FAB with 5 restarts. `restarts`
    repeats the whole call with other seeds, as for every attack, and needs a random start.

    Attributes:
      steps: steps per run.
      starts: number of starting points.
      random_start: make the first start random too, instead of x.
      restarts: independent runs, repeated by the caller on the examples that survive.
      targeted: approach the boundary of one class at a time, for the most likely wrong classes of
        the clean image, instead of the nearest of all boundaries. Costs one backward pass per
        step instead of one per wrong class.
      n_targets: number of target classes, at most the number of wrong classes.
      alpha_max: largest weight of the projection of x, in [0, 1].
      eta: overshoot of the projections, 1 or more.
      beta: share of the distance to x that remains after pulling back, in (0, 1).
      final_search: model evaluations spent at the end on the segment between x and the
        found, by false position. The paper has 3, AutoAttack's FAB none. With `early_stop` only
        points outside the ball are searched.
      early_stop: budget attack: an example is done as soon as an adversarial point in the ball is
        found; what is returned lies inside the ball. Off: minimal attack: all steps are made, and
        the nearest adversarial point found is returned, even outside the ball; eps then only
        scales the random starts.

    Raises:
      UsageError: a value outside the ranges above.

    Examples:
      >>> attack = tr.FAB(steps=5)
      >>> x_adv = attack.perturb(model, x[:8], y[:8], tr.L2(1.0))
      >>> bool((np.linalg.norm((x_adv - x[:8]).reshape(8, -1), axis=1) <= 1.0001).all())
      True
    """

    norms: ClassVar[tuple[str, ...]] = NORMS

    steps: int = 100
    starts: int = 1
    random_start: bool = False
    restarts: int = 1
    targeted: bool = False
    n_targets: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    final_search: int = 3
    early_stop: bool = True

    @property
    def minimal(self) -> bool:  # type: ignore[override]
        """Whether it searches for the nearest adversarial image, not just for one in the ball."""
        return not self.early_stop

    def __post_init__(self) -> None:
        for name in ("steps", "starts", "restarts", "n_targets"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 1 or more, found {getattr(self, name)!r}.")
        if not (0 <= self.alpha_max <= 1 and self.eta >= 1 and 0 < self.beta < 1):
            raise UsageError(
                "FAB: expected alpha_max in [0, 1], eta of 1 or more and beta in (0, 1), found "
                f"{self.alpha_max!r}, {self.eta!r} and {self.beta!r}."
            )
        if self.final_search < 0:
            raise UsageError(f"final_search: expected 0 or more, found {self.final_search!r}.")
        if self.restarts > 1 and self.starts == 1 and not self.random_start:
            raise UsageError(
                "restarts: every restart from x gives the same result; set starts instead (the "
                "first from x, the others random), or random_start=True."
            )

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the bounds.

        Images that the model misclassifies without attack are returned unchanged, and so are, with
        `early_stop=False`, those for which nothing was found. Any batch size from 1 works,
        including one that is unknown while tracing.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int32 [B].
          threat_model: the ball; its norm is the distance to minimise.
          seed: int32 [2], for the random starts.

        Raises:
          UsageError: a norm other than linf, l2 and l1, or fewer than 2 classes.
        """
        if threat_model.norm not in NORMS:
            raise UsageError(
                f"FAB: expected a norm of {', '.join(NORMS)}, found {threat_model.norm!r}."
            )
        x_adv = _Runs(self, model, x, y, threat_model).all(seed)
        if self.early_stop:
            x_adv = threat_model.project(x_adv, x)
        return tf.stop_gradient(x_adv)


@dataclass(frozen=True, eq=False)
class _Runs:
    """One call of the attack: its loops and their shared inputs."""

    attack: FAB
    model: Model
    x: Tensor
    y: Tensor
    threat_model: ThreatModel

    def all(self, seed: Tensor) -> Tensor:
        """The nearest adversarial points of all runs, x if there is none."""
        logits = self.model(self.x)
        correct = is_correct(logits, self.y)
        ranks = likely_classes(logits, self.y, self.attack.n_targets)
        targets = int(ranks.shape[1]) if self.attack.targeted else 1
        distance = tf.where(correct, float("inf"), tf.zeros_like(logits[:, 0]))

        def run(i: Tensor, x_adv: Tensor, distance: Tensor) -> State:
            target = ranks[:, i // self.attack.starts]
            fresh = tf.random.experimental.stateless_fold_in(seed, i)
            start = self._start(i % self.attack.starts, distance, fresh)
            return (i + 1, *self._run(start, target, x_adv, distance))

        def goes_on(i: Tensor, _: Tensor, distance: Tensor) -> Tensor:
            return (i < targets * self.attack.starts) & tf.reduce_any(self._wanted(distance))

        state = (tf.constant(0), self.x, distance)
        _, x_adv, distance = tf.while_loop(goes_on, run, state, parallel_iterations=1)
        return self._search(x_adv, distance) if self.attack.final_search else x_adv

    def _wanted(self, distance: Tensor) -> Tensor:
        """Whether an example whose nearest point is at `distance` is still active, bool."""
        return distance > (self.threat_model.eps if self.attack.early_stop else 0.0)

    def _start(self, number: Tensor, distance: Tensor, seed: Tensor) -> Tensor:
        """x, or random points at half of eps, or at half the distance found if that is less."""
        if self.attack.starts == 1 and not self.attack.random_start:
            return self.x
        radius = 0.5 * tf.minimum(distance, self.threat_model.eps)
        delta = _random_direction(self.x, self.threat_model, seed) * column(radius)
        at_random = tf.clip_by_value(self.x + delta, *self.threat_model.bounds)
        if self.attack.random_start:
            return at_random
        return tf.where(number == 0, self.x, at_random)

    def _run(self, start: Tensor, target: Tensor, x_adv: Tensor, distance: Tensor) -> State:
        """One run from `start`; returns the updated x_adv and distance."""

        def goes_on(i: Tensor, index: Tensor, *_: Tensor) -> Tensor:
            return (i < self.attack.steps) & (tf.size(index) > 0)

        def step(i: Tensor, index: Tensor, z: Tensor, x_adv: Tensor, distance: Tensor) -> State:
            moved = self._move(index, z, tf.gather(target, index))
            x_adv, distance, crossed = self._record(index, moved, x_adv, distance)
            x = tf.gather(self.x, index)
            z = where(crossed, x + self.attack.beta * (moved - x), moved)
            if self.attack.early_stop:
                index, z = keep(index, self._wanted(tf.gather(distance, index)), z)
            return i + 1, index, z, x_adv, distance

        index, z = keep(all_rows(self.y), self._wanted(distance), start)
        state = (tf.constant(0), index, z, x_adv, distance)
        rows, images = tf.TensorShape([None]), tf.TensorShape([None, *self.x.shape[1:]])
        shapes = (tf.TensorShape([]), rows, images, x_adv.shape, distance.shape)
        found: tuple[Tensor, ...] = tf.while_loop(
            goes_on, step, state, shapes, parallel_iterations=1
        )[3:]
        return found

    def _move(self, index: Tensor, z: Tensor, target: Tensor) -> Tensor:
        """The next iterate: a mean of the projections of z and of x, overshot by eta."""
        x, y = tf.gather(self.x, index), tf.gather(self.y, index)
        value, slope = self._boundary(z, y, target)
        from_z = self._project(z, slope, value)
        from_x = self._project(x, slope, value + _dot(slope, x - z))
        zero = tf.zeros_like(x)
        near, far = (self.threat_model.distance(step, zero) for step in (from_z, from_x))
        # Both are 0 on the boundary itself: avoid dividing by 0.
        near, far = tf.maximum(near, 1e-8), tf.maximum(far, 1e-8)
        alpha = column(tf.minimum(near / (near + far), self.attack.alpha_max))
        eta = self.attack.eta
        moved = (1 - alpha) * (z + eta * from_z) + alpha * (x + eta * from_x)
        return tf.clip_by_value(moved, *self.threat_model.bounds)

    def _project(self, point: Tensor, slope: Tensor, value: Tensor) -> Tensor:
        norm, bounds = self.threat_model.norm, self.threat_model.bounds
        step = step_onto_hyperplane(_flat(point), _flat(slope), value, norm, bounds)
        return tf.reshape(step, tf.shape(point))

    def _boundary(self, z: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.attack.targeted:
            return boundary_with(self.model, z, y, target)
        return nearest_boundary(self.model, z, y, self.threat_model.norm)

    def _record(self, index: Tensor, found: Tensor, x_adv: Tensor, distance: Tensor) -> State:
        """x_adv and distance updated by nearer adversarial points, and which those are, [M]."""
        crossed = ~is_correct(self.model(found), tf.gather(self.y, index))
        reached = self.threat_model.distance(found, tf.gather(self.x, index))
        before = tf.gather(distance, index)
        nearer = crossed & (reached < before)
        best = where(nearer, found, tf.gather(x_adv, index))
        x_adv = scatter(x_adv, index, best)
        return x_adv, scatter(distance, index, tf.where(nearer, reached, before)), crossed

    def _search(self, x_adv: Tensor, distance: Tensor) -> Tensor:
        """x_adv after the final search, for points found that are still too far."""
        found = self._wanted(distance) & tf.math.is_finite(distance)
        (index,) = keep(all_rows(self.y), found)

        def search() -> Tensor:
            x, far, y = (tf.gather(values, index) for values in (self.x, x_adv, self.y))
            nearer = search_segment(self.model, x, far, y, self.attack.final_search)
            return scatter(x_adv, index, nearer)

        return tf.cond(tf.size(index) > 0, search, lambda: x_adv)


def _random_direction(x: Tensor, threat_model: ThreatModel, seed: Tensor) -> Tensor:
    """Random perturbations of length 1, like x: uniform in linf, else normal and rescaled."""
    if threat_model.norm == "linf":
        delta = tf.random.stateless_uniform(tf.shape(x), seed, -1.0, 1.0)
    else:
        delta = tf.random.stateless_normal(tf.shape(x), seed)
    return delta / column(threat_model.distance(delta, tf.zeros_like(x)))


def _flat(images: Tensor) -> Tensor:
    return tf.reshape(images, [tf.shape(images)[0], -1])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return tf.reduce_sum(_flat(a) * _flat(b), axis=1)
