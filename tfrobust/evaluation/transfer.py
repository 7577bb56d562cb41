"""The transfer figure: images perturbed on a reference model, shown to several models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfrobust.attacks.active_rows import is_correct
from tfrobust.attacks.runner import run
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.batches import as_pixels
from tfrobust.models.classifier import as_classifier
from tfrobust.models.inference import attackable, inference
from tfrobust.models.outside import told_plainly
from tfrobust.progress import Progress
from tfrobust.runtime import tf, traced_once
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Tensor


def transfer(
    reference: Any,
    models: Mapping[str, Any],
    data: ImageSet,
    attack: Any,
    threat_model: ThreatModel,
    *,
    reference_name: str,
    attack_name: str = "pgd",
    batch_size: int = 128,
    seed: int = 42,
) -> dict[str, Any]:
    """Accuracy of each model on the same images, perturbed on `reference`.

    The attack runs on every image, whether the reference classifies it correctly or
    not. It says how far a robust model withstands an adversary that does not know it,
    and is no substitute for the white-box figure.

    Args:
      reference: the model that the attack sees.
      models: name -> model to measure.
      data: the images.
      attack: how to perturb.
      threat_model: the ball.
      reference_name: what the report calls the reference.
      attack_name: what it calls the attack.
      batch_size: images in a batch.
      seed: of random starts.

    Returns:
      {'reference', 'attack', 'eps', 'eps_text', 'accuracy': {name: accuracy}}.
    """
    hits = transferred(
        reference,
        list(models.values()),
        data,
        attack,
        threat_model,
        batch_size=batch_size,
        seed=seed,
    )
    return transfer_entry(hits, models, threat_model, reference_name, attack_name)


def transfer_entry(
    hits: np.ndarray,
    names: Iterable[str],
    threat_model: ThreatModel,
    reference_name: str,
    attack_name: str = "pgd",
) -> dict[str, Any]:
    """What `transfer` returns, of what `transferred` does."""
    rates = hits.mean(axis=1).round(6).tolist()
    return {
        "reference": reference_name,
        "attack": attack_name,
        "eps": threat_model.eps,
        "eps_text": threat_model.eps_text,
        "accuracy": dict(zip(names, rates, strict=True)),
    }


def transferred(
    reference: Any,
    models: Sequence[Any],
    data: ImageSet,
    attack: Any,
    threat_model: ThreatModel,
    *,
    batch_size: int = 128,
    seed: int = 42,
) -> np.ndarray:
    """Which images each model is right on after they were perturbed on `reference`.

    Args:
      reference: the model that the attack sees.
      models: those to measure.
      data: the images.
      attack: how to perturb.
      threat_model: the ball.
      batch_size: images in a batch.
      seed: of random starts.

    Returns:
      bool [models, N].
    """
    sample = data.pixels(slice(0, 64))
    # The reference may be among the models: it is looked at once.
    known = {id(one): as_classifier(one, sample) for one in (reference, *models)}
    seen, judges = known[id(reference)], [known[id(one)] for one in models]
    step = traced_once(_hits(seen, judges, attack, threat_model, seed))
    for judge in judges:
        step = told_plainly(judge, step)
    return _over(step, data, batch_size)


def _hits(
    reference: Any, models: list[Any], attack: Any, threat_model: ThreatModel, seed: int
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(images, labels, the first one's place [1]) -> hits of each model, bool [models, B]."""
    classifiers = [inference(model) for model in models]

    def hits(x: Tensor, y: Tensor, first: Tensor) -> Tensor:
        start = tf.stack([seed, first[0]])
        clean = as_pixels(x)
        seen, judge = attackable(reference), inference(reference)
        x_adv = run(attack, seen, judge, clean, y, threat_model, start).x_adv
        return tf.stack([is_correct(f(x_adv), y) for f in classifiers])

    return hits


def _over(step: Callable[..., Tensor], data: ImageSet, batch_size: int) -> np.ndarray:
    """What `step` finds for all batches, side by side."""
    progress, found = Progress("transfer", len(data)), []
    for first in range(0, len(data), batch_size):
        part = slice(first, first + batch_size)
        y = tf.constant(data.labels[part], tf.int32)
        found.append(step(tf.constant(data.images[part]), y, tf.constant([first])).numpy())
        progress.update(min(first + batch_size, len(data)))
    progress.close()
    return np.concatenate(found, axis=1)
