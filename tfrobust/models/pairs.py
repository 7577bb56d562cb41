"""A model and images of any form as a classifier and an image set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrobust.data.sources import as_images
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError
from tfrobust.models.classifier import Classifier, as_classifier
from tfrobust.models.inputs import input_shape
from tfrobust.models.opening import load_any
from tfrobust.models.outside import expect_classes
from tfrobust.models.views import InputView
from tfrobust.typing import Model, Source


def classifier_for(model: Model, data: ImageSet, view: InputView | None = None) -> Classifier:
    """A model as a `Classifier`, after trying it on the first images of a set.

    Args:
      model: as for `as_classifier`.
      data: the images.
      view: as for `as_classifier`.

    Raises:
      TFRobustError: as `as_classifier`.
    """
    return as_classifier(model, data.pixels(slice(0, 64)), view)


def open_pair(
    model: Model | str | Path,
    data: Source,
    *,
    view: InputView | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[Classifier, ImageSet]:
    """The classifier, tried on the images, and the images in its number of channels.

    Args:
      model: any classifier, a path or an address, as `tfrobust.evaluate` takes it.
      data: images and labels, as `as_images` takes them.
      view: the range of pixels that the model takes; None finds out, or assumes [0, 1].
      class_names: the classes' names, by label.

    Raises:
      UsageError: the data is no source of images.
      TFRobustError: model or images cannot be read, or do not fit each other.
    """
    opened: Model = load_any(model) if isinstance(model, (str, Path)) else model
    shape = input_shape(opened)
    images = as_images(data, class_names=class_names, channels=shape[2] if shape else None)
    expect_classes(opened, len(images.label_names))
    classifier = classifier_for(opened, images, view)
    check_labels(images.labels, classifier.classes)
    return classifier, images


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Rejects labels that are out of a model's range.

    Raises:
      TFRobustError: one is too large.
    """
    top = int(labels.max(initial=0))
    if top >= classes:
        raise TFRobustError(
            f"The data has labels up to {top}, but the model has {classes} classes "
            f"(0 to {classes - 1}): use the data set that it was trained for."
        )
