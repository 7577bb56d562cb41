"""One call from a model, images and a minimal-norm attack to the distance of each image."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from tfrobust.attacks import ATTACKS
from tfrobust.attacks.active_rows import is_correct
from tfrobust.attacks.named import make_attack
from tfrobust.cluster import Ray
from tfrobust.cluster.pool import opened_workers
from tfrobust.data.as_pixels import as_pixels
from tfrobust.errors import UsageError
from tfrobust.evaluation.batches import even_batches
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.models.pairs import open_pair
from tfrobust.models.views import InputView
from tfrobust.plugins import parse
from tfrobust.radii.distances import MinimalDistances
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, MinimalAttack, Model, Source, Tensor

# Attacked images are kept for this many values at once.
_HELD = 50_000_000


def minimal_distance(
    model: Model | str | Path,
    data: Source,
    attack: str | Attack = "fmn",
    norm: str | None = None,
    *,
    name: str = "model",
    batch_size: int = 128,
    seed: int = 42,
    view: InputView | None = None,
    class_names: Sequence[str] | None = None,
    on: str | Ray | None = None,
) -> MinimalDistances:
    """The distance of each image's nearest adversarial image, as found by the attack.

    Every distance is measured on the image that the attack returned, and counts only if the model
    itself misclassifies that image and its pixels are inside [0, 1].

    Args:
      model: any classifier, as `evaluate` takes it.
      data: the images, as `evaluate` takes them.
      attack: a minimal-norm attack, or its name with settings in command-line syntax: 'deepfool',
        'cw', 'ddn', 'fmn', 'ead', 'sigma-zero', 'fab:early_stop=false'.
      norm: of the distance, 'linf', 'l2', 'l1' or 'l0' (pixels); None is the attack's own.
      name: the model's name in the result.
      batch_size: images in a batch.
      seed: of the attack's random draws.
      view: the model's input range; None detects it, falling back to [0, 1].
      class_names: the classes' names, by label.
      on: spread the attack over a Ray cluster, as in `evaluate`.

    Raises:
      UsageError: an attack that stops at the first image in a ball, a norm that it does not
        have, or a cluster without Ray installed.
      TFRobustError: data or model do not fit.

    Examples:
      >>> found = tr.minimal_distance(model, (x[:16], y[:16]), "fmn:steps=30", "linf")
      >>> 0 < found.median < 0.5
      True
    """
    start = time.perf_counter()
    called, found = open_attack(attack)
    ball = ThreatModel(norm_of(found, norm), 0.0)
    judge, images = open_pair(model, data, view=view, class_names=class_names)
    # A ball that holds every image: whatever the attack finds comes back as it is.
    ball = dataclasses.replace(ball, eps=ball.largest_radius(images.image_shape))
    with opened_workers(on) as workers:
        evaluator = Evaluator(judge, images, batch_size=batch_size, seed=seed, workers=workers)
        distances = _distances(evaluator, found, ball)
    return MinimalDistances(
        name, called, ball.norm, images.labels.astype(np.int32), distances, judge.classes,
        dataclasses.asdict(found), time.perf_counter() - start, judge.notes,
    )  # fmt: skip


def open_attack(attack: str | Attack) -> tuple[str, MinimalAttack]:
    """A minimal-norm attack and its name.

    Raises:
      UsageError: it stops at the first image in a ball.
    """
    if isinstance(attack, str):
        called, found = attack, make_attack(*parse(attack, ATTACKS, "attack"))
    else:
        called, found = type(attack).__name__, attack
    if not getattr(found, "minimal", False):
        raise UsageError(
            "attack: expected one that searches for the nearest adversarial image, such as fmn or "
            f"fab:early_stop=false, found {called}, which stops at any image in a ball."
        )
    return called, cast(MinimalAttack, found)


def norm_of(attack: MinimalAttack, norm: str | None) -> str:
    """The given norm, or the attack's name.

    Raises:
      UsageError: the attack does not support it.
    """
    name = attack.own_norm if norm is None else norm
    if name not in attack.norms:
        raise UsageError(
            f"norm: {type(attack).__name__} supports {', '.join(attack.norms)}, found {name!r}."
        )
    return name


def _distances(evaluator: Evaluator, attack: Attack, ball: ThreatModel) -> np.ndarray:
    """Distances of all images, float64 [N]; 0 for those misclassified without attack."""
    distances = np.zeros(len(evaluator.data))
    measure = _measurer(evaluator, ball)
    todo = np.flatnonzero(evaluator.clean.correct)
    held = max(_HELD // int(np.prod(evaluator.data.image_shape)), evaluator.batch_size)
    for first in range(0, len(todo), held):
        index = todo[first : first + held]
        x_adv = evaluator.craft(attack, ball, index)
        for part in even_batches(np.arange(len(index)), evaluator.batch_size):
            chunk = index[part]
            distances[chunk] = measure(tf.constant(x_adv[part]), *evaluator.batch(chunk)).numpy()
    return distances


def _measurer(evaluator: Evaluator, ball: ThreatModel) -> Callable[..., Any]:
    """(x_adv, stored images, labels) -> distances, infinite if still classified correctly."""
    shape = [None, *evaluator.data.image_shape]
    spec = (tf.TensorSpec(shape, tf.float32),
            tf.TensorSpec(shape, tf.as_dtype(evaluator.data.images.dtype)),
            tf.TensorSpec([None], tf.int32))  # fmt: skip

    @tf.function(input_signature=spec, autograph=False)
    def measure(x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
        clean = as_pixels(x)
        wrong = ~is_correct(evaluator.logits(x_adv), y) & ball.contains(x_adv, clean)
        return tf.where(wrong, ball.distance(x_adv, clean), float("inf"))

    found: Callable[..., Any] = measure
    return found
