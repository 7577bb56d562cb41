"""Decision-based attacks: they see only the class that the model predicts.

They start from some misclassified image and approach the clean one along the boundary. Their
common parts are here: the query budget, the start, the line search, and the estimate of the
boundary's normal from votes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from tfrobust.attacks.active_rows import where
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

Draw = Callable[[Tensor, Tensor], Tensor]


# Relative to a distance in float32.
_ROUNDING = 1e-5


class Found(NamedTuple):
    """The progress of each example.

    Attributes:
      x_adv: the nearest misclassified point, float32 [B, H, W, C]; x if there is none.
      distance: its distance from x, float32 [B]; infinite if there is none.
      used: queries so far, int32 [B].
    """

    x_adv: Tensor
    distance: Tensor
    used: Tensor


@dataclass(frozen=True, eq=False)
class Decisions:
    """One call of an attack: its queries to the model, within the budget.

    Attributes:
      model: images -> logits [B, K]; only the largest counts.
      x: clean images, float32 [B, H, W, C].
      y: labels, int [B].
      ball: the threat model; its norm is the distance to minimise.
      queries: maximum model evaluations per example.
      early_stop: an example is done once its point lies in the ball.
    """

    model: Function
    x: Tensor
    y: Tensor
    ball: ThreatModel
    queries: int
    early_stop: bool

    def begin(self, seed: Tensor, tries: int) -> Found:
        """x itself if misclassified, else the first random image that is.

        Noise and flat colours alternate: a model may predict the same class for all noise.
        """
        nowhere = tf.fill(tf.shape(self.y), float("inf"))
        found = Found(self.x, nowhere, tf.zeros_like(self.y, tf.int32))
        _, found = self.ask(found, self.x, tf.fill(tf.shape(self.y), True))

        def missing(found: Found) -> Tensor:
            return self._left(found) & tf.math.is_inf(found.distance)

        def draw(j: Tensor, found: Found) -> tuple[Tensor, Found]:
            drawn = tf.random.stateless_uniform(tf.shape(self.x), fold(seed, j), *self.ball.bounds)
            flat = tf.broadcast_to(drawn[:, :1, :1], tf.shape(drawn))
            points = tf.where(tf.equal(j % 2, 0), drawn, flat)
            return j + 1, self.ask(found, points, missing(found))[1]

        start = (tf.constant(0), found)
        return repeat(lambda j, found: (j < tries) & tf.reduce_any(missing(found)), draw, start)[1]

    def open(self, found: Found) -> Tensor:
        """Which examples have a point and are not done, bool [B]."""
        return self._left(found) & tf.math.is_finite(found.distance)

    def _left(self, found: Found) -> Tensor:
        nearest = self.ball.eps if self.early_stop else 0.0
        return (found.used < self.queries) & (found.distance > nearest)

    def ask(self, found: Found, points: Tensor, wanted: Tensor) -> tuple[Tensor, Found]:
        """Which points are misclassified, bool [B], False if not queried; nearer ones are kept."""
        wrong = ask(self.model, points, self.y, wanted)[1]
        distance = self.ball.distance(points, self.x)
        # Nearer by more than rounding, which would else choose between points on one sphere.
        nearer = wrong & (distance < found.distance * (1 - _ROUNDING))
        return wrong, Found(
            where(nearer, points, found.x_adv),
            tf.where(nearer, distance, found.distance),
            found.used + tf.cast(wanted, tf.int32),
        )

    def toward(self, point: Tensor) -> Callable[[Tensor], Tensor]:
        """The path from x (at 0) to a misclassified point (at 1), in the norm's geometry."""
        away, size = point - self.x, self.ball.distance(point, self.x)
        if self.ball.norm == "linf":
            return lambda share: (
                self.x + tf.clip_by_value(away, -wide(share * size), wide(share * size))
            )
        return lambda share: self.x + wide(share) * away

    def bisect(
        self, found: Found, path: Callable[[Tensor], Tensor], wanted: Tensor, steps: int
    ) -> Found:
        """Bisects the paths of the wanted examples; their point at 1 is misclassified."""

        def halve(i: Tensor, low: Tensor, high: Tensor, found: Found) -> tuple[Tensor, ...]:
            middle = (low + high) / 2
            wrong, found = self.ask(found, path(middle), wanted & self.open(found))
            low, high = tf.where(wrong, low, middle), tf.where(wrong, middle, high)
            return i + 1, low, high, found

        def goes_on(i: Tensor, low: Tensor, high: Tensor, found: Found) -> Tensor:
            return (i < steps) & tf.reduce_any(wanted & self.open(found))

        low = tf.zeros_like(found.distance)
        made: Found = repeat(goes_on, halve, (tf.constant(0), low, low + 1.0, found))[3]
        return made

    def normal(
        self, found: Found, size: Tensor, count: Tensor, draw: Draw, seed: Tensor, *,
        centred: bool,
    ) -> tuple[Tensor, Found]:  # fmt: skip
        """The boundary's normal at each example's point: random directions, weighted by votes.

        Args:
          found: the current points.
          size: length of the directions, float32 [B].
          count: number of directions, int32.
          draw: (shape, seed) -> directions.
          seed: int32 [2].
          centred: subtract the mean vote from the votes.

        Returns:
          Images like x that point to the misclassified side, of any length; and `found` with the
          queries counted.
        """
        z, most = found.x_adv, at_once(self.x, self.queries)
        size = wide(size)

        def vote(
            j: Tensor, used: Tensor, votes: Tensor, asked: Tensor, ways: Tensor, voted: Tensor
        ) -> tuple[Tensor, ...]:
            drawn = draw(several(z, most), fold(seed, j))
            points = tf.clip_by_value(z[:, None] + size[:, None] * drawn, *self.ball.bounds)
            way = (points - z[:, None]) / size[:, None]
            turn = tf.range(most)
            wanted = self.open(found)[:, None] & (j * most + turn < count)
            wanted &= used[:, None] + turn < self.queries
            wrong = ask_each(self.model, points, self.y, wanted)[1]
            sign = tf.where(wanted, tf.where(wrong, 1.0, -1.0), 0.0)
            shown = tf.cast(wanted, tf.float32)
            return (
                j + 1, used + tf.reduce_sum(tf.cast(wanted, tf.int32), axis=1),
                votes + tf.reduce_sum(sign, axis=1), asked + tf.reduce_sum(shown, axis=1),
                ways + tf.reduce_sum(wide(shown) * way, axis=1),
                voted + tf.reduce_sum(wide(sign) * way, axis=1),
            )  # fmt: skip

        nothing, blank = tf.zeros_like(found.distance), tf.zeros_like(z)
        start = (tf.constant(0), found.used, nothing, nothing, blank, blank)
        _, used, votes, asked, ways, voted = repeat(lambda j, *_: j * most < count, vote, start)
        mean = tf.math.divide_no_nan(votes, asked)
        # If all votes are equal, subtracting the mean would leave nothing.
        mean = tf.where(tf.abs(mean) < 1, mean, 0.0) if centred else tf.zeros_like(mean)
        return voted - wide(mean) * ways, found._replace(used=used)


@dataclass(frozen=True, kw_only=True)
class DecisionAttack(Attack):
    """The common part of decision-based attacks: budget, start and result.

    Subclasses define the search: `_search`.
    """

    needs_gradient: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    queries: int = 5000
    tries: int = 100
    restarts: int = 1
    early_stop: bool = True

    def __post_init__(self) -> None:
        check_queries(self)
        if self.tries < 1:
            raise UsageError(f"tries: expected 1 or more, found {self.tries!r}.")

    def __call__(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the bounds.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], or one-hot labels; only
            the largest value counts.
          x: clean images, float32 [B, H, W, C]; H, W and C are known when traced.
          y: labels, int [B].
          threat_model: the ball; its norm is the distance to minimise.
          seed: int32 [2].

        Raises:
          UsageError: the attack does not support the norm.
        """
        check_norm(self, threat_model, self.norms)
        x, y = tf.stop_gradient(tf.convert_to_tensor(x)), tf.convert_to_tensor(y)
        seen = Decisions(model, x, y, threat_model, self.queries, self.early_stop)
        found = self._search(seen, seen.begin(fold(seed, 0), self.tries), seed)
        x_adv = threat_model.project(found.x_adv, x) if self.early_stop else found.x_adv
        return tf.stop_gradient(x_adv)

    def _search(self, seen: Decisions, found: Found, seed: Tensor) -> Found:
        raise NotImplementedError
