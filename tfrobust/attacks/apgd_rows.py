"""The state of Auto-PGD for each example, and how a step updates it.

Croce and Hein (2020), https://arxiv.org/abs/2003.01690; for l1 see `apgd_l1`.
"""

from __future__ import annotations

from typing import NamedTuple

from tfrobust.attacks.active_rows import keep, where
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

_MOMENTUM = 0.75


class Rows(NamedTuple):
    """The state of one run for each active example; the first axis is [M]."""

    x: Tensor
    y: Tensor
    target: Tensor  # The target class; unused if untargeted.
    x_adv: Tensor  # The next point to evaluate.
    x_before: Tensor  # Where the last step started.
    grad: Tensor
    step_size: Tensor
    loss: Tensor  # At the last evaluated point.
    rises: Tensor  # Steps since the last checkpoint that raised the loss.
    x_best: Tensor
    grad_best: Tensor
    loss_best: Tensor
    loss_best_then: Tensor  # At the last checkpoint.
    halved: Tensor  # Whether the last checkpoint halved the step size.
    broken: Tensor  # Whether any point was misclassified.
    changed: Tensor  # In l1: values that the best point changed at the last checkpoint.


class Course:
    """The course of a run in linf and l2: its start, and the update after each evaluation.

    A run has `length` iterations, each an evaluation and a step; the last step is discarded.
    """

    def __init__(self, ball: ThreatModel, steps: int, rho: float) -> None:
        self.ball, self.length, self.rho = ball, steps + 1, rho
        self._lengths = tf.constant(interval_lengths(steps), tf.float32)

    def start(self, x: Tensor, seed: Tensor) -> Tensor:
        """The starting point of each example, like x."""
        return boundary_start(self.ball, x, seed)

    def first_rows(self, x: Tensor, y: Tensor, target: Tensor, start: Tensor) -> Rows:
        """The state before the first evaluation, at `start`."""
        return first_rows(x, y, target, start, self.ball)

    def counts(self, step: Tensor) -> Tensor:
        """Whether a misclassification in this iteration counts as success, bool scalar."""
        return tf.constant(True)

    def advance(self, rows: Rows, step: Tensor) -> Rows:
        """The checkpoint, if one is due, and a step."""
        steps = self._lengths[step]
        rows = tf.cond(steps > 0, lambda: reconsider(rows, self.rho * steps), lambda: rows)
        return move(rows, self.ball, tf.equal(step, 0))


def boundary_start(threat_model: ThreatModel, x: Tensor, seed: Tensor) -> Tensor:
    """A random point on the ball's boundary for each x, clipped to the bounds; like x.

    'linf': a uniform point of the cube, stretched until its largest coordinate is eps.
    'l2': a uniform direction at length eps.

    Args:
      threat_model: the ball.
      x: float32 [B, ...].
      seed: int32 [2], a stateless seed.
    """
    shape, axes = tf.shape(x), list(range(1, len(x.shape)))
    if threat_model.norm == "linf":
        draw = tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
        size = tf.reduce_max(tf.abs(draw), axis=axes, keepdims=True)
    else:
        draw = tf.random.stateless_normal(shape, seed)
        size = tf.sqrt(tf.reduce_sum(tf.square(draw), axis=axes, keepdims=True))
    return threat_model.project(x + tf.math.divide_no_nan(draw, size) * threat_model.eps, x)


def first_rows(x: Tensor, y: Tensor, target: Tensor, start: Tensor, ball: ThreatModel) -> Rows:
    """The state before the first evaluation, at `start`."""
    nothing, zero = tf.zeros_like(x), tf.zeros(tf.shape(y))
    # The first point is the best so far, but does not count as a rise.
    low, high = zero - float("inf"), zero + float("inf")
    return Rows(
        x=x, y=y, target=target, x_adv=start, x_before=start, grad=nothing,
        step_size=zero + 2.0 * ball.eps, loss=high, rises=zero,
        x_best=start, grad_best=nothing, loss_best=low, loss_best_then=low,
        # As if just halved: the first checkpoint does not test whether the best loss has improved.
        halved=tf.ones_like(y, tf.bool), broken=tf.zeros_like(y, tf.bool),
        changed=zero,
    )  # fmt: skip


def drop(index: Tensor, rows: Rows, wrong: Tensor) -> tuple[Tensor, Rows]:
    """`index` [M] and rows without the misclassified ones [M]."""
    index, *kept = keep(index, ~wrong, *rows)
    return index, Rows(*kept)


def reconsider(rows: Rows, enough: Tensor) -> Rows:
    """A checkpoint: halves step sizes and returns to the best points where due.

    Args:
      rows: the examples.
      enough: the step size is halved at this many rises since the last checkpoint, or fewer.
    """
    stood_still = ~rows.halved & (rows.loss_best <= rows.loss_best_then)
    halve = (rows.rises <= enough) | stood_still
    return rows._replace(
        step_size=tf.where(halve, rows.step_size / 2.0, rows.step_size),
        x_adv=where(halve, rows.x_best, rows.x_adv),
        grad=where(halve, rows.grad_best, rows.grad),
        rises=tf.zeros_like(rows.rises),
        loss_best_then=rows.loss_best,
        halved=halve,
    )


def move(rows: Rows, ball: ThreatModel, first: Tensor) -> Rows:
    """A step up the gradient, with momentum except in the first step."""
    ahead = tf.where(first, 1.0, _MOMENTUM)
    step = ball.steepest_step(rows.grad, rows.step_size)
    goal = ball.project(rows.x_adv + step, rows.x)
    moved = rows.x_adv + ahead * (goal - rows.x_adv)
    moved = moved + (1.0 - ahead) * (rows.x_adv - rows.x_before)
    return rows._replace(x_adv=ball.project(moved, rows.x), x_before=rows.x_adv)


def checkpoints(steps: int) -> tuple[int, ...]:
    """The numbers of steps after which the step size is reconsidered: 22, 41, 57, ... of 100.

    The first interval is 22 % of the steps; each following one is 3 % of the steps shorter, but
    at least 6 %; all are rounded down, to at least 1.
    """
    interval, least = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1)
    found = [interval]
    while found[-1] < steps:
        interval = max(interval - max(int(0.03 * steps), 1), least)
        found.append(found[-1] + interval)
    return tuple(w for w in found if w <= steps)


def interval_lengths(steps: int) -> list[int]:
    """For 0 to `steps` steps: steps since the last checkpoint if one is due now, else 0."""
    lengths, last = [0] * (steps + 1), 0
    for checkpoint in checkpoints(steps):
        lengths[checkpoint], last = checkpoint - last, checkpoint
    return lengths


def any_length(tensor: Tensor) -> Tensor:
    """The tensor's shape with an unknown first axis."""
    return tf.TensorShape([None, *tensor.shape[1:]]) if tensor.shape.rank else tensor.shape
