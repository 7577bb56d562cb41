"""Accuracy on 'select' after each epoch, which decides the checkpoint to keep."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tfrobust.attacks.gradient import FGSM, PGD
from tfrobust.attacks.losses import cross_entropy
from tfrobust.models.inference import attackable, inference
from tfrobust.runtime import tf, traced_once
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Batches, Tensor

# Sums before those per class: clean, two attacks (worst case and individually), images, loss.
_KINDS = 7


class Selection:
    """Clean, FGSM and PGD accuracy of a model on a few held-out batches.

    PGD accuracy counts an example as robust only if FGSM fails on it too: it is a worst case. Both
    attacks are cheaper than the final evaluation's, so their accuracies are higher.

    Args:
      model: classifier, [0, 1] images -> logits.
      batches: finite dataset of {'image', 'label'}.
      threat_model: the ball.
      steps: PGD steps.
      seed: of PGD's random start; the same every epoch, so that epochs are comparable.
      loss_on: which loss to measure too: 'clean', 'pgd' or None. For 'pgd' every example makes
        every step, even once misclassified, which costs up to twice the time.
      worst_case: whether an attack's accuracy counts only images that survived the previous
        attacks. If off, each is the accuracy on that attack's images alone: a network that has
        learned to fool FGSM classifies its images better than the clean ones.
      refresh: called before each measurement, if `model` is a copy of what trains.
      agree: combines the measurements of several workers.

    Attributes:
      count: number of images measured in the last call of `measure`.
    """

    def __init__(
        self,
        model: Any,
        batches: Batches,
        threat_model: ThreatModel,
        *,
        steps: int,
        seed: int,
        loss_on: str | None = None,
        worst_case: bool = True,
        refresh: Callable[[], None] | None = None,
        agree: Callable[[dict[str, float]], dict[str, float]] | None = None,
    ) -> None:
        self.count = 0
        self._refresh, self._agree = refresh, agree
        self._worst_case = worst_case
        self._batches = batches
        self._model, self._infer = model, inference(model)
        self._threat_model = threat_model
        self._loss_on = loss_on
        self._attacks = (FGSM(), PGD(steps=steps, early_stop=loss_on != "pgd"))
        self._seed = tf.constant([seed, 0])
        self._count = traced_once(self._count_batch)

    def on(self, batches: Batches, *, worst_case: bool) -> Selection:
        """The same measurement on other batches, without retracing."""
        other = copy.copy(self)
        other.count, other._batches, other._worst_case = 0, batches, worst_case
        return other

    def measure(self) -> dict[str, float]:
        """'select_clean', 'select_fgsm' and 'select_pgd', each in [0, 1].

        Also 'select_classes', the number of classes predicted for the clean images and, with
        `loss_on`, 'select_loss', the mean cross-entropy on the clean images or on PGD's.
        """
        if self._refresh:
            self._refresh()
        sums = sum(self._count(batch["image"], batch["label"]) for batch in self._batches)
        clean, *attacked, total, loss = sums[:_KINDS].numpy().tolist()
        fgsm, pgd = attacked[:2] if self._worst_case else attacked[2:]
        predicted = sums[_KINDS:].numpy().tolist()
        self.count = int(total)
        accuracies = {
            "select_clean": clean / total,
            "select_fgsm": fgsm / total,
            "select_pgd": pgd / total,
            "select_classes": sum(count > 0 for count in predicted),
        }
        found = accuracies | ({"select_loss": loss / total} if self._loss_on else {})
        return self._agree(found) if self._agree else found

    def _count_batch(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self._infer(x)
        robust = clean = _right(logits, y)
        predicted, loss = _predicted(logits), cross_entropy(logits, y)
        worst, alone = [], []
        for attack in self._attacks:
            x_adv = attack(attackable(self._model), x, y, self._threat_model, self._seed)
            logits = self._infer(self._threat_model.project(x_adv, x))
            right = _right(logits, y)
            robust = robust & right
            worst.append(robust)
            alone.append(right)
        if self._loss_on == "pgd":
            loss = cross_entropy(logits, y)
        columns = (clean, *worst, *alone, tf.ones_like(clean), loss)
        # Counts are exact in float64.
        sums = [tf.cast(column, tf.float64) for column in columns]
        return tf.concat([tf.reduce_sum(tf.stack(sums), axis=1), predicted], axis=0)


def _right(logits: Tensor, y: Tensor) -> Tensor:
    return tf.argmax(logits, axis=1, output_type=y.dtype) == y


def _predicted(logits: Tensor) -> Tensor:
    """The number of images predicted as each class, [K]."""
    best = tf.one_hot(tf.argmax(logits, axis=1), logits.shape[1], dtype=tf.float64)
    return tf.reduce_sum(best, axis=0)


def rank(row: dict[str, Any], goal: str = "select_pgd") -> tuple[bool, float, float]:
    """The key by which the model to keep is chosen: the goal, then PGD and clean accuracy.

    A network that predicts the same class for every image, as untrained ones do, is not affected
    by attacks; its accuracy of 1 in K is not robustness, and it ranks last. So does one whose
    clean accuracy is not above guessing: its order among others is random.

    The goal counts in whole points. Smaller differences are chance on a few hundred images, and
    on CIFAR-10 the later of two such epochs was the better one on test images, clean and attacked.

    Args:
      row: of the history.
      goal: the column that decides, 'select_pgd' or 'select_clean'.
    """
    knows = row.get("learnt", True) and not _is_constant(row)
    return knows, round(row[goal], 2), row["select_pgd"] + row["select_clean"]


def _is_constant(row: dict[str, Any]) -> bool:
    # Older runs have no such column.
    return row.get("select_classes", 2) == 1


def overfits_to_fgsm(rows: list[dict[str, Any]], least: float = 0.05) -> bool:
    """Whether the last row shows catastrophic overfitting to a single-step attack.

    PGD accuracy has fallen below half of its best so far (from at least `least`), more than
    0.1 below FGSM accuracy, which has not fallen: Wong et al. (2020),
    https://arxiv.org/abs/2001.03994.

    Args:
      rows: measurements, in their order.
      least: the minimum of the best PGD accuracy; larger for few images, whose small accuracies
        halve by chance.
    """
    before, last = [row for row in rows[:-1] if not _is_constant(row)], rows[-1]
    # Not every epoch is measured.
    before = [row for row in before if "select_pgd" in row]
    if not before or "select_pgd" not in last:
        return False
    best_pgd = max(row["select_pgd"] for row in before)
    best_fgsm = max(row["select_fgsm"] for row in before)
    collapsed = best_pgd >= least and last["select_pgd"] < best_pgd / 2
    gap = last["select_fgsm"] - last["select_pgd"]
    return collapsed and gap > 0.1 and last["select_fgsm"] > best_fgsm * 0.75
