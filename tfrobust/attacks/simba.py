"""SimBA: steps along one random direction of an orthonormal basis at a time.

Guo et al. (2019), https://arxiv.org/abs/1905.07121.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from tfrobust.attacks.active_rows import where
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.queries import ask, check_norm, check_queries, cosines, fold, repeat
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function, Tensor

_BASES = ("pixel", "dct")


@dataclass(frozen=True, kw_only=True)
class SimBA(Attack):
    """The simple black-box attack, in l2.

    Guo et al. (2019), https://arxiv.org/abs/1905.07121.

    Every query pair takes a direction not tried before: a value of the image, or a low-frequency
    cosine wave in one channel. The step against it is tried first, then the step along it if the
    first does not help. Once all directions are used, they are visited again in another order.
    Steps are projected onto the ball, so that at its edge one direction is traded for another.

    Attributes:
      queries: maximum model evaluations per example, the image itself included.
      step_size: length of a step, in l2.
      basis: 'pixel', or 'dct' for cosine waves, which suits images with similar neighbours.
      frequencies: share of the lowest frequencies along each side that 'dct' draws from.
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      loss: the loss to maximise, a name of `LOSSES`; 'cross_entropy' is the published one.

    Raises:
      UsageError: a value out of range.

    Examples:
      >>> attack = tr.SimBA(queries=20)
      >>> attack.perturb(model, x[:8], y[:8], tr.L2(0.5)).shape == x[:8].shape
      True
    """

    needs_gradient: ClassVar[bool] = False

    queries: int = 5000
    step_size: float = 0.2
    basis: str = "pixel"
    frequencies: float = 0.125
    restarts: int = 1
    loss: str = "margin"

    def __post_init__(self) -> None:
        check_queries(self)
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")
        if self.basis not in _BASES:
            raise UsageError(f"basis: expected {' or '.join(_BASES)}, found {self.basis!r}.")
        if not self.step_size > 0:
            raise UsageError(f"step_size: expected more than 0, found {self.step_size!r}.")
        if not 0 < self.frequencies <= 1:
            raise UsageError(
                f"frequencies: expected a number in (0, 1], found {self.frequencies!r}."
            )

    def __call__(
        self, model: Function, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        An example is done at its first misclassified point; otherwise the point of highest loss is
        returned.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode; no
            gradient is taken.
          x: clean images, float32 [B, H, W, C]; H, W and C are known when traced.
          y: labels, int [B].
          threat_model: the ball, 'l2'.
          seed: int32 [2], for the order of the directions.

        Raises:
          UsageError: the norm is not 'l2'.
        """
        check_norm(self, threat_model, ("l2",))
        x, y = tf.stop_gradient(tf.convert_to_tensor(x)), tf.convert_to_tensor(y)
        loss, broken = ask(model, x, y, tf.fill(tf.shape(y), True), self.loss)
        down, across = self._waves(x)
        count = down.shape[0] * across.shape[0] * x.shape[3]

        def goes_on(
            i: Tensor, x_adv: Tensor, loss: Tensor, broken: Tensor, used: Tensor, _: Tensor
        ) -> Tensor:
            return tf.reduce_any(~broken & (used < self.queries))

        def turn(
            i: Tensor, x_adv: Tensor, loss: Tensor, broken: Tensor, used: Tensor, order: Tensor
        ) -> tuple[Tensor, ...]:
            order = tf.cond(
                tf.equal(i % count, 0), lambda: _order(y, count, fold(seed, i)), lambda: order
            )
            wave = _wave(tf.gather(order, i % count, axis=1), down, across, x.shape[3])
            helped = tf.zeros_like(broken)
            # Against the direction first, then along it if that does not help.
            for sign in (-1.0, 1.0):
                wanted = ~broken & ~helped & (used < self.queries)
                moved = threat_model.project(x_adv + sign * self.step_size * wave, x)
                value, fell = ask(model, moved, y, wanted, self.loss)
                better = wanted & ((value > loss) | fell)
                x_adv, loss = where(better, moved, x_adv), tf.where(better, value, loss)
                helped, broken = helped | better, broken | fell
                used += tf.cast(wanted, tf.int32)
            return i + 1, x_adv, loss, broken, used, order

        order = _order(y, count, seed)
        state = (tf.constant(0), x, loss, broken, tf.ones_like(y, tf.int32), order)
        return tf.stop_gradient(repeat(goes_on, turn, state)[1])

    def _waves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The basis down and across the image: float32 [directions, H] and [directions, W]."""
        height, width = x.shape[1:3]
        if self.basis == "pixel":
            return tf.eye(height), tf.eye(width)
        kept = (math.ceil(self.frequencies * side) for side in (height, width))
        down, across = (cosines(side)[:k] for side, k in zip((height, width), kept, strict=True))
        return down, across


def _order(y: Tensor, count: int, seed: Tensor) -> Tensor:
    """Directions 0..count-1 in a random order for each example, int32 [B, count]."""
    lottery = tf.random.stateless_uniform([tf.shape(y)[0], count], seed)
    return tf.argsort(lottery, axis=1)


def _wave(chosen: Tensor, down: Tensor, across: Tensor, channels: int) -> Tensor:
    """The directions int32 [B] as images of length 1, [B, H, W, C]."""
    place, channel = chosen // channels, chosen % channels
    rows = tf.gather(down, place // across.shape[0])
    columns = tf.gather(across, place % across.shape[0])
    shape = rows[:, :, None, None] * columns[:, None, :, None]
    return shape * tf.one_hot(channel, channels)[:, None, None, :]
