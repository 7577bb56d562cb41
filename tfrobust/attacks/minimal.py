"""What all minimal-norm attacks share: one loop that keeps the nearest adversarial image.

An attack says what it knows of each example (`_memory`) and how a step changes that
(`_step`); the loop drops what has ended, and a search on the segment to x comes last.
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
    """What is known of each example that is worked on.

    Attributes:
      index: int32 [M], their places in the whole batch.
      x: the clean images, float32 [M, H, W, C].
      y: labels, int [M].
      z: where to look next, like x.
      best: the nearest adversarial image so far, like x; x where there is none.
      distance: of `best` from x, float32 [M]; infinite where there is none.
      memory: what else the attack carries, tensors [M, ...].
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
    """An attack that looks for the nearest adversarial image instead of the worst in a ball.

    The ball's norm is the distance that is made small. The whole search is made whatever the
    radius, unless `early_stop` ends it for an example; what is found farther away than eps is
    no success, and `tfrobust.minimal_distance` measures how far it is. Everything is
    deterministic and starts from x, so that there are no restarts.

    Attributes:
      steps: of the search.
      early_stop: end for an example as soon as an adversarial image in the ball is found.
      final_search: model evaluations spent at the end on the segment between x and the image
        found, by false position, as FAB does it; in l0 none. The published attacks have none.

    Raises:
      UsageError: a value out of range; when called, a norm that the attack does not have.
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
        """Whether it goes for the nearest adversarial image, not just for one in the ball."""
        return not self.early_stop

    @property
    def gradient_evaluations(self) -> int:
        """Gradients per example, the most."""
        return self.steps

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """The nearest adversarial images found, float32 [B, H, W, C], inside the bounds.

        Images that the model misclassifies without attack come back as they are, and so do
        those for which nothing was found. Any batch size works, also one that is unknown
        while tracing; examples do not influence each other.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball; its norm is the distance that is made small.
          seed: int32 [2]; nothing is drawn.

        Raises:
          UsageError: a norm that the attack does not have.
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
        """What the attack carries of each example besides, at the start, [M, ...] each."""
        return ()

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        """Looks once, records what was found, moves; and which examples end, bool [M]."""
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
                # Most steps end nothing, and then there is nothing to move.
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
        """The examples that are classified rightly: the others are adversarial as they are."""
        logits = model(x)
        index, x, y, logits = keep(all_rows(y), is_correct(logits, y), x, y, logits)
        distance = tf.fill(tf.shape(y), float("inf"))
        return Rows(index, x, y, x, x, distance, self._memory(x, y, logits, ball))

    def _refine(
        self, model: Model, x: Tensor, y: Tensor, x_adv: Tensor, ball: ThreatModel
    ) -> Tensor:
        """x_adv after the final search, where it is not x and, with `early_stop`, too far.

        It ends a ten-thousandth of the way farther: what lies on the boundary itself another
        order of summation, such as that of the model before BatchNorm is folded, puts on either
        side of it.
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
    """Rows with the points that are adversarial and nearer than all before.

    Args:
      rows: the examples.
      points: images inside the bounds, like x.
      logits: of the points, [M, K].
      ball: its norm is the distance.

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
      first: mean of the gradients so far, like gradient; 0 before.
      second: mean of their squares.
      count: of this step, from 1, float32; a scalar, or fit to broadcast.

    Returns:
      The step, and the two means for the next.
    """
    first = _BETA_1 * first + (1.0 - _BETA_1) * gradient
    second = _BETA_2 * second + (1.0 - _BETA_2) * tf.square(gradient)
    size = tf.sqrt(second / (1.0 - tf.pow(_BETA_2, count))) + 1e-8
    return first / (1.0 - tf.pow(_BETA_1, count)) / size, first, second


def annealed(first: float, last: float, i: Tensor, steps: int) -> Tensor:
    """From `first` at step 0 along half a cosine towards `last` at step `steps`, a scalar."""
    share = tf.cast(i, tf.float32) / float(steps)
    return last + 0.5 * (first - last) * (1.0 + tf.cos(math.pi * share))


def require(attack: Any, least: float, *names: str) -> None:
    """Refuses settings below `least`.

    Raises:
      UsageError: naming the setting.
    """
    for name in names:
        if not getattr(attack, name) >= least:
            found = getattr(attack, name)
            raise UsageError(f"{name}: expected {least:g} or more, found {found!r}.")


def require_positive(attack: Any, *names: str) -> None:
    """Refuses settings that are not above 0.

    Raises:
      UsageError: naming the setting.
    """
    for name in names:
        if not getattr(attack, name) > 0:
            raise UsageError(f"{name}: expected more than 0, found {getattr(attack, name)!r}.")


def _leave(rows: Rows, ended: Tensor, x_adv: Tensor) -> tuple[Rows, Tensor]:
    """Writes the examples that ended into `x_adv` [B, ...] and goes on without them."""
    index, best = keep(rows.index, ended, rows.best)
    kept = tf.nest.map_structure(lambda each: tf.boolean_mask(each, ~ended), rows)
    return kept, scatter(x_adv, index, best)
