"""Accuracy on a published set of corrupted images, and its mean corruption error.

Hendrycks and Dietterich (2019), https://arxiv.org/abs/1903.12261. With E the error of a model
and B that of a baseline, by corruption c and severity s:

    CE(c) = sum_s E(s, c) / sum_s B(s, c),   mCE = mean over the 15 published corruptions of CE(c)

The baseline of ImageNet-C is AlexNet, whose published errors are below. Other sets have no
baseline: for them papers print the mean of E itself, and mCE is relative to a model of the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from tfrobust.data.as_pixels import as_pixels
from tfrobust.data.corruption_sets import CorruptionSet, FolderSet
from tfrobust.data.corruptions import CORRUPTIONS, SEVERITIES
from tfrobust.evaluation.batches import judge_confidence
from tfrobust.evaluation.calibration import Calibration
from tfrobust.evaluation.corrupted import CorruptionScores, measured
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import inference
from tfrobust.models.outside import told_plainly
from tfrobust.progress import Progress
from tfrobust.runtime import tf, traced_once
from tfrobust.typing import Tensor

#: AlexNet's errors on ImageNet-C, means over the severities, as published with the set.
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
_IMAGENET_CLASSES = 1000


class MeanCorruptionError(TypedDict):
    """An mCE relative to one baseline, None where that makes no errors, and CE by corruption."""

    baseline: str
    value: float | None
    by_corruption: dict[str, float]


class PublishedScores(CorruptionScores):
    """What `published_accuracy` returns; an entry of the report.

    Means are over the published corruptions that the set has, or over all if it has none of them.

    Attributes:
      set: the name of the set.
      images: the number of images of a corruption and severity.
      mean_error: 1 - `mean_accuracy`, the mCE without baseline.
      mce: an entry for each baseline.
    """

    set: str
    images: int
    mean_error: float
    mce: list[MeanCorruptionError]


def published_accuracy(
    model: Classifier,
    data: CorruptionSet,
    labels: np.ndarray,
    *,
    size: tuple[int, int],
    batch_size: int = 128,
    limit: int | None = None,
    seed: int = 42,
    baselines: Mapping[str, Classifier] | None = None,
) -> PublishedScores:
    """Accuracy by corruption and severity, its mean, and mean corruption errors.

    Args:
      model: from `as_classifier`.
      data: the set.
      labels: from `labels_for`, the set's label -> the model's.
      size: (width, height) of the images that the model takes.
      batch_size: images in a batch.
      limit: only so many of each corruption and severity.
      seed: of that draw.
      baselines: name -> a model that mCE is relative to, measured on the same images.

    Returns:
      Accuracies, errors and their means.

    Raises:
      TFRobustError: the set cannot be read.
    """
    given = {"size": size, "batch_size": batch_size, "limit": limit, "seed": seed}
    rows, calibrations, images = _measured(model, data, labels, **given)
    counted = [name for name in data.names if name in CORRUPTIONS] or list(data.names)
    errors = {name: 1 - float(np.mean(rows[name])) for name in data.names}
    against = {"AlexNet, published": ALEXNET} if _is_imagenet(data) else {}
    for name, other in (baselines or {}).items():
        own, _, _ = _measured(other, data, labels, **given)
        against[name] = {one: 1 - float(np.mean(own[one])) for one in data.names}
    return {
        "set": data.path.name,
        "images": images,
        "mean_accuracy": round(float(np.mean([rows[name] for name in counted])), 6),
        "mean_error": round(float(np.mean([errors[name] for name in counted])), 6),
        "by_corruption": rows,
        "calibration": Calibration.mean(calibrations[name] for name in counted).as_dict(),
        "mce": [_mce(name, errors, other, counted) for name, other in against.items()],
        "note": _note(data, counted, limit),
    }


def _measured(
    model: Classifier, data: CorruptionSet, labels: np.ndarray, **given: Any
) -> tuple[dict[str, list[float]], dict[str, Calibration], int]:
    """Accuracies and calibration by corruption, and the number of images of each severity."""
    logits = inference(model)

    @traced_once
    def judge(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return judge_confidence(logits(as_pixels(x)), y)

    judged = told_plainly(model, judge)
    progress = Progress(f"corruptions of {data.path.name}", len(data.names) * len(SEVERITIES))
    rows: dict[str, list[float]] = {}
    calibrations, most, done = {}, 0, 0
    for name in data.names:
        rows[name], by_severity = [], []
        for severity in SEVERITIES:
            batches = [
                [one.numpy() for one in judged(tf.constant(x), tf.constant(labels[y]))]
                for x, y in data.batches(name, severity, **given)
            ]
            accuracy, calibration = measured(batches)
            rows[name].append(accuracy)
            by_severity.append(calibration)
            most, done = max(most, sum(len(batch[1]) for batch in batches)), done + 1
            progress.update(done)
        calibrations[name] = Calibration.mean(by_severity)
    progress.close()
    return rows, calibrations, most


def _is_imagenet(data: CorruptionSet) -> bool:
    return isinstance(data, FolderSet) and len(data.classes) == _IMAGENET_CLASSES


def _mce(
    baseline: str, errors: Mapping[str, float], other: Mapping[str, float], counted: list[str]
) -> MeanCorruptionError:
    """CE of each corruption, and their mean; skips those without errors of the baseline."""
    each = {name: round(errors[name] / other[name], 6) for name in counted if other.get(name)}
    value = round(float(np.mean(list(each.values()))), 6) if each else None
    return {"baseline": baseline, "value": value, "by_corruption": each}


def _note(data: CorruptionSet, counted: list[str], limit: int | None) -> str:
    note = f"images of {data.path.name}, as published; means over {len(counted)} corruptions"
    if missing := [name for name in CORRUPTIONS if name not in data.names]:
        note += f", without {len(missing)} of the 15 published ones: not comparable with published"
    if further := [name for name in data.names if name not in counted]:
        note += f"; not counted: {', '.join(further)}"
    return f"{note}; {limit:,} images of each" if limit else note
