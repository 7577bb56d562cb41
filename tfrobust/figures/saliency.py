"""What a model looks at, in clean and in adversarial images side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import CELL, class_word, image_at, map_at, new_figure, text_at
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

GROUPS = (
    "Classified correctly, also under attack",
    "Classified correctly, misclassified under attack",
    "Misclassified, even without an attack",
)

# Inches.
_GAP, _BLOCK_GAP = 0.06, 0.28
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.6, 0.25, 1.3, 0.75
_CAPTION, _GROUP_TITLE = 0.42, 0.42
_BLOCKS = (4, 4, 1)


@dataclass(frozen=True)
class Predicted:
    """N images with one model's predictions.

    Attributes:
      x: float32 [N, H, W, C] in [0, 1].
      predicted: int [N], the most confident class.
      confidence: float [N], its probability.
    """

    x: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class SaliencyMaps:
    """Images, clean and adversarial, with maps of what a model looks at in each.

    Attributes:
      clean: the clean images, N >= 1.
      adversarial: the images crafted from them.
      clean_maps: for the clean images the positive and the negative part of the gradient, and
        SmoothGrad, each float [N, H, W] in [-1, 1].
      adversarial_maps: the same for the adversarial images.
      labels: int [N], the true labels.
      class_names: by label; long ones are wrapped.
    """

    clean: Predicted
    adversarial: Predicted
    clean_maps: Sequence[np.ndarray]
    adversarial_maps: Sequence[np.ndarray]
    labels: np.ndarray
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        alike = self.clean.x.shape == self.adversarial.x.shape
        if not alike or len(self.labels) != len(self.clean.x) or not len(self.labels):
            raise UsageError(
                "Expected equal numbers of clean images, adversarial images and labels, at least 1."
            )

    @property
    def group(self) -> np.ndarray:
        """int [N], numbers in `GROUPS`."""
        return group_of(self.labels, self.clean.predicted, self.adversarial.predicted)


def group_of(labels: np.ndarray, clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """The group in `GROUPS` of each image, by its predicted classes, int [N]."""
    return np.where(clean != labels, 2, np.where(adversarial != labels, 1, 0))


@dataclass(frozen=True)
class Saliency(Figure[SaliencyMaps]):
    """One row per image, grouped by `GROUPS`; a dozen fits a page.

    A row shows the clean image and the adversarial one, each with its predicted class and
    confidence and with three maps of that class's logit; then the amplified difference.
    """

    title: ClassVar[str] = "What the model looks at"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = SaliencyMaps
    shows_attack: ClassVar[bool] = True

    def draw(self, data: SaliencyMaps) -> Drawing:
        """Draws the rows, and a legend of the colours below them."""
        group = data.group
        rows = len(group) * (CELL + _CAPTION) + len(np.unique(group)) * _GROUP_TITLE
        figure = new_figure(list(_lefts())[-1] + CELL + _RIGHT, _TOP + rows + _BOTTOM)
        delta = data.adversarial.x - data.clean.x
        # Grey means no change; the largest change just reaches black or white.
        factor = max(1, int(0.5 / max(float(np.abs(delta).max()), 1e-3) + 1e-3))
        _header(figure, self.title, factor)
        top = _TOP
        for number in np.unique(group):
            text_at(figure, 0.25, top + 0.18, GROUPS[number], size=13, weight="bold", ha="left")
            top += _GROUP_TITLE
            for row in map(int, np.flatnonzero(group == number)):
                _row(figure, top, row, data)
                image_at(figure, list(_lefts())[-1], top, 0.5 + factor * delta[row])
                top += CELL + _CAPTION
        _legend(figure)
        return figure


def _header(figure: Drawing, title: str, factor: int) -> None:
    lefts = list(_lefts())
    text_at(figure, 0.25, 0.33, title, size=20, weight="bold", ha="left")
    for block, head in enumerate(("clean", "adversarial", "difference")):
        first = sum(_BLOCKS[:block])
        centre = (lefts[first] + lefts[first + _BLOCKS[block] - 1] + CELL) / 2
        text_at(figure, centre, 0.85, head, size=13, weight="bold")
    columns = (*("image", "positive", "negative", "SmoothGrad") * 2, f"amplified {factor}×")
    for left, name in zip(lefts, columns, strict=True):
        text_at(figure, left + CELL / 2, 1.12, name, size=9.5, color=theme().soft)


def _row(figure: Drawing, top: float, row: int, data: SaliencyMaps) -> None:
    lefts = _lefts()
    label = int(data.labels[row])
    words = class_word(data.class_names, label, 14, 4)
    text_at(figure, 0.25, top + 0.06, "true class", size=8.5, ha="left", color=theme().soft)
    text_at(figure, 0.25, top + 0.19, words, size=11, ha="left", va="top")
    for side, maps in ((data.clean, data.clean_maps), (data.adversarial, data.adversarial_maps)):
        left = next(lefts)
        image_at(figure, left, top, side.x[row])
        caption_at(figure, left, top + CELL, side, row, label, data.class_names, size=10, width=30)
        for one in maps:
            map_at(figure, next(lefts), top, one[row])


def caption_at(
    figure: Drawing, left: float, top: float, side: Predicted, row: int, label: int,
    class_names: Sequence[str], *, size: float = 9, width: int = 22,
) -> None:  # fmt: skip
    """The class that a model predicts for an image, marked right or wrong, and its probability."""
    right = side.predicted[row] == label
    words = class_word(class_names, int(side.predicted[row]), width)
    text_at(
        figure, left, top + 0.14, f"{'✓' if right else '✗'} {words} · {side.confidence[row]:.0%}",
        size=size, ha="left", color=theme().clean if right else theme().wrong, weight="bold",
    )  # fmt: skip


def _legend(figure: Drawing) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    lefts, (width, height) = list(_lefts()), figure.get_size_inches()
    area = ((lefts[0] + 0.1) / width, 0.36 / height, 2.4 / width, 0.12 / height)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), "RdBu_r"), cax=figure.add_axes(area),
        orientation="horizontal", ticks=[-1, 0, 1],
    )  # fmt: skip
    bar.ax.set_xticklabels(["negative", "0", "positive"], fontsize=8.5)
    bar.outline.set_visible(False)
    note = (
        "Maps: gradient of the predicted class's logit. Where it is positive (red), brighter\n"
        "pixels raise the logit; where it is negative (blue), they lower it. Each map is scaled\n"
        "to its own 99th percentile, so the strengths of two maps are not comparable."
    )
    text_at(figure, lefts[2] + 0.25, height - 0.42, note, size=9, ha="left", color=theme().soft)


def _lefts() -> Iterator[float]:
    left = _LEFT
    for columns in _BLOCKS:
        for _ in range(columns):
            yield left
            left += CELL + _GAP
        left += _BLOCK_GAP - _GAP
