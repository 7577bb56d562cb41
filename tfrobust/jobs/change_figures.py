"""A few images before and after a perturbation of any kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfrobust.data.types import ImageSet
from tfrobust.figures.gallery import Gallery, ImagePairs
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import inference
from tfrobust.runtime import tf

#: How many images are drawn.
SHOWN = 6


def changes_figure(
    model: Classifier,
    data: ImageSet,
    rows: np.ndarray,
    changed: np.ndarray,
    path: Path | str,
    title: str,
) -> Path:
    """Draws images, what was made of them, the difference, and what the model sees in both.

    Args:
      model: the classifier.
      data: the images, with their labels and names.
      rows: which of them, int [N].
      changed: what was made of those, float32 [N, H, W, C].
      path: the file; its suffix is the format.
      title: of the figure.

    Returns:
      `path`.
    """
    x = data.pixels(rows)
    before, after = (_probabilities(model, each) for each in (x, changed))
    pairs = ImagePairs(x, changed, data.labels[rows], before, after, data.label_names, title)
    return Gallery().save(pairs, path)


def _probabilities(model: Classifier, x: np.ndarray) -> np.ndarray:
    return np.asarray(tf.nn.softmax(inference(model)(tf.constant(x))))
