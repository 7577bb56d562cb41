"""Transfer attacks: images crafted on a reference model, shown to several models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypedDict

import numpy as np

from tfrobust.attacks.active_rows import is_correct
from tfrobust.attacks.runner import run
from tfrobust.data.as_pixels import as_pixels
from tfrobust.data.types import ImageSet
from tfrobust.models.classifier import Classifier, as_classifier
from tfrobust.models.inference import attackable, inference
from tfrobust.models.outside import told_plainly
from tfrobust.progress import Progress
from tfrobust.runtime import tf, traced_once
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Model, Tensor


class TransferScores(TypedDict):
    """Accuracies on images crafted on a reference model, by model; an entry of the report."""

    reference: str
    attack: str
    eps: float
    eps_text: str
    accuracy: dict[str, float]


def transfer(
    reference: Model,
    models: Sequence[Model],
    data: ImageSet,
    attack: Attack,
    threat_model: ThreatModel,
    *,
    batch_size: int = 128,
    seed: int = 42,
) -> np.ndarray:
    """Which of the adversarial images crafted on `reference` each model classifies correctly.

    The attack runs on every image, whether the reference classifies it correctly or not. The
    result says how a robust model withstands an adversary who does not know it, and is no
    substitute for white-box robust accuracy.

    Args:
      reference: the model that the attack sees.
      models: the models to evaluate.
      data: the images.
      attack: the attack.
      threat_model: the ball.
      batch_size: images in a batch.
      seed: of random starts.

    Returns:
      bool [models, N].
    """
    sample = data.pixels(slice(0, 64))
    # The reference may be one of the models, and is opened once.
    known = {id(one): as_classifier(one, sample) for one in (reference, *models)}
    seen, judges = known[id(reference)], [known[id(one)] for one in models]
    step = traced_once(_hits(seen, judges, attack, threat_model, seed))
    for judge in judges:
        step = told_plainly(judge, step)
    return _over(step, data, batch_size)


def transfer_scores(
    hits: np.ndarray,
    names: Iterable[str],
    threat_model: ThreatModel,
    reference_name: str,
    attack_name: str = "pgd",
) -> TransferScores:
    """The accuracies of a transfer attack.

    Args:
      hits: bool [models, N], from `transfer`.
      names: of the models, in order.
      threat_model: the ball.
      reference_name: of the reference.
      attack_name: of the attack.
    """
    rates = hits.mean(axis=1).round(6).tolist()
    return {
        "reference": reference_name,
        "attack": attack_name,
        "eps": threat_model.eps,
        "eps_text": threat_model.eps_text,
        "accuracy": dict(zip(names, rates, strict=True)),
    }


def _hits(
    reference: Classifier,
    models: list[Classifier],
    attack: Attack,
    threat_model: ThreatModel,
    seed: int,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(images, labels, position of the first [1]) -> hits of each model, bool [models, B]."""
    classifiers = [inference(model) for model in models]

    def hits(x: Tensor, y: Tensor, first: Tensor) -> Tensor:
        start = tf.stack([seed, first[0]])
        clean = as_pixels(x)
        seen, judge = attackable(reference), inference(reference)
        x_adv = run(attack, seen, judge, clean, y, threat_model, start).x_adv
        return tf.stack([is_correct(f(x_adv), y) for f in classifiers])

    return hits


def _over(step: Callable[..., Tensor], data: ImageSet, batch_size: int) -> np.ndarray:
    """What `step` returns for all batches, concatenated."""
    progress, found = Progress("transfer", len(data)), []
    for first in range(0, len(data), batch_size):
        part = slice(first, first + batch_size)
        y = tf.constant(data.labels[part], tf.int32)
        found.append(step(tf.constant(data.images[part]), y, tf.constant([first])).numpy())
        progress.update(min(first + batch_size, len(data)))
    progress.close()
    return np.concatenate(found, axis=1)
