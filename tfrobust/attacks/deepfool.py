"""DeepFool: repeated steps onto the nearest linearised decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfrobust.attacks.boundary import likely_classes, nearest_boundary
from tfrobust.attacks.hyperplane import NORMS, step_onto_hyperplane
from tfrobust.attacks.minimal import MinimalNorm, Model, Rows, record, require
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimalNorm):
    """DeepFool, Moosavi-Dezfooli et al. (2016), https://arxiv.org/abs/1511.04599.

    In linf, l2 and l1. Each step linearises the boundaries at the current point, goes onto the
    nearest one and overshoots; misclassified examples are done. A linear model takes one step,
    exactly. The steps are the shortest inside the bounds; the paper has no bounds.

    Attributes:
      steps: maximum number of steps; few are needed.
      candidates: number of wrong classes to consider, the most likely ones of the clean image; each
        costs one backward pass per step.
      overshoot: how far a step goes beyond the boundary, as a share of its length.
      early_stop: no effect: an example is done at its first adversarial image.
      final_search: as in `MinimalNorm`; undoes most of the overshoot.

    Raises:
      UsageError: a value out of range; when called, an unsupported norm, or fewer than 2 classes.

    Examples:
      >>> found = tr.minimal_distance(model, (x[:16], y[:16]), tr.DeepFool(), "linf")
      >>> 0 < found.median < 0.5
      True
    """

    # It stops at the boundary and does not use the rest of the ball.
    whole_ball: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = NORMS

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 1, "candidates")
        require(self, 0, "overshoot")

    @property
    def gradient_evaluations(self) -> int:
        """Maximum number of gradients per example."""
        return self.steps * self.candidates

    def _memory(self, x: Tensor, y: Tensor, logits: Tensor, ball: ThreatModel) -> tuple[Any, ...]:
        return tf.zeros_like(x), likely_classes(logits, y, self.candidates)

    def _step(
        self, model: Model, i: Tensor, rows: Rows, ball: ThreatModel
    ) -> tuple[Rows, Tensor | None]:
        way, classes = rows.memory
        value, slope = nearest_boundary(model, rows.z, rows.y, ball.norm, classes)
        shape = tf.shape(rows.z)
        flat, slope = (tf.reshape(each, [shape[0], -1]) for each in (rows.z, slope))
        step = step_onto_hyperplane(flat, slope, value, ball.norm, ball.bounds)
        way = way + tf.reshape(step, shape)
        z = tf.clip_by_value(rows.x + (1.0 + self.overshoot) * way, *ball.bounds)
        rows, wrong = record(rows, z, model(z), ball)
        return rows._replace(z=z, memory=(way, classes)), wrong
