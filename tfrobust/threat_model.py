"""The ball that an adversary may move in: the only ball geometry in the project.

All methods take batches: `x`, `x_adv` and `grad` are float32 [B, H, W, C] (any rank from 2
works), norms are taken per example. They are TensorFlow code without Python state, usable in a
`tf.function`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfrobust.config import NORMS, ThreatConfig
from tfrobust.errors import UsageError
from tfrobust.l1_projection import project_l1_in_box
from tfrobust.runtime import tf
from tfrobust.settings import format_eps
from tfrobust.typing import Tensor

TOLERANCE = 1e-6


@dataclass(frozen=True)
class ThreatModel:
    """All x_adv with ||x_adv - x|| <= eps, inside the bounds.

    Attributes:
      norm: 'linf', 'l2', 'l1', or 'l0' (the number of changed pixels, whatever the number of
        channels).
      eps: the radius, in pixel values of [0, 1] (for 'l0': a number of pixels).
      bounds: the valid pixel range.

    Raises:
      UsageError: unknown norm, negative eps or empty bounds.

    Examples:
      >>> tr.ThreatModel("l2", 0.5)
      ThreatModel(norm='l2', eps=0.5, bounds=(0.0, 1.0))
      >>> tr.ThreatModel("lp", 0.5)
      Traceback (most recent call last):
      ...
      tfrobust.errors.UsageError: ...
    """

    norm: str = "linf"
    eps: float = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UsageError(f"norm: expected one of {', '.join(NORMS)}, found {self.norm!r}.")
        # Inside a traced function eps may be a tensor, so that radii share one trace.
        if not tf.is_tensor(self.eps) and not self.eps >= 0:
            raise UsageError(f"eps: expected 0 or more, found {self.eps!r}.")
        if not self.bounds[0] < self.bounds[1]:
            raise UsageError(f"bounds: expected (low, high), found {self.bounds!r}.")

    @classmethod
    def from_config(cls, config: ThreatConfig) -> ThreatModel:
        """The threat model of a run's configuration.

        Raises:
          UsageError: 'l0' with a radius that is not a number of pixels.
        """
        if config.norm == "l0" and (config.eps < 1 or config.eps != int(config.eps)):
            raise UsageError(
                f"eps: for the norm l0 it is a number of pixels, expected at least 1, found "
                f"{config.eps:.6g}; give --eps 5."
            )
        return cls(norm=config.norm, eps=config.eps)

    def __str__(self) -> str:
        return f"{self.norm}, eps {self.eps_text}"

    @property
    def eps_text(self) -> str:
        """The radius in the user's notation: '8/255', '0.5', '5 pixels'."""
        return format_eps(self.eps, self.norm)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """||x_adv - x|| in this norm, float32 [B]."""
        return _norm(_flat(x_adv - x), self.norm, _channels(x))

    def contains(self, x_adv: Tensor, x: Tensor, tolerance: float = TOLERANCE) -> Tensor:
        """Whether each x_adv lies in the ball and in the bounds, bool [B].

        `tolerance` is absolute, on the distance and on the bounds. NaN is outside.
        """
        low, high = self.bounds
        flat = _flat(x_adv)
        inside = tf.reduce_all((flat >= low - tolerance) & (flat <= high + tolerance), axis=1)
        return inside & (self.distance(x_adv, x) <= self.eps + tolerance)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A point of the ball and the bounds near x_adv, float32 like x.

        Onto the ball it is the Euclidean projection. Clipping to the bounds afterwards moves every
        coordinate towards x, which is inside them, and so cannot leave the ball. In 'l1' and 'l0'
        it is the Euclidean projection onto both. For 'l1' see Croce and Hein (2021),
        https://arxiv.org/abs/2103.01208; in 'l0' the eps pixels with the largest changes are kept,
        not counting changes beyond the bounds (Croce and Hein, 2019,
        https://arxiv.org/abs/1909.05040).
        """
        delta, eps = _flat(x_adv - x), _per_example(self.eps)
        if self.norm == "l0":
            beyond = _flat(x_adv - tf.clip_by_value(x_adv, *self.bounds))
            gain = tf.square(delta) - tf.square(beyond)
            delta = _keep_pixels(delta, gain, tf.cast(eps, tf.int32), _channels(x))
        elif self.norm == "l1":
            low, high = self.bounds
            room = tf.where(delta > 0, high - _flat(x), _flat(x) - low)
            delta = project_l1_in_box(delta, room, eps)
        else:
            delta = _project_ball(delta, self.norm, eps)
        return tf.clip_by_value(x + tf.reshape(delta, tf.shape(x)), *self.bounds)

    def largest_radius(self, image_shape: Sequence[int]) -> float:
        """The radius from which on the ball around any image contains every other image.

        Args:
          image_shape: (H, W, C).
        """
        width, values = self.bounds[1] - self.bounds[0], float(math.prod(image_shape))
        radii: dict[str, float] = {
            "linf": width,
            "l2": width * values**0.5,
            "l1": width * values,
        }
        return radii.get(self.norm, values / image_shape[-1])

    def with_radii(self, radii: Tensor) -> ThreatModel:
        """The same ball with a separate radius per example, for `project` and `contains`.

        Args:
          radii: float32 [B], 0 or more, in the units of eps.
        """
        return replace(self, eps=radii)

    def random_start(self, x: Tensor, seed: Tensor) -> Tensor:
        """A random point of the ball and the bounds for each x.

        'linf': uniform in the cube. 'l2': uniform in the ball. 'l1': a uniform
        direction of the l1 sphere at a uniform share of the radius. 'l0': eps random
        pixels with uniform colours.

        Args:
          x: float32 [B, ...].
          seed: int32 [2], a stateless seed.
        """
        shape = tf.shape(_flat(x))
        delta = _random_ball(shape, self.norm, self.eps, seed, _channels(x), self.bounds)
        return self.project(x + tf.reshape(delta, tf.shape(x)), x)

    def steepest_step(self, grad: Tensor, step_size: float | Tensor) -> Tensor:
        """The step of length `step_size` that increases a linear function most.

        'linf': the sign of the gradient. 'l2': the gradient's direction. 'l1' (and 'l0', which has
        no steepest direction, by the same rule): the whole step on the largest 1 % of the
        coordinates (Tramer and Boneh, 2019), by sign. A gradient of 0 gives a step of 0. Scaling
        the gradient changes nothing.

        Args:
          grad: float32 [B, ...].
          step_size: in the units of eps; scalar, or [B].
        """
        direction = _steepest(_flat(grad), self.norm)
        size = tf.reshape(tf.cast(step_size, direction.dtype), [-1, 1])
        return tf.reshape(direction * size, tf.shape(grad))


def Linf(eps: float) -> ThreatModel:  # noqa: N802 (the name of a threat model)
    """No pixel value changes by more than `eps`, in [0, 1]: ``Linf(8 / 255)``.

    Args:
      eps: the radius, in pixel values of [0, 1], 0 or more.

    Raises:
      UsageError: `eps` is negative.

    Examples:
      >>> str(tr.Linf(8 / 255))
      'linf, eps 8/255'
    """
    return ThreatModel("linf", eps)


def L2(eps: float) -> ThreatModel:  # noqa: N802
    """The Euclidean length of the change is at most `eps`: ``L2(0.5)``.

    Args:
      eps: the radius, in pixel values of [0, 1], 0 or more.

    Raises:
      UsageError: `eps` is negative.

    Examples:
      >>> tr.L2(0.5).norm, tr.L2(0.5).eps
      ('l2', 0.5)
    """
    return ThreatModel("l2", eps)


def L1(eps: float) -> ThreatModel:  # noqa: N802
    """The absolute changes of all values sum to at most `eps`: ``L1(12)``.

    Args:
      eps: the radius, in pixel values of [0, 1], 0 or more.

    Raises:
      UsageError: `eps` is negative.

    Examples:
      >>> tr.L1(12).norm
      'l1'
    """
    return ThreatModel("l1", eps)


def L0(pixels: int) -> ThreatModel:  # noqa: N802
    """At most this many pixels change, each by any amount: ``L0(5)``.

    Args:
      pixels: number of pixels, 0 or more; a pixel counts once, whatever its number of channels.

    Raises:
      UsageError: `pixels` is negative.

    Examples:
      >>> str(tr.L0(5))
      'l0, eps 5 pixels'
    """
    return ThreatModel("l0", pixels)


def _flat(x: Tensor) -> Tensor:
    # Not -1, which would leave an empty batch undefined.
    return tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])


def _channels(x: Tensor) -> int:
    """Values in a pixel: the last axis of images; vectors have one value per pixel."""
    return int(x.shape[-1]) if len(x.shape) == 4 else 1


def _norm(flat: Tensor, norm: str, channels: int) -> Tensor:
    if norm == "linf":
        return tf.reduce_max(tf.abs(flat), axis=1)
    if norm == "l2":
        return tf.norm(flat, axis=1)
    if norm == "l1":
        return tf.reduce_sum(tf.abs(flat), axis=1)
    changed = tf.reduce_any(_pixels(flat, channels) != 0, axis=2)
    return tf.reduce_sum(tf.cast(changed, flat.dtype), axis=1)


def _pixels(flat: Tensor, channels: int) -> Tensor:
    return tf.reshape(flat, [tf.shape(flat)[0], -1, channels])


def _per_example(eps: Any) -> Any:
    """Radii [B] as [B, 1], to broadcast with flat images; a single radius unchanged."""
    return eps[:, None] if tf.is_tensor(eps) and eps.shape.rank == 1 else eps


def _project_ball(flat: Tensor, norm: str, eps: Any) -> Tensor:
    if norm == "linf":
        return tf.clip_by_value(flat, -eps, eps)
    length = tf.norm(flat, axis=1, keepdims=True)
    return flat * tf.minimum(1.0, eps / tf.maximum(length, 1e-12))


def _keep_pixels(flat: Tensor, gain: Tensor, count: Tensor, channels: int) -> Tensor:
    """The `count` pixels with the largest `gain`, which has a value per pixel; the others as 0."""
    pixels = _pixels(flat, channels)
    change = tf.reduce_sum(_pixels(gain, channels), axis=2)
    # The rank of each pixel by its gain: ties are broken by position, so that never more than
    # `count` pixels are kept.
    order = tf.argsort(change, axis=1, direction="DESCENDING", stable=True)
    rank = tf.argsort(order, axis=1)
    kept = tf.cast(rank < count, flat.dtype)[:, :, None]
    return tf.reshape(pixels * kept, tf.shape(flat))


def _random_ball(
    shape: Tensor, norm: str, eps: float, seed: Tensor, channels: int, bounds: tuple[float, float]
) -> Tensor:
    batch, size = shape[0], tf.cast(shape[1], tf.float32)
    seeds = tf.random.experimental.stateless_split(seed, 2)
    if norm == "linf":
        return tf.random.stateless_uniform(shape, seed, -eps, eps)
    share = tf.random.stateless_uniform([batch, 1], seeds[0])
    if norm == "l2":
        direction = tf.math.l2_normalize(tf.random.stateless_normal(shape, seeds[1]), axis=1)
        return direction * eps * share ** (1.0 / size)
    if norm == "l1":
        uniform = tf.random.stateless_uniform(shape, seeds[1], -1.0 + 1e-6, 1.0)
        laplace = tf.sign(uniform) * -tf.math.log(tf.maximum(1.0 - tf.abs(uniform), 1e-12))
        return laplace / tf.reduce_sum(tf.abs(laplace), axis=1, keepdims=True) * eps * share
    width = bounds[1] - bounds[0]
    colours = tf.random.stateless_uniform(shape, seeds[0], -width, width)
    return _random_pixels(colours, tf.cast(eps, tf.int32), seeds[1], channels)


def _random_pixels(flat: Tensor, count: Tensor, seed: Tensor, channels: int) -> Tensor:
    """Keeps `count` random pixels of each example and sets the others to 0."""
    pixels = _pixels(flat, channels)
    lottery = tf.random.stateless_uniform(tf.shape(pixels)[:2], seed)
    rank = tf.argsort(tf.argsort(lottery, axis=1), axis=1)
    return tf.reshape(pixels * tf.cast(rank < count, flat.dtype)[:, :, None], tf.shape(flat))


def _steepest(flat: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return tf.sign(flat)
    if norm == "l2":
        # Divided by the largest value first: squares of tiny gradients underflow.
        scaled = tf.math.divide_no_nan(flat, tf.reduce_max(tf.abs(flat), axis=1, keepdims=True))
        return tf.math.divide_no_nan(scaled, tf.norm(scaled, axis=1, keepdims=True))
    size = tf.abs(flat)
    count = tf.maximum(tf.shape(flat)[1] // 100, 1)
    threshold = tf.sort(size, axis=1, direction="DESCENDING")[:, count - 1, None]
    chosen = tf.sign(flat) * tf.cast(size >= threshold, flat.dtype)
    total = tf.reduce_sum(tf.abs(chosen), axis=1, keepdims=True)
    return tf.math.divide_no_nan(chosen, total)
