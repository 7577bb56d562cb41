"""The loop shared by all gradient attacks: evaluate, drop the broken rows, move the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter, where
from tfrobust.attacks.losses import LOSSES
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.typing import Function as Model
from tfrobust.typing import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


class Rows(NamedTuple):
    """The active examples of a step.

    Attributes:
      index: int32 [M], their indices in the whole batch.
      x: the clean images, float32 [M, H, W, C].
      y: labels, int [M].
      x_adv: the current points, like x.
      memory: what the attack carries from step to step, [M, ...].
    """

    index: Tensor
    x: Tensor
    y: Tensor
    x_adv: Tensor
    memory: Tensor


def still_correct(logits: Tensor, rows: Rows) -> Tensor:
    """Whether each example is still classified as its label, bool [M]."""
    return is_correct(logits, rows.y)


class Climb(NamedTuple):
    """The parts in which gradient attacks differ.

    Attributes:
      steps: maximum number of moves, int.
      objective: (logits [M, K], rows) -> [M], the quantity to maximise.
      move: (i, rows, gradient like x) -> (the next x_adv, the next memory), where i is the
        number of moves so far, int32 scalar.
      goes_on: (logits [M, K], rows) -> bool [M], whether an example stays active.
    """

    steps: int
    objective: Callable[[Tensor, Rows], Tensor]
    move: Callable[[Tensor, Rows, Tensor], tuple[Tensor, Tensor]]
    goes_on: Callable[[Tensor, Rows], Tensor] = still_correct


class Path(NamedTuple):
    """The course of an attack, step by step, for figures. S is the number of moves.

    Attributes:
      x_adv: the images, float32 [S + 1, B, H, W, C], from the starting points on.
      loss: the objective, float32 [S + 1, B].
      p_true: the probability of the right class, float32 [S + 1, B].
      size: the Euclidean norm of x_adv - x, float32 [S + 1, B].
    """

    x_adv: Tensor
    loss: Tensor
    p_true: Tensor
    size: Tensor


def ascend(model: Model, start: Rows, climb: Climb, *, early_stop: bool = True) -> Tensor:
    """Gradient ascent from `start`; returns the final images, float32 [B, H, W, C].

    With `early_stop` an example keeps the point at which `climb.goes_on` first returned false,
    and its row is dropped. The point after the last move is not evaluated: the caller judges
    it. The model is called at most `climb.steps` times, and never on an empty batch.

    Args:
      model: images -> logits [M, K].
      start: the whole batch; see `begin`.
      climb: the attack.
      early_stop: drop examples; otherwise every example makes every move.
    """

    def goes_on(i: Tensor, x_adv: Tensor, index: Tensor, memory: Tensor) -> Tensor:
        return (i < climb.steps) & (tf.size(index) > 0)

    def step(i: Tensor, x_adv: Tensor, index: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
        if not early_stop:
            rows = start._replace(x_adv=x_adv, memory=memory)
            grad, _, _ = _evaluate(model, rows, climb)
            x_adv, memory = climb.move(i, rows, grad)
            return i + 1, x_adv, index, memory
        whole = start._replace(x_adv=x_adv, memory=memory)
        rows = Rows(index, *(tf.gather(each, index) for each in whole[1:]))
        grad, logits, _ = _evaluate(model, rows, climb)
        active = climb.goes_on(logits, rows)
        # All rows are moved, even those about to be dropped: there is always at least one.
        moved, remembered = climb.move(i, rows, grad)
        x_adv = scatter(x_adv, index, where(active, moved, rows.x_adv))
        memory = scatter(memory, index, remembered)
        return i + 1, x_adv, keep(index, active)[0], memory

    state = (tf.constant(0), start.x_adv, start.index, start.memory)
    shapes = (state[0].shape, state[1].shape, tf.TensorShape([None]), state[3].shape)
    # One step at a time: parallel iterations would only use more memory.
    _, x_adv, _, _ = tf.while_loop(
        goes_on, step, state, shape_invariants=shapes, parallel_iterations=1
    )
    return tf.stop_gradient(x_adv)


def begin(x: Tensor, y: Tensor, x_adv: Tensor, memory: Tensor | None = None) -> Rows:
    """The whole batch at its starting points `x_adv`, float32 like x."""
    y = tf.convert_to_tensor(y)
    # The labels stand in for an unused memory, so that the loop's state keeps its structure.
    return Rows(all_rows(y), tf.convert_to_tensor(x), y, x_adv, y if memory is None else memory)


def record(model: Model, start: Rows, climb: Climb) -> Path:
    """The course of `ascend` with `early_stop`, recorded in full.

    Examples that `ascend` drops stay in place here until the end of the record. Takes the memory
    of `climb.steps` + 1 batches.
    """

    def step(
        i: Tensor, x_adv: Tensor, memory: Tensor, active: Tensor, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        rows = start._replace(x_adv=x_adv, memory=memory)
        grad, logits, loss = _evaluate(model, rows, climb)
        columns = _write(columns, i, rows, logits, loss)
        active = active & climb.goes_on(logits, rows)
        moved, memory = climb.move(i, rows, grad)
        return i + 1, where(active, moved, x_adv), memory, active, *columns

    columns = tuple(tf.TensorArray(tf.float32, climb.steps + 1) for _ in Path._fields)
    state = (tf.constant(0), start.x_adv, start.memory, tf.ones_like(start.y, tf.bool), *columns)
    i, x_adv, memory, _, *written = tf.while_loop(
        lambda i, *_: i < climb.steps, step, state, parallel_iterations=1
    )
    rows = start._replace(x_adv=x_adv, memory=memory)
    logits = model(x_adv)
    written = _write(tuple(written), i, rows, logits, climb.objective(logits, rows))
    return Path(*(column.stack() for column in written))


def _write(
    columns: tuple[Tensor, ...], i: Tensor, rows: Rows, logits: Tensor, loss: Tensor
) -> tuple[Tensor, ...]:
    p_true = tf.gather(tf.nn.softmax(logits), rows.y, batch_dims=1)
    values = (rows.x_adv, loss, p_true, tf.sqrt(squared_size(rows.x_adv - rows.x)))
    return tuple(column.write(i, value) for column, value in zip(columns, values, strict=True))


def _evaluate(model: Model, rows: Rows, climb: Climb) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of each example's objective at x_adv, the logits and the objective."""
    # The objective may depend on x_adv directly, as a penalty does: the tape watches it.
    return _gradient(model, rows.x_adv, lambda logits: climb.objective(logits, rows))


def input_gradient(model: Model, x: Tensor, y: Tensor, loss: str | Loss) -> tuple[Tensor, Tensor]:
    """The gradient of each example's own loss at x, like x, and the logits there.

    Non-finite gradients count as 0: the example does not move along them.

    Args:
      model: images float32 [B, H, W, C] -> logits [B, K].
      x: the images.
      y: labels, int [B].
      loss: a name of `LOSSES`, or (logits [B, K], y [B]) -> [B].

    Raises:
      UsageError: the loss needs more classes than the model has.
    """
    climbed = named_loss(loss) if isinstance(loss, str) else loss
    grad, logits, _ = _gradient(model, x, lambda logits: climbed(logits, y))
    return grad, logits


def named_loss(name: str) -> Loss:
    """The loss `name` of `LOSSES`; it rejects logits of too few classes."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        require_classes(logits, 3 if name == "dlr" else 2, f"the loss {name!r}")
        return LOSSES[name](logits, y)

    return loss


def require_classes(logits: Tensor, least: int, what: str) -> None:
    """Rejects logits [B, K] whose static K is below `least`.

    Raises:
      UsageError: too few classes for `what`.
    """
    classes = logits.shape[-1]
    if classes is not None and classes < least:
        raise UsageError(
            f"Expected at least {least} classes for {what}, found {classes}: use the loss "
            "'margin' or 'cross_entropy', untargeted."
        )


def squared_size(delta: Tensor) -> Tensor:
    """The squared Euclidean norm of each example, float32 [B]."""
    return tf.reduce_sum(tf.square(delta), axis=list(range(1, len(delta.shape))))


def _gradient(
    model: Model, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = model(x)
        losses = loss(logits)
        # The sum, not the mean: the gradient must not shrink with the batch size.
        total = tf.reduce_sum(losses)
    # A model that blocks its gradient (by rounding) has gradient 0; it is no error.
    grad = tape.gradient(total, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    finite = tf.math.is_finite(grad)
    # `Select`, an older kernel, takes a fifth of the time of `tf.where`.
    grad = tf.raw_ops.Select(condition=finite, x=grad, y=tf.zeros_like(grad))
    return grad, logits, losses
