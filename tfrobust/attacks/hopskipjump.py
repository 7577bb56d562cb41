"""HopSkipJump: steps along the boundary's normal, estimated from votes, and back towards x.

Chen et al. (2020), https://arxiv.org/abs/1904.02144.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfrobust.attacks.active_rows import where
from tfrobust.attacks.decisions import DecisionAttack, Decisions, Found
from tfrobust.attacks.queries import fold, repeat, wide
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

# Maximum halvings of the step along the normal and of the path back: float32 resolves no more.
_HALVINGS, _MOST_STEPS = 30, 20
# The maximum number of directions per estimate, and their initial size, as published.
_MOST, _FIRST = 10_000, 0.1
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(DecisionAttack):
    """HopSkipJump in linf and l2, as published.

    Chen et al. (2020), https://arxiv.org/abs/1904.02144.

    Each iteration estimates the boundary's normal at the nearest point found, steps along it as
    far as the point stays misclassified, and bisects the path back to x down to the boundary.

    Attributes:
      queries: maximum model evaluations per example, image and start included.
      tries: maximum number of random images tried as a misclassified start.
      samples: directions of the first estimate; iteration i uses sqrt(i) times as many.
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      early_stop: budget attack: an example is done as soon as its point lies in the ball. Off:
        minimal attack: all queries are spent, and the nearest misclassified point is returned,
        even outside the ball.

    Raises:
      UsageError: a value out of range.

    Examples:
      >>> attack = tr.HopSkipJump(queries=20, samples=4)
      >>> attack.perturb(model, x[:8], y[:8], ball).shape == x[:8].shape
      True
    """

    samples: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise UsageError(f"samples: expected 1 or more, found {self.samples!r}.")

    def _search(self, seen: Decisions, found: Found, seed: Tensor) -> Found:
        size = math.prod(seen.x.shape[1:])
        linf = seen.ball.norm == "linf"
        precision = 1 / size**2 if linf else 1 / size**1.5
        steps = min(_MOST_STEPS, max(1, math.ceil(-math.log2(precision))))
        # Size of the directions, as a share of the distance.
        share = precision * (size if linf else math.sqrt(size))

        def turn(i: Tensor, found: Found) -> tuple[Tensor, Found]:
            root = tf.sqrt(tf.cast(i, tf.float32))
            count = tf.minimum(tf.cast(self.samples * root, tf.int32), _MOST)
            distance = tf.where(tf.math.is_finite(found.distance), found.distance, 1.0)
            probed = tf.where(tf.equal(i, 1), _FIRST, tf.maximum(share * distance, _TINY))
            draw = _uniform if linf else _gaussian
            normal, found = seen.normal(found, probed, count, draw, fold(seed, i), centred=True)
            along = seen.ball.steepest_step(normal, 1.0)
            end, reached, found = _reach(seen, found, along, distance / root)
            return i + 1, seen.bisect(found, seen.toward(end), reached, steps)

        found = seen.bisect(found, seen.toward(found.x_adv), seen.open(found), steps)
        start = (tf.constant(1), found)
        made: Found = repeat(lambda i, found: tf.reduce_any(seen.open(found)), turn, start)[1]
        return made


def _reach(
    seen: Decisions, found: Found, along: Tensor, size: Tensor
) -> tuple[Tensor, Tensor, Found]:
    """Steps along a direction, halved until their ends are misclassified.

    Returns:
      The points reached; which examples have reached one, bool [B]; and the updated `found`.
    """
    z = found.x_adv

    def step(
        i: Tensor, size: Tensor, trying: Tensor, end: Tensor, reached: Tensor, found: Found
    ) -> tuple[Tensor, ...]:
        points = tf.clip_by_value(z + wide(size) * along, *seen.ball.bounds)
        asked = trying & seen.open(found)
        wrong, found = seen.ask(found, points, asked)
        return i + 1, size / 2, asked & ~wrong, where(wrong, points, end), reached | wrong, found

    def goes_on(i: Tensor, size: Tensor, trying: Tensor, *_: Tensor) -> Tensor:
        return (i < _HALVINGS) & tf.reduce_any(trying)

    trying = seen.open(found)
    state = (tf.constant(0), size, trying, z, tf.zeros_like(trying), found)
    _, _, _, end, reached, found = repeat(goes_on, step, state)
    return end, reached, found


def _gaussian(shape: Tensor, seed: Tensor) -> Tensor:
    return _unit(tf.random.stateless_normal(shape, seed))


def _uniform(shape: Tensor, seed: Tensor) -> Tensor:
    return _unit(tf.random.stateless_uniform(shape, seed, -1.0, 1.0))


def _unit(drawn: Tensor) -> Tensor:
    """Directions [B, S, H, W, C] of length 1."""
    square = tf.reduce_sum(drawn**2, axis=[2, 3, 4], keepdims=True)
    return drawn * tf.math.rsqrt(tf.maximum(square, _TINY))
