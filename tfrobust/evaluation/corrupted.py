"""Mean corruption accuracy: how a model withstands shifts that no adversary has chosen.

Hendrycks and Dietterich (2019), https://arxiv.org/abs/1903.12261.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypedDict

import numpy as np

from tfrobust.attacks.results import rate
from tfrobust.data.as_pixels import as_pixels
from tfrobust.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.batches import judge_confidence
from tfrobust.evaluation.calibration import Calibration
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import inference
from tfrobust.models.pairs import classifier_for
from tfrobust.progress import Progress
from tfrobust.runtime import tf, traced_once
from tfrobust.typing import Model, Tensor
from tfrobust.workers import Piece, Threads, Workers

# Images, labels and seeds -> confidences, whether correct, Brier scores.
_Judged = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]

NOTE = (
    "images corrupted here, with random draws of our own: not comparable with scores on an "
    "official -C set"
)


class CorruptionScores(TypedDict):
    """What `corruption_accuracy` returns; an entry of the report.

    Attributes:
      mean_accuracy: over corruptions and severities, in [0, 1].
      by_corruption: the accuracies at severity 1 to 5, by corruption.
      calibration: means over corruptions and severities.
      note: which images these are.
    """

    mean_accuracy: float
    by_corruption: dict[str, list[float]]
    calibration: dict[str, float]
    note: str


def corruption_accuracy(
    model: Model,
    data: ImageSet,
    *,
    names: Sequence[str] = tuple(CORRUPTIONS),
    batch_size: int = 128,
    seed: int = 42,
    workers: Workers | None = None,
) -> CorruptionScores:
    """Accuracy under each corruption at each severity, and their mean.

    Args:
      model: a Keras model or any callable, [0, 1] images float32 [B, H, W, 3] -> logits.
      data: the images, at least 8x8.
      names: of `CORRUPTIONS`; all 15 by default.
      batch_size: images in a batch.
      seed: of the random draws; image i has the same ones in every corruption.
      workers: who evaluates the batches; this process, one at a time, if None.

    Returns:
      Accuracies and their means.

    Raises:
      UsageError: an unknown name, or images that are too small.
    """
    made = _Corrupted(classifier_for(model, data))
    pieces = (
        piece
        for name in names
        for severity in SEVERITIES
        for piece in _pieces(data, name, severity, batch_size, seed)
    )
    results = (
        one for some in (workers or Threads(at_once=1)).map(made, "judged", pieces) for one in some
    )
    batches = -(-len(data) // batch_size)
    progress = Progress("corruptions", len(names) * len(SEVERITIES))
    found: dict[str, list[float]] = {}
    calibrations = []
    for name in names:
        found[name] = []
        for severity in SEVERITIES:
            accuracy, calibration = measured(itertools.islice(results, batches))
            found[name].append(accuracy)
            calibrations.append(calibration)
            progress.update(len(found) * len(SEVERITIES) - len(SEVERITIES) + severity)
    progress.close()
    return {
        "mean_accuracy": round(float(np.mean(list(found.values()))), 6),
        "by_corruption": found,
        "calibration": Calibration.mean(calibrations).as_dict(),
        "note": NOTE,
    }


class _Corrupted:
    """A classifier that corrupts its images; only the classifier is pickled."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._graphs: dict[tuple[str, int], _Judged] = {}

    def __reduce__(self) -> tuple[type[_Corrupted], tuple[Classifier]]:
        return _Corrupted, (self._classifier,)

    def judged(
        self, name: str, severity: int, x: np.ndarray, y: np.ndarray, seeds: np.ndarray
    ) -> list[np.ndarray]:
        """Confidences, whether correct, and Brier scores, each [B]."""
        key = (name, severity)
        # The pieces come corruption by corruption: one graph is enough.
        if key not in self._graphs:
            self._graphs = {key: self._traced(*key)}
        found = self._graphs[key](tf.constant(x), tf.constant(y), tf.constant(seeds))
        return [one.numpy() for one in found]

    def _traced(self, name: str, severity: int) -> _Judged:
        logits = inference(self._classifier)

        @traced_once
        def judged(x: Tensor, y: Tensor, seeds: Tensor) -> tuple[Tensor, ...]:
            return judge_confidence(logits(corrupt(as_pixels(x), name, severity, seeds)), y)

        return judged


def _pieces(
    data: ImageSet, name: str, severity: int, batch_size: int, seed: int
) -> Iterator[Piece]:
    for first in range(0, len(data), batch_size):
        rows = np.arange(first, min(first + batch_size, len(data)))
        # A seed for each image by its place in the data: batches do not matter.
        seeds = np.stack([np.full_like(rows, seed), rows], axis=1).astype(np.int32)
        yield name, severity, data.images[rows], data.labels[rows].astype(np.int32), seeds


def measured(batches: Iterable[Sequence[np.ndarray]]) -> tuple[float, Calibration]:
    """Accuracy, to six digits, and calibration of what `judge_confidence` returns by batch."""
    confidences, correct, squared = map(np.concatenate, zip(*batches, strict=True))
    return rate(correct), Calibration.of(confidences, correct, squared)
