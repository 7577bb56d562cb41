"""The base of minimal-norm attacks: one loop that keeps the nearest adversarial image.

An attack defines its state per example (`_memory`) and how a step updates it (`_step`); the
loop drops finished examples, and a search on the segment to x comes last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter, where
from tfrobust.attacks.apgd_rows import any_length
from tfrobust.attacks.boundary import search_segment
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor

_BETA_1, _BETA_2 = 0.9, 0.999
_BEYOND = 1e-4


class Rows(NamedTuple):
    """The state of each active example.

    Attributes:
      index: int32 [M], their indices in the whole batch.
      x: the clean images, float32 [M, H, W, C].
      y: labels, int [M].
      z: the next point to evaluate, like x.
      best: the nearest adversarial image so far, like x; x if there is none.
      distance: of `best` from x, float32 [M]; infinite if there is none.
      memory: further state of the attack, tensors [M, ...].
    """

    index: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    best: Tensor
    distance: Tensor
    memory: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class MinimalNorm(Attack):
    """An attack that searches for the nearest adversarial image instead of the worst in a ball.

    Minimises the distance in the ball's norm. The whole search is made whatever the radius,
    unless `early_stop` ends it for an example; a result farther away than eps is no success, and
    `tfrobust.minimal_distance` measures the distance. Everything is deterministic and starts from
    x, so there are no restarts.

    Attributes:
      steps: steps of the search.
      early_stop: stop an example as soon as an adversarial image in the ball is found.
      final_search: model evaluations spent at the end on the segment between x and the image
        found, by false position, as in FAB; none in l0. The published attacks have none.

    Raises:
      UsageError: a value out of range; when called, an unsupported norm.
    """

    steps: int = 100
    early_stop: bool = False
    final_search: int = 3
    restarts: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        require(self, 1, "steps")
        require(self, 0, "final_search")

    @property
    def minimal(self) -> bool:  # type: ignore[override]
        """Whether it searches for the nearest adversarial image, not just for one in the ball."""
        return not self.early_stop

    @property
    def gradient_evaluations(self) -> int:
        """Maximum number of gradients per example."""
        return self.steps

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """The nearest adversarial images found, float32 [B, H, W, C], inside the bounds.

        Images that the model misclassifies without attack are returned unchanged, and so are those
        for which nothing was found. Any batch size works, including one that is unknown while
        tracing; examples are independent.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball; its norm is the distance to minimise.
          seed: int32 [2]; unused, as nothing is random.

        Raises:
          UsageError: an unsupported norm.
        """
        if threat_model.norm not in self.norms:
            raise UsageError(
                f"{type(self).__name__}: expected a norm of {', '.join(self.norms)}, found "
                f"{threat_model.norm!r}; choose another attack for this norm."
            )
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        x_adv = self._search(model, x, y, threat_model)
        if threat_model.norm != "l0":
            x_adv = self._refine(model, x, y, x_adv, threat_model)
        return tf.stop_gradient(x_adv)

    def _memory(self, x: Tensor, y: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Any, ...]:
        """The attack's further state of each example at the start, [M, ...] each."""
        return ()

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        """Evaluates once, records, moves; returns also which examples are done, bool [M]."""
        raise NotImplementedError

    @property
    def _most_steps(self) -> int:
        return self.steps

    def _search(self, model: Model, x: Tensor, y: Tensor, ball: ThreatModel) -> Tensor:
        def goes_on(i: Tensor, rows: Rows, x_adv: Tensor) -> Tensor:
            return (i < self._most_steps) & (tf.size(rows.index) > 0)

        def step(i: Tensor, rows: Rows, x_adv: Tensor) -> tuple[Any, ...]:
            rows, ended = self._step(model, i, rows, ball)
            if self.early_stop:
                enough = rows.distance <= ball.eps
                ended = enough if ended is None else ended | enough
            if ended is not None:
                # Most steps finish no example, and then no row has to be moved.
                rows, x_adv = tf.cond(
                    tf.reduce_any(ended),
                    lambda: _leave(rows, ended, x_adv),
                    lambda: (rows, x_adv),
                )
            return i + 1, rows, x_adv

        state = (tf.constant(0), self._begin(model, x, y, ball), x)
        shapes = tf.nest.map_structure(any_length, state[:2])
        shapes = (*shapes, x.shape)
        _, rows, x_adv = tf.while_loop(goes_on, step, state, shapes, parallel_iterations=1)
        return scatter(x_adv, rows.index, rows.best)

    def _begin(self, model: Model, x: Tensor, y: Tensor, ball: ThreatModel) -> Rows:
        """The correctly classified examples: the others are adversarial already."""
        logits = model(x)
        index, x, y, logits = keep(all_rows(y), is_correct(logits, y), x, y, logits)
        distance = tf.fill(tf.shape(y), float("inf"))
        return Rows(index, x, y, x, x, distance, self._memory(x, y, logits, ball))

    def _refine(
        self, model: Model, x: Tensor, y: Tensor, x_adv: Tensor, ball: ThreatModel
    ) -> Tensor:
        """x_adv after the final search, where x_adv is not x and, with `early_stop`, too far.

        The result is moved outwards by a ten-thousandth of the distance: a point on the boundary
        itself would change sides with the order of summation, for example in the same model
        before BatchNorm is folded.
        """
        enough = ball.eps if self.early_stop else 0.0
        (index,) = keep(all_rows(y), ball.distance(x_adv, x) > enough)

        def search() -> Tensor:
            clean, far, labels = (tf.gather(each, index) for each in (x, x_adv, y))
            if self.final_search:
                far = search_segment(model, clean, far, labels, self.final_search)
            beyond = tf.clip_by_value(far + _BEYOND * (far - clean), *ball.bounds)
            crossed = ~is_correct(model(beyond), labels)
            return scatter(x_adv, index, where(crossed, beyond, far))

        return tf.cond(tf.size(index) > 0, search, lambda: x_adv)


def record(rows: Rows, points: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Rows, Tensor]:
    """Rows updated by the points that are adversarial and nearer than all before.

    Args:
      rows: the examples.
      points: images inside the bounds, like x.
      logits: of the points, [M, K].
      ball: its norm measures the distance.

    Returns:
      The rows, and which points are adversarial, bool [M].
    """
    wrong = ~is_correct(logits, rows.y)
    reached = ball.distance(points, rows.x)
    nearer = wrong & (reached < rows.distance)
    best = where(nearer, points, rows.best)
    distance = tf.where(nearer, reached, rows.distance)
    return rows._replace(best=best, distance=distance), wrong


def adam(
    gradient: Tensor, first: Tensor, second: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A step of Adam with learning rate 1, Kingma and Ba (2015), https://arxiv.org/abs/1412.6980.

    Args:
      gradient: float32 [M, ...].
      first: mean of the gradients so far, like gradient; initially 0.
      second: mean of their squares.
      count: number of this step, from 1, float32; a scalar, or broadcastable.

    Returns:
      The step, and the two means for the next.
    """
    first = _BETA_1 * first + (1.0 - _BETA_1) * gradient
    second = _BETA_2 * second + (1.0 - _BETA_2) * tf.square(gradient)
    size = tf.sqrt(second / (1.0 - tf.pow(_BETA_2, count))) + 1e-8
    return first / (1.0 - tf.pow(_BETA_1, count)) / size, first, second


def annealed(first: float, last: float, i: Tensor, steps: int) -> Tensor:
    """Decays from `first` at step 0 to `last` at step `steps` along half a cosine, a scalar."""
    share = tf.cast(i, tf.float32) / float(steps)
    return last + 0.5 * (first - last) * (1.0 + tf.cos(math.pi * share))


def require(attack: Any, least: float, *names: str) -> None:
    """Rejects settings below `least`.

    Raises:
      UsageError: naming the setting.
    """
    for name in names:
        if not getattr(attack, name) >= least:
            found = getattr(attack, name)
            raise UsageError(f"{name}: expected {least:g} or more, found {found!r}.")


def require_positive(attack: Any, *names: str) -> None:
    """Rejects settings that are not above 0.

    Raises:
      UsageError: naming the setting.
    """
    for name in names:
        if not getattr(attack, name) > 0:
            raise UsageError(f"{name}: expected more than 0, found {getattr(attack, name)!r}.")


def _leave(rows: Rows, ended: Tensor, x_adv: Tensor) -> tuple[Rows, Tensor]:
    """Writes the finished examples into `x_adv` [B, ...] and drops them."""
    index, best = keep(rows.index, ended, rows.best)
    kept = tf.nest.map_structure(lambda each: tf.boolean_mask(each, ~ended), rows)
    return kept, scatter(x_adv, index, best)
