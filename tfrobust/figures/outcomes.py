"""A model's predictions for labelled images, clean and under attack: data of several figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfrobust.errors import UsageError


@dataclass(frozen=True)
class Outcomes:
    """Predicted classes.

    Attributes:
      labels: int [N], N >= 1.
      clean: int [N], predicted on the clean images.
      attacked: int [N], predicted on each image after the worst case of all attacks.
      robust: bool [N], correct on the clean image and under every attack.
      class_names: by label; classes beyond them are shown by number.
    """

    labels: np.ndarray
    clean: np.ndarray
    attacked: np.ndarray
    robust: np.ndarray
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        shapes = {np.shape(one) for one in (self.labels, self.clean, self.attacked, self.robust)}
        if len(shapes) != 1 or not len(self.labels):
            found = ", ".join(map(str, sorted(shapes)))
            raise UsageError(f"Outcomes: expected four arrays [N], N >= 1, found {found}.")

    @property
    def correct(self) -> np.ndarray:
        """bool [N]: classified correctly without an attack."""
        return np.asarray(self.clean == self.labels)

    @property
    def classes(self) -> int:
        """The number of classes, including those without a name."""
        seen = (self.labels, self.clean, self.attacked)
        return max(len(self.class_names), *(int(values.max()) + 1 for values in seen))


class ClassScores(NamedTuple):
    """Accuracies by class, the most robust class first. C is the number of classes that occur.

    Attributes:
      labels: int [C], classes that have an image.
      images: int [C], number of images.
      clean: int [C], number classified correctly.
      robust: int [C], number classified correctly under every attack.
    """

    labels: np.ndarray
    images: np.ndarray
    clean: np.ndarray
    robust: np.ndarray

    def part(self, index: np.ndarray | slice) -> ClassScores:
        """The classes at `index`."""
        return ClassScores(*(column[index] for column in self))


def class_scores(found: Outcomes) -> ClassScores:
    """Clean and robust accuracy of each class, sorted by robust, then by clean accuracy."""
    labels, place, images = np.unique(found.labels, return_inverse=True, return_counts=True)
    clean = np.bincount(place[found.correct], minlength=len(labels))
    robust = np.bincount(place[found.robust], minlength=len(labels))
    order = np.lexsort((labels, -clean / images, -robust / images))
    return ClassScores(labels, images, clean, robust).part(order)


def confusion(found: Outcomes) -> tuple[np.ndarray, np.ndarray]:
    """How often each class is predicted as each other, clean and under attack.

    Returns:
      Two int [K, K]: true class against predicted class, on clean and on attacked images.
    """
    tables, classes = [], found.classes
    for predictions in (found.clean, found.attacked):
        pairs = found.labels.astype(np.int64) * classes + predictions
        tables.append(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))
    return tables[0], tables[1]
