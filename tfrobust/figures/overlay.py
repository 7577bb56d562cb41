"""Where the prediction is decided: the gradient in red over each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import CELL, image_at, new_figure, text_at, title_at
from tfrobust.figures.saliency import Predicted, caption_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Inches.
_GAP, _EDGE, _HEAD, _CAPTION, _BETWEEN = 0.07, 0.3, 1.15, 0.32, 0.3


@dataclass(frozen=True)
class Overlays:
    """Images, clean and adversarial, and the same with the gradient overlaid in red.

    Attributes:
      clean: the clean images, N >= 1.
      adversarial: the images crafted from them.
      clean_red: float [N, H, W, 3], the clean images with the overlay.
      adversarial_red: the same for the adversarial images.
      labels: int [N], the true labels.
      class_names: by label.
    """

    clean: Predicted
    adversarial: Predicted
    clean_red: np.ndarray
    adversarial_red: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        lengths = {len(self.labels), *map(len, (self.clean.x, self.adversarial.x, self.clean_red,
                                                self.adversarial_red))}  # fmt: skip
        if len(lengths) != 1 or lengths == {0}:
            raise UsageError(f"Overlays: expected equal numbers, at least 1, found {lengths}.")


@dataclass(frozen=True)
class Overlay(Figure[Overlays]):
    """The gradient of the most confident prediction over each image, clean and adversarial."""

    title: ClassVar[str] = "Where the prediction is decided"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = Overlays
    shows_attack: ClassVar[bool] = True

    def draw(self, data: Overlays) -> Drawing:
        """Draws a row for each image."""
        pair = 2 * CELL + _GAP
        height = _HEAD + len(data.labels) * (CELL + _CAPTION) + _EDGE
        figure = new_figure(2 * _EDGE + 2 * pair + _BETWEEN, height)
        title_at(figure, _EDGE, self.title)
        sides = (("clean", data.clean, data.clean_red),
                 ("adversarial", data.adversarial, data.adversarial_red))  # fmt: skip
        for column, (head, side, red) in enumerate(sides):
            left = _EDGE + column * (pair + _BETWEEN)
            text_at(figure, left + pair / 2, _HEAD - 0.22, head, size=12, weight="bold")
            for row, label in enumerate(data.labels):
                top = _HEAD + row * (CELL + _CAPTION)
                image_at(figure, left, top, side.x[row])
                image_at(figure, left + CELL + _GAP, top, red[row])
                caption_at(figure, left, top + CELL, side, row, int(label), data.class_names)
        return figure
