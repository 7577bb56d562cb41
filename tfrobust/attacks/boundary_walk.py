"""The Boundary attack: a random walk along the decision boundary, towards the image.

Brendel et al. (2018), https://arxiv.org/abs/1712.04248.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tfrobust.attacks.decisions import DecisionAttack, Decisions, Found
from tfrobust.attacks.queries import fold, repeat, wide
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

# A step grows or shrinks by this factor after each trial.
_ADAPTED = 1.1
# Target rates: half of the steps along the sphere stay misclassified, and a quarter of the
# steps inwards, where three times as much is gained as lost.
_INWARDS = _ADAPTED**3
# A step along the sphere is tried alone once in this many iterations.
_CHECKED = 5
# Bisections of the initial segment from a random image to x.
_HALVINGS = 10
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Boundary(DecisionAttack):
    """The Boundary attack, in l2.

    Brendel et al. (2018), https://arxiv.org/abs/1712.04248.

    Each query tries a random step along the sphere around x and, from there, a small step towards
    x; a step is accepted if its end is misclassified. Both step sizes adapt to the acceptance
    rate, for each example separately.

    Attributes:
      queries: maximum model evaluations per example, image and start included.
      tries: maximum number of random images tried as a misclassified start.
      along: initial size of the step along the sphere, as a share of the distance.
      inwards: initial size of the step towards x, as a share of the distance.
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      early_stop: budget attack: an example is done as soon as its point lies in the ball. Off:
        minimal attack: all queries are spent, and the nearest misclassified point is returned,
        even outside the ball.

    Raises:
      UsageError: a value out of range.

    Examples:
      >>> attack = tr.Boundary(queries=20)
      >>> attack.perturb(model, x[:8], y[:8], tr.L2(0.5)).shape == x[:8].shape
      True
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)

    along: float = 0.1
    inwards: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("along", "inwards"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(
                    f"{name}: expected a number in (0, 1), found {getattr(self, name)!r}."
                )

    def _search(self, seen: Decisions, found: Found, seed: Tensor) -> Found:
        found = seen.bisect(found, seen.toward(found.x_adv), seen.open(found), _HALVINGS)
        one = tf.ones_like(found.distance)

        def turn(i: Tensor, along: Tensor, inwards: Tensor, found: Found) -> tuple[Tensor, ...]:
            beside = _on_sphere(seen, found, along, fold(seed, i))

            def checked() -> tuple[Tensor, Found]:
                asked = seen.open(found)
                wrong, after = seen.ask(found, beside, asked)
                return tf.where(asked, _grown(along, wrong, _ADAPTED), along), after

            along, found = tf.cond(tf.equal(i % _CHECKED, 0), checked, lambda: (along, found))
            asked = seen.open(found)
            nearer = seen.x + wide(1 - inwards) * (beside - seen.x)
            wrong, found = seen.ask(found, nearer, asked)
            inwards = tf.where(asked, _grown(inwards, wrong, _INWARDS), inwards)
            return i + 1, along, tf.minimum(inwards, 0.5), found

        def goes_on(i: Tensor, along: Tensor, inwards: Tensor, found: Found) -> Tensor:
            return tf.reduce_any(seen.open(found))

        state = (tf.constant(1), self.along * one, self.inwards * one, found)
        made: Found = repeat(goes_on, turn, state)[3]
        return made


def _grown(size: Tensor, wrong: Tensor, factor: float) -> Tensor:
    return tf.where(wrong, size * factor, size / _ADAPTED)


def _on_sphere(seen: Decisions, found: Found, along: Tensor, seed: Tensor) -> Tensor:
    """A random step perpendicular to the direction of x, rescaled to the same distance from x."""
    away = found.x_adv - seen.x
    # As long as no point is found, there is no distance either.
    distance = tf.where(tf.math.is_finite(found.distance), found.distance, 0.0)
    drawn = tf.random.stateless_normal(tf.shape(away), seed)
    inner = tf.reduce_sum(drawn * away, axis=[1, 2, 3]) / tf.maximum(distance**2, _TINY)
    drawn -= wide(inner) * away
    moved = away + wide(along * distance / _length(drawn)) * drawn
    point = seen.x + wide(distance / _length(moved)) * moved
    return tf.clip_by_value(point, *seen.ball.bounds)


def _length(images: Tensor) -> Tensor:
    return tf.maximum(tf.sqrt(tf.reduce_sum(images**2, axis=[1, 2, 3])), _TINY)
