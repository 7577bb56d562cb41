"""Auto-PGD in l1: steps that become sparser over the search, in balls that shrink to eps.

Croce and Hein (2021), "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", https://arxiv.org/abs/2103.01208, in the settings of l1-AutoAttack.
"""

from __future__ import annotations

import dataclasses
import math

from tfrobust.attacks.active_rows import where
from tfrobust.attacks.apgd_rows import Course, Rows, first_rows
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

# The first two balls have 3 and 2 times the radius, each with this share of the steps.
_FACTORS, _SHARE = (3.0, 2.0, 1.0), 0.3
# The sparsity is updated each time this share of a ball's steps is done.
_INTERVAL = 0.04
# A step changes the number of values that the best point changes, divided by this. A step size
# shrinks by the same factor, down to a tenth of eps.
_DIVISOR, _LEAST = 1.5, 0.1
# The best point counts as sparser if it changes less than this share of the previous number.
_SPARSER = 0.95


class L1Course(Course):
    """The course of Auto-PGD in l1.

    There is no momentum. At each checkpoint, an example whose best point has become sparser goes
    back to it with the full step size; the step size of the others shrinks.
    """

    def __init__(self, ball: ThreatModel, steps: int) -> None:
        self.ball = ball
        lengths = stages(steps)
        self.length = sum(lengths) + len(lengths)
        factors = _FACTORS[-len(lengths) :]
        self._first = factors[0]
        # For each iteration: its final ball, whether that ball is smaller than the one before, and
        # whether a checkpoint comes first. The last iteration of a ball takes no step: its point is
        # replaced by the nearest one in the next ball, or discarded.
        after: list[tuple[float, bool, bool]] = []
        for factor, length, following in zip(factors, lengths, (*factors[1:], None), strict=True):
            due = [n > 0 and n % _interval(length) == 0 for n in range(length)]
            after += [(factor, False, one) for one in due]
            after += [(following or factor, following is not None, False)]
        columns = [tf.constant(column) for column in zip(*after, strict=True)]
        self._radius, self._enters, self._checked = columns[0] * ball.eps, *columns[1:]
        self._inside = self.length - lengths[-1] - 1

    def start(self, x: Tensor, seed: Tensor) -> Tensor:
        """The point of the first ball nearest to x plus normal noise."""
        first = self._ball(self._first * self.ball.eps)
        return first.project(x + tf.random.stateless_normal(tf.shape(x), seed), x)

    def first_rows(self, x: Tensor, y: Tensor, target: Tensor, start: Tensor) -> Rows:
        """The state before the first evaluation, at `start`."""
        return _begin(x, y, target, start, self._ball(self._first * self.ball.eps))

    def counts(self, step: Tensor) -> Tensor:
        """A misclassification counts as success only in the last ball."""
        return step >= self._inside

    def advance(self, rows: Rows, step: Tensor) -> Rows:
        """The checkpoint, if one is due, and a step or a start in the next ball."""
        ball = self._ball(self._radius[step])

        def enter() -> Rows:
            entered = _begin(rows.x, rows.y, rows.target, ball.project(rows.x_best, rows.x), ball)
            return entered._replace(broken=rows.broken)

        def step_on() -> Rows:
            checked = tf.cond(
                self._checked[step], lambda: reconsider_sparsity(rows, ball), lambda: rows
            )
            moved = checked.x_adv + sparse_step(checked.grad, checked.step_size, checked.changed)
            return checked._replace(x_adv=ball.project(moved, rows.x), x_before=checked.x_adv)

        advanced: Rows = tf.cond(self._enters[step], enter, step_on)
        return advanced

    def _ball(self, radius: Tensor) -> ThreatModel:
        return dataclasses.replace(self.ball, eps=tf.cast(radius, tf.float32))


def stages(steps: int) -> tuple[int, ...]:
    """Steps in each ball, largest ball first: 30, 30 and 40 of 100; fewer balls for few steps."""
    wide = min(math.ceil(_SHARE * steps), (steps - 1) // 2)
    return (wide, wide, steps - 2 * wide) if wide else (steps,)


def reconsider_sparsity(rows: Rows, ball: ThreatModel) -> Rows:
    """A checkpoint: updates the sparsity of the next steps and their size."""
    changed = _changed(rows.x_best, rows.x)
    sparser = changed < _SPARSER * rows.changed
    size = tf.where(sparser, ball.eps, tf.maximum(rows.step_size / _DIVISOR, _LEAST * ball.eps))
    return rows._replace(
        step_size=size,
        x_adv=where(sparser, rows.x_best, rows.x_adv),
        grad=where(sparser, rows.grad_best, rows.grad),
        changed=changed,
    )


def sparse_step(grad: Tensor, step_size: Tensor, changed: Tensor) -> Tensor:
    """A step of l1 length `step_size`, shared evenly, by sign, among the largest slopes.

    Args:
      grad: float32 [M, H, W, C].
      step_size: float32 [M].
      changed: number of values changed by the best point, float32 [M]; the step changes two
        thirds as many.
    """
    size = tf.abs(tf.reshape(grad, [tf.shape(grad)[0], -1]))
    values = tf.shape(size)[1]
    count = tf.clip_by_value(tf.cast(tf.math.ceil(changed / _DIVISOR), tf.int32), 1, values)
    ordered = tf.sort(size, axis=1, direction="DESCENDING")
    least = tf.gather(ordered, count - 1, batch_dims=1)[:, None]
    sign = tf.where(size >= least, tf.sign(tf.reshape(grad, tf.shape(size))), 0.0)
    total = tf.reduce_sum(tf.abs(sign), axis=1, keepdims=True)
    step = tf.math.divide_no_nan(sign, total) * step_size[:, None]
    return tf.reshape(step, tf.shape(grad))


def _begin(x: Tensor, y: Tensor, target: Tensor, start: Tensor, ball: ThreatModel) -> Rows:
    rows = first_rows(x, y, target, start, ball)
    return rows._replace(step_size=rows.step_size / 2.0, changed=_changed(start, x))


def _interval(length: int) -> int:
    return max(int(_INTERVAL * length), 1)


def _changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """Number of changed values, float32 [M]."""
    return tf.cast(tf.math.count_nonzero(x_adv - x, axis=list(range(1, len(x.shape)))), tf.float32)
