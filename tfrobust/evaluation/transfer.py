"""The transfer figure: images perturbed on a reference model, shown to several models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrobust.backbones.inference import attackable, inference
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.batches import as_pixels
from tfrobust.progress import Progress
from tfrobust.runtime import tf, traced_once
from tfrobust.threat_model import ThreatModel


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
    logits = {name: inference(model) for name, model in models.items()}

    def count(x: Any, y: Any, first: Any) -> Any:
        start = tf.stack([seed, first[0]])
        clean = as_pixels(x)
        x_adv = attack(attackable(reference), clean, y, threat_model, start)
        x_adv = threat_model.project(x_adv, clean)
        hits = [tf.argmax(f(x_adv), axis=1, output_type=tf.int32) == y for f in logits.values()]
        return tf.reduce_sum(tf.cast(tf.stack(hits), tf.int64), axis=1)

    step, total = traced_once(count), np.zeros(len(models), np.int64)
    progress = Progress("transfer", len(data))
    for first in range(0, len(data), batch_size):
        part = slice(first, first + batch_size)
        y = tf.constant(data.labels[part], tf.int32)
        total += step(tf.constant(data.images[part]), y, tf.constant([first])).numpy()
        progress.update(min(first + batch_size, len(data)))
    progress.close()
    rates = (total / len(data)).round(6).tolist()
    return {
        "reference": reference_name,
        "attack": attack_name,
        "eps": threat_model.eps,
        "eps_text": threat_model.eps_text,
        "accuracy": dict(zip(models, rates, strict=True)),
    }
