"""Sparse-RS with patches: random search for a square's position and content per image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter, where
from tfrobust.attacks.losses import LOSSES
from tfrobust.attacks.sparse_rs import SparseRS
from tfrobust.attacks.square_windows import corners, place_of, write
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor

# After this many queries of 10,000 the changed share of the patch is divided by this number.
_SCHEDULE = {0: 1, 11: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 4001: 64, 8001: 128}
_LENGTH = 10_000
# The position changes in every fifth query, less often after each further 1,000; at first by up
# to this share of the image's side, in the end not at all.
_EVERY, _SLOWER, _REACH = 5, 1000, 0.75


class _Active(NamedTuple):
    """The active rows: their indices in the batch, and the state of each search."""

    index: Tensor
    x: Tensor
    y: Tensor
    patch: Tensor  # [M, S * S, C].
    corner: Tensor  # Its first row and column, int32 [M, 2].
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class SparseRSPatch(SparseRS):
    """Sparse-RS for image-specific patches, Croce et al. (2022).

    https://arxiv.org/abs/2006.12834. All changes lie in one square, the largest of at most eps
    pixels: 5 x 5 for 25. It starts at a random position with stripes in corner colours of the
    cube. Most queries recolour a square inside it, about every fifth shifts the whole patch; the
    change is kept if it raises the loss or misclassifies. (`tr.adversarial_patch` makes one
    patch for all images, with gradients.)

    Attributes:
      queries: maximum forward evaluations per example, the start included.
      moved: share of the patch that the first queries change, in (0, 1].

    Examples:
      >>> x_adv = tr.SparseRSPatch(queries=20).perturb(model, x[:8], y[:8], tr.L0(9))
      >>> rows, columns = np.nonzero((x_adv[0] != x[0]).any(axis=2))
      >>> bool(np.ptp(rows) < 3 and np.ptp(columns) < 3)
      True
    """

    moved: float = 0.4

    def remark(self, image_shape: tuple[int, int, int], ball: ThreatModel) -> str:
        """The patch's side."""
        side = min(math.isqrt(int(ball.eps)), *image_shape[:2])
        return f"a patch of {side} x {side} pixels in each image"

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        As `SparseRS`.

        Raises:
          UsageError: an unsupported norm.
        """
        if threat_model.norm != "l0":
            raise UsageError(
                f"SparseRSPatch: expected the norm l0, found {threat_model.norm!r}; use square."
            )
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        side = _side(x, threat_model.eps)

        def goes_on(i: Tensor, active: _Active, x_adv: Tensor) -> Tensor:
            return (i < self.queries) & (tf.size(active.index) > 0)

        def query(i: Tensor, active: _Active, x_adv: Tensor) -> tuple[Any, ...]:
            fresh = tf.random.experimental.stateless_fold_in(seed, i)
            patch, corner = self._propose(active, i, side, threat_model.bounds, fresh)
            active, broken = self._judge(model, active, patch, corner, side)
            active, x_adv = tf.cond(
                tf.reduce_any(broken),
                lambda: _leave(active, broken, x_adv, side),
                lambda: (active, x_adv),
            )
            return i + 1, active, x_adv

        start = self._start(x, y, side, threat_model.bounds, seed)
        some, channels = tf.TensorShape([None]), x.shape[3]
        shapes = _Active(
            some, tf.TensorShape([None, *x.shape[1:]]), some,
            tf.TensorShape([None, None, channels]), tf.TensorShape([None, 2]), some,
        )  # fmt: skip
        _, active, x_adv = tf.while_loop(
            goes_on, query, (tf.constant(0), start, x),
            (tf.TensorShape([]), shapes, x.shape), parallel_iterations=1,
        )  # fmt: skip
        return tf.stop_gradient(scatter(x_adv, active.index, _image(active, side)))

    def _start(
        self, x: Tensor, y: Tensor, side: Tensor, bounds: tuple[float, float], seed: Tensor
    ) -> _Active:
        """Stripes at random positions; their loss is not known yet."""
        batch, seeds = tf.shape(x)[0], tf.random.experimental.stateless_split(seed, 2)
        columns = tf.random.stateless_uniform([batch, 1, side, x.shape[3]], seeds[0])
        stripes = tf.reshape(
            tf.repeat(_extreme(columns, bounds), side, axis=1), [batch, side * side, x.shape[3]]
        )
        corner = corners(tf.random.stateless_uniform([batch, 2], seeds[1]), x, side)
        return _Active(all_rows(y), x, y, stripes, corner, tf.fill([batch], -float("inf")))

    def _propose(
        self, active: _Active, i: Tensor, side: Tensor, bounds: tuple[float, float],
        seed: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The next patch [M, S * S, C] and corner [M, 2]; the first query proposes the start."""
        left = tf.cast(self.queries - i, tf.float32) / self.queries
        height, width = active.x.shape[1:3]
        reach = tf.cast(_REACH * left * tf.constant([height, width], tf.float32), tf.int32)
        due = tf.equal(i % (_EVERY * (1 + i // _SLOWER)), 0) & tf.reduce_any(reach > 0) & (i > 0)
        draws = tf.random.stateless_uniform([tf.shape(active.x)[0], 2 + active.x.shape[3]], seed)

        def shifted() -> tuple[Tensor, Tensor]:
            shift = tf.cast(tf.floor(draws[:, :2] * tf.cast(2 * reach + 1, tf.float32)), tf.int32)
            most = tf.stack([height - side, width - side])
            return active.patch, tf.clip_by_value(active.corner + shift - reach, 0, most)

        def recoloured() -> tuple[Tensor, Tensor]:
            inner = self._inner(i, side)
            first = tf.cast(draws[:, :2] * tf.cast(side - inner + 1, tf.float32), tf.int32)
            inside = tf.range(side)[None, :, None] - first[:, None, :]
            inside = (inside >= 0) & (inside < inner)
            both = inside[:, :, None, 0] & inside[:, None, :, 1]
            mask = tf.reshape(both, [-1, side * side, 1]) & (i > 0)
            colour = _extreme(draws[:, None, 2:], bounds)
            return tf.where(mask, colour, active.patch), active.corner

        made: tuple[Tensor, Tensor] = tf.cond(due, shifted, recoloured)
        return made

    def _inner(self, i: Tensor, side: Tensor) -> Tensor:
        """The side of the square that query i recolours, at least 1."""
        done = tf.cast(tf.cast(i, tf.int64) * _LENGTH // self.queries, tf.int32)
        stage = tf.searchsorted(tf.constant(list(_SCHEDULE)), done[None], side="right")[0] - 1
        share = self.moved / tf.gather(tf.constant(list(_SCHEDULE.values()), tf.float32), stage)
        inner = tf.cast(tf.sqrt(share) * tf.cast(side, tf.float32), tf.int32)
        return tf.clip_by_value(inner, 1, side)

    def _judge(
        self, model: Model, active: _Active, patch: Tensor, corner: Tensor, side: Tensor
    ) -> tuple[_Active, Tensor]:
        """Accepts the better proposals; returns also which are misclassified, bool [M]."""
        proposal = active._replace(patch=patch, corner=corner)
        logits = model(_image(proposal, side))
        loss = LOSSES[self.loss](logits, active.y)
        broken = ~is_correct(logits, active.y)
        better = (loss > active.loss) | broken
        return active._replace(
            patch=where(better, patch, active.patch),
            corner=where(better, corner, active.corner),
            loss=tf.where(better, loss, active.loss),
        ), broken  # fmt: skip


def _side(x: Tensor, eps: Any) -> Tensor:
    """Side of the largest square of at most eps pixels, at most the image's side, int32."""
    root = tf.cast(tf.floor(tf.sqrt(tf.cast(eps, tf.float32) + 0.5)), tf.int32)
    return tf.minimum(root, min(x.shape[1:3]))


def _extreme(draws: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The lowest or the highest value for each draw from [0, 1)."""
    return tf.where(draws < 0.5, bounds[0], bounds[1])


def _image(active: _Active, side: Tensor) -> Tensor:
    """The images with their patches, like x."""
    return write(active.x, place_of(active.corner, active.x, side), active.patch)


def _leave(active: _Active, broken: Tensor, x_adv: Tensor, side: Tensor) -> tuple[_Active, Tensor]:
    """Writes the broken examples into `x_adv` [B, ...] and drops them."""
    gone = _Active(*keep(active.index, broken, *active[1:]))
    x_adv = scatter(x_adv, gone.index, _image(gone, side))
    return _Active(*keep(active.index, ~broken, *active[1:])), x_adv
