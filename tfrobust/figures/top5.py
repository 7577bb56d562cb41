"""The five most probable classes of each image, clean and adversarial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.figures.figure import Figure
from tfrobust.figures.gallery import ImagePairs
from tfrobust.figures.layout import (
    CELL,
    axes_at,
    class_word,
    image_at,
    new_figure,
    text_at,
    title_at,
)
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Inches.
_EDGE, _HEAD, _ROW, _BARS, _WORDS = 0.3, 0.95, 1.62, 1.7, 1.55


@dataclass(frozen=True)
class Top5(Figure[ImagePairs]):
    """Each image, clean and adversarial, with its five most probable classes in words."""

    title: ClassVar[str] = "The five most probable classes"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = ImagePairs
    shows_attack: ClassVar[bool] = True

    def draw(self, data: ImagePairs) -> Drawing:
        """Draws a row for each image."""
        half = CELL + _WORDS + _BARS + 0.35
        width = 2 * _EDGE + 2 * half + 0.2
        figure = new_figure(width, _HEAD + len(data.x) * _ROW + 0.2)
        title_at(figure, _EDGE, self.title, 0.32)
        sides = (("clean", data.x, data.p_clean, theme().clean),
                 ("adversarial", data.x_adv, data.p_adv, theme().attacked))  # fmt: skip
        for side, (head, images, probs, colour) in enumerate(sides):
            left = _EDGE + side * (half + 0.2)
            text_at(figure, left, 0.72, head, size=12, weight="bold", ha="left")
            for row in range(len(images)):
                top = _HEAD + row * _ROW
                image_at(figure, left, top, images[row])
                _bars(figure, left + CELL + _WORDS, top, probs[row], colour, data, row)
        text_at(figure, width - 0.1, 0.36, "bold: the true class", size=9, ha="right",
                color=theme().soft)  # fmt: skip
        return figure


def _bars(
    figure: Drawing, left: float, top: float, probs: np.ndarray, colour: str, data: ImagePairs,
    row: int,
) -> None:  # fmt: skip
    best = np.argsort(-probs)[:5]
    axes = axes_at(figure, left, top, _BARS, CELL)
    axes.barh(range(len(best)), probs[best], color=colour, height=0.66)
    axes.set(xlim=(0, 1.18), ylim=(4.6, -0.6), xticks=[])
    words = [class_word(data.class_names, int(one), 20) for one in best]
    axes.set_yticks(range(len(best)), words, fontsize=9, parse_math=False)
    for tick, one in zip(axes.get_yticklabels(), best, strict=True):
        tick.set_fontweight("bold" if one == data.labels[row] else "normal")
    for place, one in enumerate(best):
        axes.text(probs[one] + 0.02, place, f"{probs[one]:.0%}", va="center", fontsize=8.5,
                  color=theme().soft)  # fmt: skip
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
