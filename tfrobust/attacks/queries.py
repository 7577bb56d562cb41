"""Queries to a model: the common part of attacks without gradients.

They keep the whole batch, and evaluate only the active rows. Random draws are made for the
whole batch, each row's separately, so that an example's course does not depend on what
happens to the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tfrobust.attacks.active_rows import is_correct, scatter
from tfrobust.attacks.losses import LOSSES
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function, Tensor

# Values drawn and evaluated at a time: small images come many at once.
_VALUES = 1 << 16
_MOST = 16


def ask(
    model: Function, points: Tensor, y: Tensor, wanted: Tensor, loss: str = "margin"
) -> tuple[Tensor, Tensor]:
    """The model's answer for the wanted rows.

    Args:
      model: images float32 [M, H, W, C] -> logits [M, K].
      points: images float32 [N, H, W, C].
      y: labels, int [N].
      wanted: bool [N]; only these rows are evaluated.
      loss: a name of `LOSSES`.

    Returns:
      The loss, float32 [N], -infinity if not queried or not finite; and whether the row is
      misclassified, bool [N], False if not queried.
    """
    rows = tf.cast(tf.where(wanted)[:, 0], tf.int32)

    def shown() -> tuple[Tensor, Tensor]:
        labels = tf.gather(y, rows)
        logits = model(tf.gather(points, rows))
        value = tf.cast(LOSSES[loss](logits, labels), tf.float32)
        value = tf.where(tf.math.is_finite(value), value, -float("inf"))
        return scatter(nothing, rows, value), scatter(nowhere, rows, ~is_correct(logits, labels))

    nothing, nowhere = tf.fill(tf.shape(y), -float("inf")), tf.zeros_like(y, tf.bool)
    return tf.cond(tf.size(rows) > 0, shown, lambda: (nothing, nowhere))


def ask_each(
    model: Function, points: Tensor, y: Tensor, wanted: Tensor, loss: str = "margin"
) -> tuple[Tensor, Tensor]:
    """As `ask`, for several points per row: [N, S, H, W, C] and bool [N, S] -> [N, S] each."""
    shape, several = tf.shape(wanted), points.shape[1]
    flat = tf.reshape(points, [-1, *points.shape[2:]])
    found = ask(model, flat, tf.repeat(y, several), tf.reshape(wanted, [-1]), loss)
    return tf.reshape(found[0], shape), tf.reshape(found[1], shape)


def at_once(x: Tensor, most: int) -> int:
    """How many random images like those of x are drawn and evaluated at a time, at most `most`."""
    return max(1, min(_MOST, most, _VALUES // max(1, math.prod(x.shape[1:]))))


def fold(seed: Tensor, i: Tensor) -> Tensor:
    """The seed of the i-th draw."""
    return tf.random.experimental.stateless_fold_in(seed, i)


def several(x: Tensor, count: int) -> Tensor:
    """The shape [N, count, H, W, C] of `count` draws for each row."""
    return tf.concat([[tf.shape(x)[0], count], x.shape[1:]], axis=0)


def wide(values: Tensor) -> Tensor:
    """Values [N] or [N, S], reshaped to broadcast with images [N, ...] or [N, S, ...]."""
    return values[..., None, None, None]


def repeat(go_on: Callable[..., Tensor], step: Callable[..., tuple], state: tuple) -> tuple:
    """A loop over tensors, one iteration at a time."""
    return tuple(tf.while_loop(go_on, step, state, parallel_iterations=1))


def cosines(side: int) -> Tensor:
    """The orthonormal cosine transform: row k is the wave of frequency k, float32 [side, side]."""
    k, place = tf.range(side, dtype=tf.float32), tf.range(side, dtype=tf.float32)
    waves = tf.cos(math.pi / side * (place + 0.5) * k[:, None])
    scale = tf.where(k == 0, math.sqrt(1 / side), math.sqrt(2 / side))
    return waves * scale[:, None]


def check_queries(attack: object, least: int = 1) -> None:
    """Rejects a budget of queries, or a number of restarts, that is too small.

    Raises:
      UsageError: the value is too small.
    """
    for name, low in (("queries", least), ("restarts", 1)):
        found = getattr(attack, name)
        if found < low:
            raise UsageError(f"{name}: expected {low} or more, found {found!r}.")


def check_norm(attack: object, ball: ThreatModel, norms: tuple[str, ...]) -> None:
    """Rejects a ball whose norm the attack does not support.

    Raises:
      UsageError: the norm is not supported.
    """
    if ball.norm not in norms:
        raise UsageError(
            f"{type(attack).__name__}: expected the norm {' or '.join(norms)}, found "
            f"{ball.norm!r}; choose another attack for this norm."
        )
