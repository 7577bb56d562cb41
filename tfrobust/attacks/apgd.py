"""Auto-PGD: projected gradient ascent with an adaptive step size, and its targeted form.

Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", https://arxiv.org/abs/2003.01690. Where the authors' code
and the paper differ, this follows the code, since published scores come from it: a share of
rises equal to rho halves the step size, and the loss after a return to the best point is
compared with the loss at the point before the return. In l1: Croce and Hein (2021), "Mind the
box", https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter, where
from tfrobust.attacks.apgd_l1 import L1Course
from tfrobust.attacks.apgd_rows import Course, Rows, any_length, drop
from tfrobust.attacks.ascent import Model, input_gradient, require_classes
from tfrobust.attacks.losses import LOSSES, TARGETED_LOSSES
from tfrobust.attacks.runner import Attack
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor

Given = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD in 'linf', 'l2' and 'l1', Croce and Hein (2020), https://arxiv.org/abs/2003.01690.

    Starts at random on the ball's boundary with a step size of 2 eps and momentum 0.75.
    At each checkpoint an example's step size is halved and its search restarts from its best
    point, if too few steps raised its loss or if its best loss has not improved.

    In 'l1' (Croce and Hein 2021, https://arxiv.org/abs/2103.01208) the search first runs in balls
    of 3 and 2 eps, each with 30 % of the steps. A step changes only the values with the largest
    slopes, fewer as the best point becomes sparser, and is projected onto ball and bounds together.

    Attributes:
      steps: gradient steps; one extra gradient is taken at the start, in 'l1' of each ball.
      rho: the step size is halved where at most this share of the steps since the last
        checkpoint raised the loss; in (0, 1]; unused in 'l1'.
      loss: the loss to maximise, a name of `LOSSES`.
      eot_iter: gradients averaged at each point (expectation over transformation), for
        randomised models; loss and class come from the last evaluation.
      restarts: independent runs; the caller repeats the attack with other seeds on the
        examples that survive.
      early_stop: drop an example once it is misclassified. If off, all steps are taken and the
      last misclassified point is returned, which a randomised model is more likely to
      misclassify again.

    Raises:
      UsageError: a value out of its range.

    Examples:
      >>> report = tr.evaluate(model, (x, y), ball, attacks={"apgd": tr.APGD(steps=10)})
      >>> report.robust_accuracy < report.clean_accuracy
      True
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    rho: float = 0.75
    loss: str = "cross_entropy"
    eot_iter: int = 1
    restarts: int = 1
    early_stop: bool = True
    _losses: ClassVar[Mapping[str, Callable[..., Tensor]]] = LOSSES
    _dlr_classes: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.loss not in self._losses:
            names = ", ".join(self._losses)
            raise UsageError(f"loss: expected one of {names}, found {self.loss!r}.")
        for name in ("steps", "eot_iter", "restarts"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected at least 1, found {getattr(self, name)!r}.")
        if not 0 < self.rho <= 1:
            raise UsageError(f"rho: expected a share in (0, 1], found {self.rho!r}.")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """Adversarial images, float32 [B, H, W, C], inside the ball and the bounds.

        Misclassified images where any were found, else the points of highest loss.

        Args:
          model: [0, 1] images float32 [B, H, W, C] -> logits [B, K], in inference mode.
          x: clean images, float32 [B, H, W, C].
          y: labels, int [B].
          threat_model: the ball; its norm is 'linf', 'l2' or 'l1'.
          seed: int32 [2], for the random start.

        Raises:
          UsageError: an unsupported norm, or too few classes for the DLR loss.
        """
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        course = self._course(threat_model)
        x_adv, _, _ = self._climb(model, (x, y, y, course.start(x, seed)), course)
        return tf.stop_gradient(x_adv)

    def _course(self, ball: ThreatModel) -> Course:
        if ball.norm not in self.norms:
            raise UsageError(
                f"{type(self).__name__}: expected the norm {', '.join(self.norms)}, found "
                f"{ball.norm!r}; use pgd-l0."
            )
        if ball.norm == "l1":
            return L1Course(ball, self.steps)
        return Course(ball, self.steps, self.rho)

    def _climb(self, model: Model, given: Given, course: Course) -> tuple[Tensor, Tensor, Tensor]:
        """One run: x_adv like x, whether broken [B], the highest loss [B] (inf if broken).

        `given` holds x, y, the target classes (unused if untargeted) and the starting points.
        """
        _, y, _, start = given

        def goes_on(step: Tensor, index: Tensor, *_: Tensor) -> Tensor:
            return (step < course.length) & (tf.size(index) > 0)

        # Each iteration evaluates a point before stepping, so that the graph holds the model once.
        def turn(step: Tensor, index: Tensor, rows: Rows, found: Tensor) -> tuple[Any, ...]:
            rows, wrong = self._look(model, rows, course.counts(step))
            # Rows rarely break; most iterations copy nothing.
            index, rows, found = tf.cond(
                tf.reduce_any(wrong),
                lambda: self._leave(index, rows, found, wrong),
                lambda: (index, rows, found),
            )
            return step + 1, index, course.advance(rows, step), found

        state = (tf.constant(0), all_rows(y), course.first_rows(*given), start)
        shapes = tf.nest.map_structure(any_length, state)
        _, index, rows, found = tf.while_loop(
            goes_on, turn, state, shape_invariants=shapes, parallel_iterations=1
        )
        index, x_best, loss_best = keep(index, ~rows.broken, rows.x_best, rows.loss_best)
        broken = scatter(tf.ones_like(y, tf.bool), index, tf.zeros_like(index, tf.bool))
        highest = scatter(tf.fill(tf.shape(y), float("inf")), index, loss_best)
        return scatter(found, index, x_best), broken, highest

    def _leave(
        self, index: Tensor, rows: Rows, found: Tensor, wrong: Tensor
    ) -> tuple[Tensor, Rows, Tensor]:
        """Stores the misclassified points [M] in `found` and, if due, drops their rows."""
        found = scatter(found, *keep(index, wrong, rows.x_adv))
        return *(drop(index, rows, wrong) if self.early_stop else (index, rows)), found

    def _look(self, model: Model, rows: Rows, counts: Tensor) -> tuple[Rows, Tensor]:
        """Evaluates x_adv: rows with gradient, loss and class, and which are misclassified [M]."""
        grad, loss, wrong = self._average_gradient(model, rows)
        wrong = wrong & counts
        better = loss > rows.loss_best
        rows = rows._replace(
            grad=grad,
            loss=loss,
            rises=rows.rises + tf.cast(loss > rows.loss, tf.float32),
            x_best=where(better, rows.x_adv, rows.x_best),
            grad_best=where(better, grad, rows.grad_best),
            loss_best=tf.where(better, loss, rows.loss_best),
            broken=rows.broken | wrong,
        )
        return rows, wrong

    def _average_gradient(self, model: Model, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        if self.eot_iter == 1:
            return self._gradient(model, rows)

        def once(i: Tensor, total: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            grad, loss, wrong = self._gradient(model, rows)
            return i + 1, total + grad, loss, wrong

        state = (tf.constant(0), tf.zeros_like(rows.x), rows.loss, rows.broken)
        shapes = tf.nest.map_structure(any_length, state)
        _, total, loss, wrong = tf.while_loop(
            lambda i, *_: i < self.eot_iter, once, state, shapes, parallel_iterations=1
        )
        return total / self.eot_iter, loss, wrong

    def _gradient(self, model: Model, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        def loss(logits: Tensor, _: Tensor) -> Tensor:
            self._require_classes(logits)
            return self._objective(logits, rows)

        grad, logits = input_gradient(model, rows.x_adv, rows.y, loss)
        return grad, self._objective(logits, rows), ~is_correct(logits, rows.y)

    def _objective(self, logits: Tensor, rows: Rows) -> Tensor:
        return self._losses[self.loss](logits, rows.y)

    def _require_classes(self, logits: Tensor) -> None:
        if self.loss == "dlr":
            require_classes(logits, self._dlr_classes, f"the DLR loss of {type(self).__name__}")


@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(APGD):
    """Auto-PGD towards several wrong classes in turn, Croce and Hein (2020).

    The targets are the wrong classes by descending logit of the clean image, each with its own
    random start, on the examples that survive. Any misclassification counts, whatever the
    target. An example whose clean image is misclassified is returned unchanged.

    Attributes:
      loss: the loss to maximise, a name of `TARGETED_LOSSES`.
      n_targets: number of target classes, at most the number of wrong classes.

    Examples:
      >>> attack = tr.TargetedAPGD(steps=5, n_targets=3)
      >>> attack.perturb(model, x[:8], y[:8], ball).shape == x[:8].shape
      True
    """

    loss: str = "dlr"
    n_targets: int = 9
    _losses: ClassVar[Mapping[str, Callable[..., Tensor]]] = TARGETED_LOSSES
    _dlr_classes: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_targets < 1:
            raise UsageError(f"n_targets: expected at least 1, found {self.n_targets!r}.")

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat_model: ThreatModel, seed: Tensor
    ) -> Tensor:
        """As `APGD`; one forward evaluation of the clean images ranks the targets."""
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        logits = model(x)
        self._require_classes(logits)
        course = self._course(threat_model)
        goals = _wrong_classes(logits, y, self.n_targets)

        def goes_on(rank: Tensor, index: Tensor, *_: Tensor) -> Tensor:
            return (rank < tf.shape(goals)[1]) & (tf.size(index) > 0)

        def turn(rank: Tensor, index: Tensor, found: Tensor, score: Tensor) -> tuple[Tensor, ...]:
            seeds = tf.random.experimental.stateless_fold_in(seed, rank)
            # Drawn for the whole batch, so that no draw depends on which examples were dropped.
            start = course.start(x, seeds)
            x_part, y_part = tf.gather(x, index), tf.gather(y, index)
            given = x_part, y_part, tf.gather(goals[:, rank], index), tf.gather(start, index)
            x_adv, broken, loss = self._climb(model, given, course)
            then, highest = tf.gather(found, index), tf.gather(score, index)
            better = loss > highest
            found = scatter(found, index, where(better, x_adv, then))
            score = scatter(score, index, tf.where(better, loss, highest))
            return rank + 1, *keep(index, ~broken), found, score

        (index,) = keep(all_rows(y), is_correct(logits, y))
        state = (tf.constant(0), index, x, tf.fill(tf.shape(y), -float("inf")))
        shapes = tf.nest.map_structure(any_length, state)
        found = tf.while_loop(goes_on, turn, state, shapes, parallel_iterations=1)[2]
        return tf.stop_gradient(found)

    def _objective(self, logits: Tensor, rows: Rows) -> Tensor:
        return self._losses[self.loss](logits, rows.y, rows.target)


def _wrong_classes(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The most likely wrong classes in order, of y's type [B, at most `count`]."""
    classes = tf.shape(logits)[1]
    own = tf.one_hot(y, classes, on_value=True, off_value=False, dtype=tf.bool)
    masked = tf.where(own, -float("inf"), logits)
    return tf.cast(tf.math.top_k(masked, tf.minimum(count, classes - 1)).indices, y.dtype)
