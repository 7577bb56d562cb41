"""Predicted classes per true class under attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import class_word, new_figure, tidy
from tfrobust.figures.outcomes import Outcomes, confusion
from tfrobust.figures.style import readable_on, theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Confusion(Figure[Outcomes]):
    """The classes predicted for each true class under attack.

    Up to `matrix` classes: a matrix, in per cent of each true class. Above: the most common
    confusions as bars, each with the share that occurs without an attack.

    Attributes:
      matrix: the largest number of classes drawn as a matrix.
      commonest: number of confusions listed if there are more classes.
    """

    title: ClassVar[str] = "Confusion"
    group: ClassVar[str] = "evaluation"
    needs: ClassVar[type] = Outcomes

    matrix: int = 25
    commonest: int = 15

    def draw(self, data: Outcomes) -> Drawing:
        """Draws the matrix, or the list."""
        clean, attacked = confusion(data)
        if len(attacked) <= self.matrix:
            return _matrix(attacked, data.class_names)
        return _commonest(clean, attacked, data.class_names, self.commonest)


def _matrix(counts: np.ndarray, label_names: Sequence[str]) -> Drawing:
    """Each row in per cent of its class: correct in blue, wrong in vermilion."""
    classes = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell, size = (0.62, 10) if classes <= 12 else (0.42, 8)
    side = max(2.6 + cell * classes, 4.6)
    figure = new_figure(side + 0.6, side, layout="constrained")
    axes = figure.subplots()
    right, wrong = (theme().shades(colour) for colour in (theme().clean, theme().attacked))
    own, none = np.eye(classes, dtype=bool), counts == 0
    for hidden, colours in ((~own | none, right), (own | none, wrong)):
        axes.imshow(np.ma.masked_array(share, hidden), cmap=colours, vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        value = share[row, column]
        axes.text(
            column, row, f"{100 * value:.0f}" if value >= 0.01 else "<1", ha="center",
            va="center", fontsize=size,
            color=readable_on((right if row == column else wrong)(value)),
        )  # fmt: skip
    words = [class_word(label_names, label, 16, 2) for label in range(classes)]
    axes.set_xticks(range(classes), words, rotation=40, ha="right", parse_math=False)
    axes.set_yticks(range(classes), words, parse_math=False)
    axes.set(xlabel="predicted under attack", ylabel="true class")
    axes.set_title("Predicted classes under attack, in % of each class")
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=theme().line, lw=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return figure


def _commonest(
    clean: np.ndarray, attacked: np.ndarray, label_names: Sequence[str], count: int
) -> Drawing:
    """Bars of the most common confusions, each with its share on clean images."""
    from matplotlib.ticker import MaxNLocator

    wrong = np.where(np.eye(len(attacked), dtype=bool), 0, attacked)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [tuple(map(int, np.unravel_index(flat, wrong.shape))) for flat in order]
    pairs = [pair for pair in pairs if wrong[pair] > 0]
    under, before = (np.array([table[pair] for pair in pairs]) for table in (wrong, clean))
    # An image that is wrong without an attack is not attacked, so it is part of the bar.
    before = np.minimum(before, under)
    figure = new_figure(9, 1.6 + 0.36 * max(len(pairs), 2), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(pairs))
    axes.barh(
        rows, before, color=theme().neutral, alpha=0.6, label="misclassified without an attack"
    )
    axes.barh(rows, under - before, left=before, color=theme().attacked, label="under attack only")
    for row, pair in enumerate(pairs):
        share = under[row] / attacked[pair[0]].sum()
        axes.annotate(
            f"{under[row]}  ({share:.0%} of the class)", (under[row], row), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=theme().soft,
        )  # fmt: skip
    words = [" → ".join(class_word(label_names, label, 24) for label in pair) for pair in pairs]
    axes.set_yticks(rows, words, fontsize=9, parse_math=False)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="images")
    axes.set_xlim(0, 1.32 * max(under, default=1))
    axes.set_title("The most common confusions under attack: true class → predicted class")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, grid="x")
    figure.legend(frameon=False, fontsize=9, ncols=2, loc="outside lower center")
    return figure
