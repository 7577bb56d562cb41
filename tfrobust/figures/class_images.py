"""The images that maximise the logit of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import (
    axes_at,
    class_word,
    label_width,
    new_figure,
    show_image,
    text_at,
    title_at,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Inches.
_EDGE, _SIDE = 0.3, 1.1


@dataclass(frozen=True)
class MaximisedImages:
    """The image that maximises the logit of each of some classes.

    Attributes:
      images: model -> float [len(classes), H, W, C] in [0, 1].
      classes: the labels.
      class_names: by label.
    """

    images: Mapping[str, np.ndarray]
    classes: Sequence[int]
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        if not self.images or any(len(one) != len(self.classes) for one in self.images.values()):
            raise UsageError(f"Expected one image for each of {len(self.classes)} classes.")


@dataclass(frozen=True)
class ClassImages(Figure[MaximisedImages]):
    """What each class responds to, one row per model."""

    title: ClassVar[str] = "What each class responds to"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = MaximisedImages

    def draw(self, data: MaximisedImages) -> Drawing:
        """Draws one image for each class and model."""
        label = 0.0 if len(data.images) == 1 else label_width(data.images, 10.5)
        step = _SIDE + 0.1
        width = max(2 * _EDGE + label + len(data.classes) * step, 6.0)
        figure = new_figure(width, 1.25 + len(data.images) * step)
        title_at(figure, _EDGE, self.title, 0.3)
        for column, one in enumerate(data.classes):
            centre = _EDGE + label + column * step + _SIDE / 2
            words = class_word(data.class_names, one, 15, 2)
            text_at(figure, centre, 0.86, words, size=8.5)
        for row, (name, found) in enumerate(data.images.items()):
            top = 1.1 + row * step
            if label:
                text_at(figure, _EDGE, top + _SIDE / 2, name, size=10.5, ha="left")
            for column, image in enumerate(found):
                left = _EDGE + label + column * step
                show_image(axes_at(figure, left, top, _SIDE, _SIDE), image)
        return figure
