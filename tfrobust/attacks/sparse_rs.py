"""Sparse-RS: random search for the pixels to change and their colours, without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter, where
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.minimal import require
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor

# After this many queries of 10,000 the share of moved pixels is divided by this number.
_SCHEDULE = {0: 1, 50: 2, 200: 4, 500: 5, 1000: 6, 2000: 8, 4000: 10, 6000: 12, 8000: 15}
_LENGTH = 10_000


class _Active(NamedTuple):
    """The active rows: their indices in the batch, and the state of each search."""

    index: Tensor
    x: Tensor
    y: Tensor
    best: Tensor
    chosen: Tensor  # 1 for the pixels that are changed, float32 [M, H * W].
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class SparseRS(Attack):
    """Sparse-RS in l0, Croce et al. (2022), https://arxiv.org/abs/2006.12834.

    It starts with eps random pixels in random corner colours of the cube. Each query resets some
    of them and colours as many others; the change is kept if it raises the loss or
    misclassifies. Later queries move fewer pixels, on the paper's schedule, stretched to
    `queries`. A misclassified example is dropped at once.

    Attributes:
      queries: maximum forward evaluations per example, the start included.
      moved: share of the changed pixels that the first queries move, in (0, 1].
      restarts: independent runs, repeated by the caller with other seeds on the examples that
        survive.
      loss: the loss to maximise, a name of `LOSSES`.

    Raises:
      UsageError: a value out of range; when called, an unsupported norm.

    Examples:
      >>> x_adv = tr.SparseRS(queries=20).perturb(model, x[:8], y[:8], tr.L0(3))
      >>> int((x_adv != x[:8]).any(axis=3).sum(axis=(1, 2)).max()) <= 3
      True
    """

    needs_gradient: ClassVar[bool] = False
    own_norm: ClassVar[str] = "l0"
    norms: ClassVar[tuple[str, ...]] = ("l0",)

    queries: int = 5000
    moved: float = 0.3
    restarts: int = 1
    loss: str = "margin"

    def __post_init__(self) -> None:
        require(self, 1, "queries", "restarts")
        if not 0 < self.moved <= 1:
            raise UsageError(f"moved: expected a number in (0, 1], found {self.moved!r}.")
        if self.loss not in LOSSES:
            raise UsageError(f"loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}.")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Where the attack succeeds it is the misclassified point itself, elsewhere the
        point of the highest loss. Examples are independent except for the random
        draws, which depend on the position among those that survive.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C]; H, W and C are known when traced.
          y: labels, int [B].
          threat_model: the ball, in l0.
          seed: int32 [2].

        Raises:
          UsageError: an unsupported norm.
        """
        if threat_model.norm != "l0":
            raise UsageError(
                f"SparseRS: expected the norm l0, found {threat_model.norm!r}; use square."
            )
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        pixels = x.shape[1] * x.shape[2]
        counts = self._counts(tf.minimum(tf.cast(threat_model.eps, tf.int32), pixels))

        def goes_on(i: Tensor, active: _Active, x_adv: Tensor) -> Tensor:
            return (i < self.queries) & (tf.size(active.index) > 0)

        def query(i: Tensor, active: _Active, x_adv: Tensor) -> tuple[Any, ...]:
            fresh = tf.random.experimental.stateless_fold_in(seed, i)
            proposal, chosen = _propose(active, counts[i], threat_model.bounds, fresh)
            active, broken = self._accept(model, active, proposal, chosen)
            # Most queries break nothing: then no row has to be moved.
            active, x_adv = tf.cond(
                tf.reduce_any(broken),
                lambda: _leave(active, broken, x_adv),
                lambda: (active, x_adv),
            )
            return i + 1, active, x_adv

        nothing = tf.zeros([tf.shape(y)[0], pixels])
        start = _Active(all_rows(y), x, y, x, nothing, tf.fill(tf.shape(y), -float("inf")))
        some, images = tf.TensorShape([None]), tf.TensorShape([None, *x.shape[1:]])
        shapes = _Active(some, images, some, images, tf.TensorShape([None, pixels]), some)
        _, active, x_adv = tf.while_loop(
            goes_on, query, (tf.constant(0), start, x),
            (tf.TensorShape([]), shapes, x.shape), parallel_iterations=1,
        )  # fmt: skip
        return tf.stop_gradient(scatter(x_adv, active.index, active.best))

    def _counts(self, eps: Tensor) -> Tensor:
        """The number of pixels that each query moves, int32 [queries]; all in the first one."""
        done = tf.range(self.queries, dtype=tf.int64) * _LENGTH // self.queries
        stage = tf.searchsorted(tf.constant(list(_SCHEDULE), tf.int64), done, side="right") - 1
        share = self.moved / tf.gather(tf.constant(list(_SCHEDULE.values()), tf.float32), stage)
        counts = tf.maximum(tf.cast(share * tf.cast(eps, tf.float32), tf.int32), 1)
        return tf.minimum(tf.concat([eps[None], counts[1:]], axis=0), eps)

    def _accept(
        self, model: Model, active: _Active, proposal: Tensor, chosen: Tensor
    ) -> tuple[_Active, Tensor]:
        """Accepts the better proposals; returns also which are misclassified, bool [M]."""
        logits = model(proposal)
        loss = LOSSES[self.loss](logits, active.y)
        broken = ~is_correct(logits, active.y)
        better = (loss > active.loss) | broken
        return active._replace(
            best=where(better, proposal, active.best),
            chosen=where(better, chosen, active.chosen),
            loss=tf.where(better, loss, active.loss),
        ), broken  # fmt: skip


def _leave(active: _Active, broken: Tensor, x_adv: Tensor) -> tuple[_Active, Tensor]:
    """Writes the broken examples into `x_adv` [B, ...] and drops them."""
    index, points = keep(active.index, broken, active.best)
    return _Active(*keep(active.index, ~broken, *active[1:])), scatter(x_adv, index, points)


def _propose(
    active: _Active, count: Tensor, bounds: tuple[float, float], seed: Tensor
) -> tuple[Tensor, Tensor]:
    """The next image of each example, [M, H, W, C], and its changed pixels, [M, H * W]."""
    shape, seeds = tf.shape(active.x), tf.random.experimental.stateless_split(seed, 2)
    pixels, channels = active.chosen.shape[1], active.x.shape[3]
    # In random order, first the pixels not yet changed, then the changed ones.
    lottery = tf.random.stateless_uniform([shape[0], pixels], seeds[0]) + 2.0 * active.chosen
    order = tf.argsort(lottery, axis=1) + tf.range(shape[0])[:, None] * pixels
    coloured, freed = order[:, :count], order[:, pixels - count :]
    draws = tf.random.stateless_uniform([shape[0], count, channels], seeds[1])
    colours = tf.where(draws < 0.5, bounds[0], bounds[1])
    clean, best = (tf.reshape(each, [-1, channels]) for each in (active.x, active.best))
    chosen = tf.reshape(active.chosen, [-1])
    for place, values, mark in ((freed, tf.gather(clean, freed), 0.0), (coloured, colours, 1.0)):
        best = tf.tensor_scatter_nd_update(best, place[..., None], values)
        marks = tf.fill(tf.shape(place), mark)
        chosen = tf.tensor_scatter_nd_update(chosen, place[..., None], marks)
    return tf.reshape(best, shape), tf.reshape(chosen, [-1, pixels])
