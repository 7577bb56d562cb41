"""Square attack: random search with square-shaped updates, without gradients.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049, with the settings of
AutoAttack, Croce and Hein (2020), https://arxiv.org/abs/2003.01690; in l1 Croce and Hein (2021),
"Mind the box", https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter, where
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.runner import Attack
from tfrobust.attacks.square_windows import (
    corners,
    normalised,
    place_of,
    pyramid,
    pyramids,
    read,
    shared,
    signs,
    size_of,
    write,
)
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor

# The share of the image in a square is halved after each of these queries of 10,000.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE = 10_000


class _Active(NamedTuple):
    """The active rows: their indices in the batch, and the state of each search."""

    index: Tensor
    x: Tensor
    y: Tensor
    best: Tensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square attack in 'linf', 'l2' and 'l1', as published.

    Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049.

    Each query changes one square at a random position, drawn for each example separately; the
    change is kept if it raises the loss or misclassifies. In 'linf' a square takes the colour
    x +- eps, with a sign per channel, and the search starts from vertical stripes; in 'l2' a
    square takes the budget of another one, shaped as a two-sided pyramid, and the search starts
    from a grid of such pyramids; 'l1' does the same with steeper pyramids, and the whole is
    projected onto ball and bounds together. Squares shrink by the paper's schedule, stretched to
    `queries`. A square may lie anywhere inside the image, including the last row and column (as
    in the paper; AutoAttack's code omits those).

    A misclassified example is dropped at once. No query is spent on x itself: an example that is
    misclassified without attack is dropped at its first misclassified query.

    Attributes:
      queries: maximum forward evaluations per example, the start included.
      p_init: share of the image's pixels in the first squares, in (0, 1].
      restarts: independent runs; the caller repeats the attack with other seeds on
        the examples that survive.
      loss: the loss to maximise, a name of `LOSSES`.

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
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

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
            raise UsageError(f"p_init: expected a number in (0, 1], found {self.p_init!r}.")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Where the attack succeeds it is the misclassified point itself, elsewhere
        the point of the highest loss. Examples are independent except for the
        random draws, which depend on the position among those that survive.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C]; H, W and C are known when traced.
          y: labels, int32 [B].
          threat_model: the ball, 'linf', 'l2' or 'l1'.
          seed: int32 [2].

        Raises:
          UsageError: an unsupported norm.
        """
        if threat_model.norm not in self.norms:
            raise UsageError(
                f"Square: expected the norm {', '.join(self.norms)}, found {threat_model.norm!r}; "
                "use sparse-rs."
            )
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        sizes = self._sizes(x, threat_model.norm)

        def goes_on(i: Tensor, active: _Active, x_adv: Tensor) -> Tensor:
            return (i < self.queries) & (tf.size(active.index) > 0)

        def query(i: Tensor, active: _Active, x_adv: Tensor) -> tuple[Any, ...]:
            draw_seed = tf.random.experimental.stateless_fold_in(seed, i)
            proposal = _propose(active, sizes[i], i == 0, threat_model, draw_seed)
            active, broken = self._accept(model, active, proposal)
            # Most queries break nothing: then no row has to be moved.
            active, x_adv = tf.cond(
                tf.reduce_any(broken),
                lambda: _leave(active, broken, x_adv),
                lambda: (active, x_adv),
            )
            return i + 1, active, x_adv

        start = _Active(all_rows(y), x, y, x, tf.fill(tf.shape(y), -float("inf")))
        some, images = tf.TensorShape([None]), tf.TensorShape([None, *x.shape[1:]])
        shapes = (tf.TensorShape([]), _Active(some, images, some, images, some), x.shape)
        _, active, x_adv = tf.while_loop(
            goes_on, query, (tf.constant(0), start, x), shapes, parallel_iterations=1
        )
        return tf.stop_gradient(scatter(x_adv, active.index, active.best))

    def _sizes(self, x: Tensor, norm: str) -> Tensor:
        """The side of the squares at each query, int32 [queries]; the first is unused."""
        height, width = x.shape[1:3]
        # The paper counts from the query after the start.
        done = (tf.range(self.queries, dtype=tf.int64) - 1) * _SCHEDULE // self.queries
        halvings = tf.reduce_sum(tf.cast(done[:, None] > _HALVINGS, tf.float32), axis=1)
        size = tf.cast(tf.round(tf.sqrt(self.p_init * height * width * 0.5**halvings)), tf.int32)
        if norm != "linf":
            # An odd side, so that the pyramid has a centre.
            size = tf.maximum(size, 3)
            size = size + (size + 1) % 2
        return tf.clip_by_value(size, 1, min(height, width))

    def _accept(self, model: Model, active: _Active, proposal: Tensor) -> tuple[_Active, Tensor]:
        """Accepts the better proposals; returns also which are misclassified, bool [M]."""
        logits = model(proposal)
        loss = tf.cast(LOSSES[self.loss](logits, active.y), tf.float32)
        broken = ~is_correct(logits, active.y)
        better = (loss > active.loss) | broken
        best = where(better, proposal, active.best)
        loss = tf.where(better, loss, active.loss)
        return active._replace(best=best, loss=loss), broken


def _leave(active: _Active, broken: Tensor, x_adv: Tensor) -> tuple[_Active, Tensor]:
    """Writes the broken examples into `x_adv` [B, ...] and drops them."""
    index, points = keep(active.index, broken, active.best)
    return _Active(*keep(active.index, ~broken, *active[1:])), scatter(x_adv, index, points)


def _propose(
    active: _Active, size: Tensor, first: Tensor, threat_model: ThreatModel, seed: Tensor
) -> Tensor:
    """The next point of each example to query, [M, H, W, C]."""
    x, best = active.x, active.best
    linf = threat_model.norm == "linf"
    start, step = (_stripes, _recolour) if linf else (_grid, _move_budget)
    return tf.cond(
        first,
        lambda: start(x, threat_model, seed),
        lambda: step(x, best, threat_model, size, seed),
    )


def _stripes(x: Tensor, ball: ThreatModel, seed: Tensor) -> Tensor:
    """x +- eps, with a random sign for each column and channel."""
    shape = [tf.shape(x)[0], 1, *x.shape[2:]]
    stripes = signs(tf.random.stateless_uniform(shape, seed))
    return tf.clip_by_value(x + ball.eps * stripes, *ball.bounds)


def _recolour(x: Tensor, best: Tensor, ball: ThreatModel, size: Tensor, seed: Tensor) -> Tensor:
    """`best` with one random square set to x +- eps, the sign drawn for each channel."""
    draws = tf.random.stateless_uniform([tf.shape(x)[0], 2 + x.shape[3]], seed)
    place = place_of(corners(draws, x, size), x, size)
    colour = read(x, place) + ball.eps * signs(draws[:, None, 2:])
    return write(best, place, tf.clip_by_value(colour, *ball.bounds))


def _grid(x: Tensor, ball: ThreatModel, seed: Tensor) -> Tensor:
    """x with a grid of pyramids."""
    grid = pyramids(x, ball.norm, seed)
    if ball.norm == "l1":
        # Each window of each channel has length 1: in total far beyond the ball.
        return ball.project(x + grid, x)
    grid = normalised(grid, ball.norm, [1, 2, 3])
    return tf.clip_by_value(x + ball.eps * grid, *ball.bounds)


def _move_budget(x: Tensor, best: Tensor, ball: ThreatModel, size: Tensor, seed: Tensor) -> Tensor:
    """`best` with the budget of two windows, plus the unused rest, moved into the first one.

    Algorithm 3 of the paper: the first window's old content, scaled to norm 1 in each channel,
    and a pyramid of random signs are added and given the budget. In l2 the perturbation then has
    norm eps, until it is clipped to the bounds; in l1 each channel requests its budget times the
    number of channels, and the projection decides.
    """
    channels, norm = x.shape[3], ball.norm
    draws = tf.random.stateless_uniform([tf.shape(x)[0], 5 + channels], seed)
    corner, other = corners(draws, x, size), corners(draws[:, 2:], x, size)
    place, emptied = place_of(corner, x, size), place_of(other, x, size)
    clean, clean_there = read(x, place), read(x, emptied)
    old, old_there = read(best, place) - clean, read(best, emptied) - clean_there

    # The overlap of both windows counts once.
    apart = tf.cast(~shared(corner, other, size), tf.float32)[..., None]
    freed = size_of(old, norm, 1) + size_of(old_there * apart, norm, 1)
    used = size_of(best - x, norm, [1, 2, 3])[:, 0]
    whole = ball.eps if norm == "l1" else ball.eps**2
    budget = freed + tf.maximum(whole - used, 0.0) / channels

    kernel = pyramid(size, norm)
    flat, turned = (tf.reshape(each, [1, -1]) for each in (kernel, tf.transpose(kernel)))
    kernel = tf.where(draws[:, 4:5] < 0.5, flat, turned)[..., None]
    shape = normalised(old, norm, 1) + kernel * signs(draws[:, None, 5:])
    length = channels * budget if norm == "l1" else tf.sqrt(budget)
    content = clean + normalised(shape, norm, 1) * length
    moved = write(best, emptied, clean_there)
    if norm == "l1":
        return ball.project(write(moved, place, content), x)
    return write(moved, place, tf.clip_by_value(content, *ball.bounds))
