"""Square attack: random search with square-shaped updates, without gradients.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049, with the settings of
AutoAttack, Croce and Hein (2020), https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.runner import Attack
from tfrobust.attacks.standing import everyone, is_correct, keep, scatter, where
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor

# The share of the image in a square is halved after each of these queries of 10,000.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE = 10_000
_TINY = 1e-12


class _Standing(NamedTuple):
    """The examples that still stand: their rows in the batch, and how far each has come."""

    index: Tensor
    x: Tensor
    y: Tensor
    best: Tensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square attack in 'linf' and 'l2', as published.

    Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049.

    Each query changes one square at a random place, drawn for each example on its own,
    and the change stays where it raises the loss or misclassifies. In 'linf' a square
    takes the colour x +- eps, a sign for each channel, and the search starts from
    vertical stripes; in 'l2' a square takes the budget of another one, shaped as a
    two-sided pyramid, and the search starts from a grid of such pyramids. Squares shrink
    by the paper's schedule, stretched to `queries`. A square may lie at any place inside
    the image, the last row and column included (as in the paper; AutoAttack's code
    leaves those out).

    An example that is misclassified leaves at once. No query is spent on x itself: an
    example that is misclassified without attack leaves at its first misclassified query.

    Attributes:
      queries: forward evaluations per example, the most, the start included.
      p_init: the part of the image's pixels in the first squares, above 0, at most 1.
      restarts: independent runs; the caller repeats the attack with other seeds on
        the examples that still stand.
      loss: what is climbed, a name of `LOSSES`.

    Raises:
      UsageError: a value outside its range, or an unknown loss.

    Examples:
      >>> attack = tr.Square(queries=20)
      >>> attack.needs_gradient
      False
      >>> attack.perturb(model, x[:8], y[:8], ball).shape == x[:8].shape
      True
    """

    needs_gradient: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    loss: str = "margin"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")
        if self.queries < 1 or self.restarts < 1:
            raise UsageError(
                "Square: queries and restarts are expected to be at least 1, found "
                f"{self.queries} and {self.restarts}."
            )
        if not 0 < self.p_init <= 1:
            raise UsageError(f"p_init: expected above 0 and at most 1, found {self.p_init!r}.")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Where the attack succeeds it is the very point that was misclassified, elsewhere
        the point of the highest loss. Examples do not influence each other, but for the
        random draws, which depend on the position among those that still stand.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C]; H, W and C are known when traced.
          y: labels, int32 [B].
          threat_model: the ball, 'linf' or 'l2'.
          seed: int32 [2].

        Raises:
          UsageError: the norm is neither 'linf' nor 'l2'.
        """
        if threat_model.norm not in ("linf", "l2"):
            raise UsageError(
                f"Square: expected the norm linf or l2, found {threat_model.norm!r}; "
                "choose another attack for this norm."
            )
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        sizes = self._sizes(x, threat_model.norm)

        def goes_on(i: Tensor, standing: _Standing, x_adv: Tensor) -> Tensor:
            return (i < self.queries) & (tf.size(standing.index) > 0)

        def query(i: Tensor, standing: _Standing, x_adv: Tensor) -> tuple[Any, ...]:
            draw_seed = tf.random.experimental.stateless_fold_in(seed, i)
            proposal = _propose(standing, sizes[i], i == 0, threat_model, draw_seed)
            standing, broken = self._accept(model, standing, proposal)
            # Most queries break nothing, and then there is nothing to move.
            standing, x_adv = tf.cond(
                tf.reduce_any(broken),
                lambda: _leave(standing, broken, x_adv),
                lambda: (standing, x_adv),
            )
            return i + 1, standing, x_adv

        start = _Standing(everyone(y), x, y, x, tf.fill(tf.shape(y), -float("inf")))
        some, images = tf.TensorShape([None]), tf.TensorShape([None, *x.shape[1:]])
        shapes = (tf.TensorShape([]), _Standing(some, images, some, images, some), x.shape)
        _, standing, x_adv = tf.while_loop(
            goes_on, query, (tf.constant(0), start, x), shapes, parallel_iterations=1
        )
        return tf.stop_gradient(scatter(x_adv, standing.index, standing.best))

    def _sizes(self, x: Tensor, norm: str) -> Tensor:
        """The side of the squares at each query, int32 [queries]; the first is not used."""
        height, width = x.shape[1:3]
        # The paper counts from the query after the start.
        done = (tf.range(self.queries, dtype=tf.int64) - 1) * _SCHEDULE // self.queries
        halvings = tf.reduce_sum(tf.cast(done[:, None] > _HALVINGS, tf.float32), axis=1)
        size = tf.cast(tf.round(tf.sqrt(self.p_init * height * width * 0.5**halvings)), tf.int32)
        if norm == "l2":
            # An odd side: the pyramid has a middle.
            size = tf.maximum(size, 3)
            size = size + (size + 1) % 2
        return tf.clip_by_value(size, 1, min(height, width))

    def _accept(
        self, model: Model, standing: _Standing, proposal: Tensor
    ) -> tuple[_Standing, Tensor]:
        """Takes each proposal that is better; and whether each is misclassified, bool [M]."""
        logits = model(proposal)
        loss = tf.cast(LOSSES[self.loss](logits, standing.y), tf.float32)
        broken = ~is_correct(logits, standing.y)
        better = (loss > standing.loss) | broken
        best = where(better, proposal, standing.best)
        loss = tf.where(better, loss, standing.loss)
        return standing._replace(best=best, loss=loss), broken


def _leave(standing: _Standing, broken: Tensor, x_adv: Tensor) -> tuple[_Standing, Tensor]:
    """Writes the broken examples into `x_adv` [B, ...] and goes on without them."""
    index, points = keep(standing.index, broken, standing.best)
    return _Standing(*keep(standing.index, ~broken, *standing[1:])), scatter(x_adv, index, points)


def _propose(
    standing: _Standing, size: Tensor, first: Tensor, threat_model: ThreatModel, seed: Tensor
) -> Tensor:
    """The next point of each example to ask the model about, [M, H, W, C]."""
    x, best, eps, bounds = standing.x, standing.best, threat_model.eps, threat_model.bounds
    linf = threat_model.norm == "linf"
    start, step = (_stripes, _recolour) if linf else (_pyramids, _move_budget)
    return tf.cond(
        first,
        lambda: tf.clip_by_value(x + eps * start(x, seed), *bounds),
        lambda: step(x, best, eps, bounds, size, seed),
    )


def _signs(draws: Tensor) -> Tensor:
    """-1 or 1 for each draw from [0, 1)."""
    return tf.where(draws < 0.5, -1.0, 1.0)


def _normalised(x: Tensor, axis: Any = None) -> Tensor:
    square = tf.reduce_sum(x**2, axis=axis, keepdims=axis is not None)
    return x * tf.math.rsqrt(tf.maximum(square, _TINY))


def _stripes(x: Tensor, seed: Tensor) -> Tensor:
    """-1 or 1 for each column and channel, [M, 1, W, C]."""
    shape = [tf.shape(x)[0], 1, *x.shape[2:]]
    return _signs(tf.random.stateless_uniform(shape, seed))


def _recolour(
    x: Tensor, best: Tensor, eps: Any, bounds: tuple[float, float], size: Tensor, seed: Tensor
) -> Tensor:
    """`best` with one random square set to x +- eps, the sign drawn for each channel."""
    draws = tf.random.stateless_uniform([tf.shape(x)[0], 2 + x.shape[3]], seed)
    place = _place(_corner(draws, x, size), x, size)
    colour = _read(x, place) + eps * _signs(draws[:, None, 2:])
    return _write(best, place, tf.clip_by_value(colour, *bounds))


def _move_budget(
    x: Tensor, best: Tensor, eps: Any, bounds: tuple[float, float], size: Tensor, seed: Tensor
) -> Tensor:
    """`best` with the budget of two windows, and what is unused, put into the first one.

    Algorithm 3 of the paper: the first window's old content, scaled to norm 1 in each
    channel, and a pyramid of random signs are added up and given the budget. The
    perturbation's norm is eps afterwards, until it is clipped to the bounds.
    """
    channels = x.shape[3]
    draws = tf.random.stateless_uniform([tf.shape(x)[0], 5 + channels], seed)
    corner, other = _corner(draws, x, size), _corner(draws[:, 2:], x, size)
    place, emptied = _place(corner, x, size), _place(other, x, size)
    clean, clean_there = _read(x, place), _read(x, emptied)
    old, old_there = _read(best, place) - clean, _read(best, emptied) - clean_there

    # What lies in both windows counts once.
    apart = tf.cast(~_shared(corner, other, size), tf.float32)[..., None]
    freed = tf.reduce_sum(old**2, 1, True) + tf.reduce_sum(old_there**2 * apart, 1, True)
    used = tf.reduce_sum(tf.math.squared_difference(best, x), [1, 2, 3])[:, None, None]
    budget = freed + tf.maximum(eps**2 - used, 0.0) / channels

    pyramid = _pyramid(size)
    flat, turned = (tf.reshape(each, [1, -1]) for each in (pyramid, tf.transpose(pyramid)))
    pyramid = tf.where(draws[:, 4:5] < 0.5, flat, turned)[..., None]
    shape = _normalised(old, 1) + pyramid * _signs(draws[:, None, 5:])
    content = clean + _normalised(shape, 1) * tf.sqrt(budget)
    return _write(_write(best, emptied, clean_there), place, tf.clip_by_value(content, *bounds))


def _corner(draws: Tensor, x: Tensor, size: Tensor) -> Tensor:
    """(row, column) of random windows, int32 [M, 2], from the first two draws of [M, ...]."""
    height, width = x.shape[1:3]
    places = tf.cast(tf.stack([height - size + 1, width - size + 1]), tf.float32)
    return tf.cast(draws[:, :2] * places, tf.int32)


def _place(corner: Tensor, x: Tensor, size: Tensor) -> Tensor:
    """Where the pixels of each window are among all pixels of the batch, int32 [M, size^2].

    Windows are read and written pixel by pixel, because most of them are small: masks of
    whole images would cost more than a small model does.
    """
    height, width = x.shape[1:3]
    first = (tf.range(tf.shape(x)[0]) * height + corner[:, 0]) * width + corner[:, 1]
    side = tf.range(size)
    return first[:, None] + tf.reshape(side[:, None] * width + side, [1, -1])


def _read(images: Tensor, place: Tensor) -> Tensor:
    """The pixels at `place`, [M, size^2, C]."""
    return tf.gather(tf.reshape(images, [-1, images.shape[3]]), place)


def _write(images: Tensor, place: Tensor, pixels: Tensor) -> Tensor:
    """`images` with `pixels` [M, size^2, C] at `place`."""
    flat = tf.reshape(images, [-1, images.shape[3]])
    flat = tf.tensor_scatter_nd_update(flat, place[..., None], pixels)
    return tf.reshape(flat, [-1, *images.shape[1:]])


def _shared(corner: Tensor, other: Tensor, size: Tensor) -> Tensor:
    """Which pixels of the window at `other` also lie in that at `corner`, bool [M, size^2]."""
    offset = (other - corner)[:, None, :] + tf.range(size)[None, :, None]
    inside = (offset >= 0) & (offset < size)
    both = inside[:, :, None, 0] & inside[:, None, :, 1]
    return tf.reshape(both, [-1, size * size])


def _pyramids(x: Tensor, seed: Tensor) -> Tensor:
    """A grid of about 5 x 5 pyramids, turned and signed at random, of norm 1, [M, H, W, C]."""
    height, width, channels = x.shape[1:]
    size = max(min(height, width) // 5, 1)
    grid = height // size, width // size
    draws = tf.random.stateless_uniform([tf.shape(x)[0], *grid, channels + 1], seed)
    draws = tf.repeat(tf.repeat(draws, size, axis=1), size, axis=2)
    pyramid = _pyramid(size)
    upright, turned = (tf.tile(each, grid) for each in (pyramid, tf.transpose(pyramid)))
    shape = tf.where(draws[..., 0] < 0.5, upright, turned)[..., None] * _signs(draws[..., 1:])
    margins = [(side - size * n) // 2 for side, n in zip((height, width), grid, strict=True)]
    return _normalised(tf.image.pad_to_bounding_box(shape, *margins, height, width), [1, 2, 3])


def _pyramid(size: Tensor | int) -> Tensor:
    """The paper's kernel eta: a positive and a negative pyramid, norm 1, [size, size]."""
    upper = size // 2
    levels = tf.range(1, size // 2 + 2, dtype=tf.int32)
    heights = tf.cumsum(1 / tf.cast(levels, tf.float32) ** 2, reverse=True)

    def half(rows: Any) -> Tensor:
        down, across = (tf.abs(tf.range(n) - n // 2) for n in (rows, size))
        return _normalised(tf.gather(heights, tf.maximum(down[:, None], across[None, :])))

    return _normalised(tf.concat([half(upper), -half(size - upper)], axis=0))
