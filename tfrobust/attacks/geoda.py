"""GeoDA: steps from the image along the boundary's normal, estimated from few queries.

Rahmati et al. (2020), https://arxiv.org/abs/2003.06468.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfrobust.attacks.decisions import DecisionAttack, Decisions, Draw, Found
from tfrobust.attacks.queries import cosines, fold, repeat, wide
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

# Queries per iteration, some of which the line searches take; and the growth of the votes from
# one iteration to the next, 0.6 ** (-2/3): as published.
_TURN, _SEARCHED, _GROWTH = 500, 25, 0.6 ** (-2 / 3)
# Bisections of a path to the boundary; and how often a path may be doubled to reach it.
_HALVINGS, _DOUBLINGS = 16, 6


@dataclass(frozen=True, kw_only=True)
class GeoDA(DecisionAttack):
    """The geometric decision-based attack, in linf and l2.

    Rahmati et al. (2020), https://arxiv.org/abs/2003.06468.

    Each iteration estimates the boundary's normal at the nearest point found from Gaussian
    low-frequency directions, and goes from x along it (in linf along its sign) to the boundary.
    The number of queries grows as the point gets nearer.

    Attributes:
      queries: maximum model evaluations per example, image and start included.
      tries: maximum number of random images tried as a misclassified start.
      sigma: standard deviation of the directions, in pixels of [0, 1].
      frequencies: share of the lowest frequencies along each side that directions are made of; 1
        is all of them, a third the published value.
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      early_stop: budget attack: an example is done as soon as its point lies in the ball. Off:
        minimal attack: all queries are spent, and the nearest misclassified point is returned,
        even outside the ball.

    Raises:
      UsageError: a value out of range.

    Examples:
      >>> attack = tr.GeoDA(queries=20)
      >>> attack.perturb(model, x[:8], y[:8], ball).shape == x[:8].shape
      True
    """

    sigma: float = 0.002
    frequencies: float = 0.34

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma > 0:
            raise UsageError(f"sigma: expected more than 0, found {self.sigma!r}.")
        if not 0 < self.frequencies <= 1:
            raise UsageError(
                f"frequencies: expected a number in (0, 1], found {self.frequencies!r}."
            )

    def _search(self, seen: Decisions, found: Found, seed: Tensor) -> Found:
        votes = self._votes()
        draw = self._low_frequencies(seen.x)
        size = tf.fill(tf.shape(found.distance), self.sigma)

        def turn(i: Tensor, found: Found) -> tuple[Tensor, Found]:
            count = tf.gather(votes, i)
            normal, found = seen.normal(found, size, count, draw, fold(seed, i + 1), centred=False)
            return i + 1, _from_x(seen, found, seen.ball.steepest_step(normal, 1.0))

        def goes_on(i: Tensor, found: Found) -> Tensor:
            return (i < len(votes)) & tf.reduce_any(seen.open(found))

        found = seen.bisect(found, seen.toward(found.x_adv), seen.open(found), _HALVINGS)
        made: Found = repeat(goes_on, turn, (tf.constant(0), found))[1]
        return made

    def _votes(self) -> list[int]:
        """The number of directions in each iteration."""
        turns = max(1, round(self.queries / _TURN))
        shares = [_GROWTH**i for i in range(turns)]
        budget = max(turns, self.queries - _SEARCHED * (turns + 1))
        return [max(1, int(budget * share / sum(shares))) for share in shares]

    def _low_frequencies(self, x: Tensor) -> Draw:
        """(shape [B, S, H, W, C], seed) -> directions with deviation 1 in each frequency."""
        kept = [math.ceil(self.frequencies * side) for side in x.shape[1:3]]
        down, across = (cosines(side)[:k] for side, k in zip(x.shape[1:3], kept, strict=True))

        def draw(shape: Tensor, seed: Tensor) -> Tensor:
            inner = tf.concat([shape[:2], kept, shape[4:]], axis=0)
            drawn = tf.random.stateless_normal(inner, seed)
            return tf.einsum("fh,nsfgc,gw->nshwc", down, drawn, across)

        return draw


def _from_x(seen: Decisions, found: Found, along: Tensor) -> Found:
    """Goes from x along a direction to the boundary, first as far as the nearest point is."""
    distance = tf.where(tf.math.is_finite(found.distance), found.distance, 0.0)

    def at(size: Tensor) -> Tensor:
        return tf.clip_by_value(seen.x + wide(size) * along, *seen.ball.bounds)

    def further(
        i: Tensor, size: Tensor, trying: Tensor, reached: Tensor, found: Found
    ) -> tuple[Tensor, ...]:
        asked = trying & seen.open(found)
        wrong, found = seen.ask(found, at(size), asked)
        trying = asked & ~wrong
        return i + 1, tf.where(trying, 2 * size, size), trying, reached | wrong, found

    def goes_on(i: Tensor, size: Tensor, trying: Tensor, *_: Tensor) -> Tensor:
        return (i < _DOUBLINGS) & tf.reduce_any(trying)

    trying = seen.open(found)
    state = (tf.constant(0), distance, trying, tf.zeros_like(trying), found)
    _, size, _, reached, found = repeat(goes_on, further, state)
    return seen.bisect(found, lambda share: at(share * size), reached, _HALVINGS)
