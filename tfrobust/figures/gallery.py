"""Images beside their adversarial images, with the model's predictions for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import (
    CELL,
    amplification,
    amplified,
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
_GAP, _CAPTION, _EDGE, _BETWEEN = 0.07, 0.46, 0.3, 0.55
_TRIPLE = 3 * CELL + 2 * _GAP


@dataclass(frozen=True)
class ImagePairs:
    """Images and their adversarial images, with a model's predictions for both.

    Attributes:
      x: float32 [N, H, W, C] in [0, 1], N >= 1.
      x_adv: like x, crafted from it.
      labels: int [N], the true labels.
      p_clean: float [N, K], probabilities on x.
      p_adv: float [N, K], probabilities on x_adv.
      class_names: by label.
      title: of the figure, if not the default.
    """

    x: np.ndarray
    x_adv: np.ndarray
    labels: np.ndarray
    p_clean: np.ndarray
    p_adv: np.ndarray
    class_names: Sequence[str]
    title: str = ""

    def __post_init__(self) -> None:
        arrays = (self.x, self.x_adv, self.labels, self.p_clean, self.p_adv)
        alike = self.x.shape == self.x_adv.shape and self.p_clean.shape == self.p_adv.shape
        counts = {len(array) for array in arrays}
        if not alike or self.x.ndim != 4 or len(counts) != 1 or counts == {0}:
            shapes = ", ".join(str(list(array.shape)) for array in arrays)
            raise UsageError(
                "Expected x and x_adv as [N, H, W, C], labels as [N], p_clean and p_adv as "
                f"[N, K], N >= 1, found {shapes}."
            )


@dataclass(frozen=True)
class Gallery(Figure[ImagePairs]):
    """Clean image, adversarial image and amplified difference, two triples in a row.

    Below each image are the predicted class and its probability, and below the difference its
    largest value. All differences are amplified by the same factor.
    """

    title: ClassVar[str] = "Adversarial gallery"
    group: ClassVar[str] = "evaluation"
    needs: ClassVar[type] = ImagePairs
    unfolded: ClassVar[bool] = True

    def draw(self, data: ImagePairs) -> Drawing:
        """Draws one triple per image."""
        delta = data.x_adv - data.x
        factor = amplification(delta)
        columns = min(2, len(data.x))
        rows = -(-len(data.x) // columns)
        width = 2 * _EDGE + columns * _TRIPLE + (columns - 1) * _BETWEEN
        figure = new_figure(max(width, 5.5), 1.15 + rows * (CELL + _CAPTION + 0.12))
        title_at(figure, _EDGE, data.title or "Clean, adversarial and the difference")
        for i in range(len(data.x)):
            left = _EDGE + (i % columns) * (_TRIPLE + _BETWEEN)
            top = 1.0 + (i // columns) * (CELL + _CAPTION + 0.12)
            if i < columns:
                _heads(figure, left, factor)
            _triple(figure, left, top, data, i, amplified(delta[i], factor))
        return figure


def _heads(figure: Drawing, left: float, factor: int) -> None:
    difference = "difference" if factor == 1 else f"difference × {factor}"
    for number, head in enumerate(("clean", "adversarial", difference)):
        centre = left + number * (CELL + _GAP) + CELL / 2
        text_at(figure, centre, 0.84, head, size=10, color=theme().soft)


def _triple(
    figure: Drawing, left: float, top: float, data: ImagePairs, i: int, difference: np.ndarray
) -> None:
    label, names, soft = int(data.labels[i]), data.class_names, theme().soft
    for image, probs in ((data.x[i], data.p_clean[i]), (data.x_adv[i], data.p_adv[i])):
        image_at(figure, left, top, image)
        prediction_at(figure, left, top + CELL, probs, label, names)
        left += CELL + _GAP
    if data.p_clean[i].argmax() != label:
        words = f"true class: {class_word(names, label, 17)}"
        text_at(figure, left, top + CELL + 0.48, words, size=8.5, ha="left", color=soft)
    image_at(figure, left, top, difference)
    delta = data.x_adv[i] - data.x[i]
    largest = f"at most {_written(float(np.abs(delta).max()))}"
    for below, words in ((0.14, largest), (0.31, size_of(delta))):
        text_at(figure, left, top + CELL + below, words, size=8.5, ha="left", color=soft)


def prediction_at(
    figure: Drawing, left: float, top: float, probs: np.ndarray, label: int, names: Sequence[str]
) -> None:
    """The predicted class, marked right or wrong, and its probability, on two lines."""
    top1 = int(probs.argmax())
    mark, colour = ("✓", theme().clean) if top1 == label else ("✗", theme().wrong)
    words = f"{mark} {class_word(names, top1, 17)}"
    text_at(figure, left, top + 0.14, words, size=9, ha="left", color=colour, weight="bold")
    text_at(figure, left, top + 0.31, f"{probs[top1]:.0%}", size=9, ha="left", color=colour)


def _written(value: float) -> str:
    """A pixel value: as a short decimal if it is one (0.1, not 25.5/255), else in 255ths."""
    short = f"{value:.2g}"
    return short if abs(float(short) - value) < 1e-6 else f"{255 * value:.3g}/255"


def size_of(delta: np.ndarray) -> str:
    """The size of a change: the L2 norm, and the number of pixels if it is small."""
    # Compilers divide by 255 in different ways, so the last bit may differ.
    pixels = int(np.any(np.abs(delta) > 1e-6, axis=-1).sum())
    length = float(np.sqrt(np.square(delta, dtype=np.float64).sum()))
    few = 0 < pixels <= max(1, delta.shape[0] * delta.shape[1] // 20)
    count = f"{pixels} pixel{'s' if pixels > 1 else ''}, " if few else ""
    return f"{count}L2 {length:.2f}"
