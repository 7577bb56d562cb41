"""Clean and robust accuracy per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfrobust.chance import wilson
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import class_word, new_figure, tidy
from tfrobust.figures.outcomes import ClassScores, Outcomes, class_scores
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class AccuracyByClass(Figure[Outcomes]):
    """Clean and robust accuracy of each class, the most robust on top.

    If there are many classes: the best and the worst by name, and all of them by rank.

    Attributes:
      every_class: up to this many classes, each has its own row.
      ends: number of best and worst classes to name if there are more.
    """

    title: ClassVar[str] = "By class"
    group: ClassVar[str] = "evaluation"
    needs: ClassVar[type] = Outcomes

    every_class: int = 30
    ends: int = 15

    def draw(self, data: Outcomes) -> Drawing:
        """Draws a row for each class."""
        scores = class_scores(data)
        if len(scores.labels) <= self.every_class:
            return _all_classes(scores, data)
        figure = new_figure(11, 9.6, layout="constrained")
        parts = figure.subplot_mosaic([["all", "all"], ["best", "worst"]], height_ratios=[1, 1.7])
        _by_rank(parts["all"], scores, data)
        _dumbbells(parts["best"], scores.part(slice(0, self.ends)), data)
        _dumbbells(parts["worst"], scores.part(slice(-self.ends, None)), data)
        for half in (parts["best"], parts["worst"]):
            half.set_xlabel("accuracy, with 95 % band (in brackets: images)")
        parts["best"].set_title(f"The {self.ends} most robust classes", fontsize=11)
        parts["worst"].set_title(f"The {self.ends} least robust classes", fontsize=11)
        return figure


def _all_classes(scores: ClassScores, data: Outcomes) -> Drawing:
    figure = new_figure(7.2, 1.7 + 0.3 * len(scores.labels), layout="constrained")
    axes = figure.subplots()
    _dumbbells(axes, scores, data)
    axes.set_title("Accuracy by class, clean and under attack")
    title = "dashed: all images; in brackets: images of the class"
    figure.legend(frameon=False, fontsize=9, ncols=3, loc="outside lower center", title=title,
                  title_fontsize=8.5)  # fmt: skip
    return figure


def _dumbbells(axes: Axes, scores: ClassScores, data: Outcomes) -> None:
    """One row per class: its robust and its clean accuracy, joined by a line."""
    rows = np.arange(len(scores.labels))
    clean, robust = scores.clean / scores.images, scores.robust / scores.images
    ends = [wilson(int(k), int(n)) for k, n in zip(scores.robust, scores.images, strict=True)]
    low, high = np.transpose(ends)
    red, blue = theme().attacked, theme().clean
    axes.hlines(rows, low, high, color=red, alpha=0.22, lw=7, label="95 % interval")
    axes.hlines(rows, robust, clean, color=theme().neutral, lw=1.4)
    axes.plot(
        robust, rows, "o", color=theme().attacked, ms=6.5, label="under attack", clip_on=False
    )
    hollow: dict[str, Any] = {"mfc": theme().ground, "mew": 1.6, "clip_on": False}
    axes.plot(clean, rows, "o", color=blue, ms=6.5, label="clean", **hollow)
    _means(axes, data)
    words = [class_word(data.class_names, int(label), 26) for label in scores.labels]
    names = [f"{word}  ({n})" for word, n in zip(words, scores.images, strict=True)]
    axes.set_yticks(rows, names, fontsize=9, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy")
    axes.tick_params(axis="y", length=0)
    tidy(axes, grid="x")


def _means(axes: Axes, data: Outcomes) -> None:
    for share, colour in ((data.correct, theme().clean), (data.robust, theme().attacked)):
        axes.axvline(float(share.mean()), color=colour, lw=1, ls="--", alpha=0.7, zorder=1)


def _by_rank(axes: Axes, scores: ClassScores, data: Outcomes) -> None:
    ranks = np.arange(1, len(scores.labels) + 1)
    clean, robust = scores.clean / scores.images, scores.robust / scores.images
    axes.vlines(ranks, robust, clean, color=theme().line, lw=0.8)
    for share, colour, name in (
        (clean, theme().clean, "clean"),
        (robust, theme().attacked, "under attack"),
    ):
        axes.plot(ranks, share, "o", color=colour, ms=3, label=name, clip_on=False)
    for share, colour in ((data.correct, theme().clean), (data.robust, theme().attacked)):
        axes.axhline(float(share.mean()), color=colour, lw=1, ls="--", alpha=0.7)
    axes.set(xlim=(0, len(ranks) + 1), ylim=(0, 1.02), ylabel="accuracy")
    axes.set_xlabel("classes, by robust accuracy (dashed: mean over all images)")
    axes.set_title(f"Accuracy of {len(ranks)} classes, clean and under attack")
    tidy(axes, grid="y")
    axes.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
