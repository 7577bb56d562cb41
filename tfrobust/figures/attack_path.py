"""The path of an attack, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.gallery import prediction_at, size_of
from tfrobust.figures.layout import (
    CELL,
    amplification,
    amplified,
    axes_at,
    class_word,
    image_at,
    new_figure,
    text_at,
    tidy,
    title_at,
)
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Inches.
_GAP, _EDGE = 0.07, 0.3
# Position of the rows: from the left, and from the top.
_LEFT, _IMAGES, _NOISE, _CURVES = 0.7, 1.0, 2.78, 4.6


@dataclass(frozen=True)
class RecordedPath:
    """An attack's course on one image.

    Attributes:
      steps: float32 [S + 1, H, W, C] in [0, 1], the image after 0..S steps.
      x: float32 [H, W, C], the clean image.
      label: its class.
      probs: float [S + 1, K], the model's probabilities at each step.
      class_names: by label.
      title: of the figure.
    """

    steps: np.ndarray
    x: np.ndarray
    label: int
    probs: np.ndarray
    class_names: Sequence[str]
    title: str = "An attack, step by step"

    def __post_init__(self) -> None:
        fits = self.steps.shape[1:] == self.x.shape and self.x.ndim == 3
        if not fits or len(self.probs) != len(self.steps) != 0:
            raise UsageError(
                "Expected steps as [S + 1, H, W, C], x as [H, W, C] and probs as [S + 1, K], "
                f"found {list(self.steps.shape)}, {list(self.x.shape)} and "
                f"{list(self.probs.shape)}."
            )


@dataclass(frozen=True)
class AttackPath(Figure[RecordedPath]):
    """About 8 steps of an attack: image, amplified noise, and the probabilities.

    The curves show the true class and the finally predicted class. A path that has converged is
    shown up to that point.

    Attributes:
      shown: number of steps shown as images.
    """

    title: ClassVar[str] = "Attack, step by step"
    group: ClassVar[str] = "evaluation"
    needs: ClassVar[type] = RecordedPath

    shown: int = 8

    def draw(self, data: RecordedPath) -> Drawing:
        """Draws the steps, and the curves below them."""
        last = resting_step(data.steps)
        count = min(self.shown, last + 1)
        shown = np.unique(np.linspace(0, last, count).round().astype(int))
        delta = data.steps[shown] - data.x
        factor = amplification(delta)
        columns = len(shown) + 1
        wide = max(columns * (CELL + _GAP) - _GAP, 4 * CELL)
        figure = new_figure(_LEFT + wide + _EDGE, _CURVES + 2.05)
        title_at(figure, _EDGE, data.title)
        _margin(figure, data, factor)
        for column, step in enumerate(shown):
            at = _LEFT + (column + 1) * (CELL + _GAP)
            head = "start" if step == 0 else f"step {step}"
            text_at(figure, at + CELL / 2, _IMAGES - 0.15, head, size=10, color=theme().soft)
            image_at(figure, at, _IMAGES, data.steps[step])
            prediction_at(figure, at, _IMAGES + CELL, data.probs[step], data.label,
                          data.class_names)  # fmt: skip
            image_at(figure, at, _NOISE, amplified(delta[column], factor))
            words = size_of(delta[column])
            text_at(figure, at, _NOISE + CELL + 0.14, words, size=8.5, ha="left",
                    color=theme().soft)  # fmt: skip
        _probability_curves(figure, wide, data, data.probs[: last + 1], shown)
        return figure


def _margin(figure: Drawing, data: RecordedPath, factor: int) -> None:
    """The clean image, and the labels of the two rows."""
    soft = theme().soft
    text_at(figure, _LEFT + CELL / 2, _IMAGES - 0.15, "clean", size=10, color=soft)
    image_at(figure, _LEFT, _IMAGES, data.x)
    words = class_word(data.class_names, data.label, 17)
    text_at(figure, _LEFT, _IMAGES + CELL + 0.14, words, size=9, ha="left", weight="bold")
    text_at(figure, _LEFT, _IMAGES + CELL + 0.31, "true class", size=9, ha="left", color=soft)
    noise = "difference" if factor == 1 else f"difference × {factor}"
    text_at(figure, _LEFT + CELL, _NOISE + CELL / 2, noise, size=10, ha="right", color=soft)


def resting_step(steps: np.ndarray) -> int:
    """The step after which nothing changes any more, 0..S.

    Args:
      steps: float32 [S + 1, H, W, C].
    """
    moved = np.flatnonzero(np.any(steps[1:] != steps[:-1], axis=(1, 2, 3)))
    return int(moved[-1]) + 1 if len(moved) else 0


def _probability_curves(
    figure: Drawing, wide: float, data: RecordedPath, probs: np.ndarray, shown: np.ndarray
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = axes_at(figure, _LEFT, _CURVES, wide, 1.45)
    end, colours = int(probs[-1].argmax()), (theme().clean, theme().attacked)
    classes = (data.label, end) if end != data.label else (data.label,)
    for label, colour in zip(classes, colours, strict=False):
        curve, name = probs[:, label], class_word(data.class_names, label, 24)
        axes.plot(range(len(curve)), curve, color=colour, lw=1.8, label=name)
        axes.plot(shown, curve[shown], "o", color=colour, ms=5)
    wrong = np.flatnonzero(probs.argmax(axis=1) != data.label)
    if len(wrong) and wrong[0] > 0:
        axes.axvline(wrong[0], color=theme().neutral, lw=1, ls="--", zorder=1)
    axes.set(ylim=(0, 1.02), xlabel="step", ylabel="probability")
    axes.set_xlim(-0.02 * len(probs), 1.02 * max(len(probs) - 1, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    corner: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 0.97), "ncols": 2}
    legend = axes.legend(frameon=False, fontsize=9, **corner)
    for text in legend.get_texts():
        text.set_parse_math(False)
