"""Accuracies as bars with their 95 % intervals: of one evaluation, or of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.chance import wilson
from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import new_figure, tidy
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Accuracy:
    """One accuracy: `correct` of `total` images."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """In [0, 1]."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return wilson(self.correct, self.total)


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of models (rows) under several conditions (columns).

    Attributes:
      columns: the conditions, in order.
      rows: model -> column -> accuracy; a model may lack some columns.
      title: of the figure.
      reported: column -> a score reported elsewhere, for comparison.
    """

    columns: Sequence[str]
    rows: Mapping[str, Mapping[str, Accuracy]]
    title: str
    reported: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.columns or not self.rows or not set(self.reported) <= set(self.columns):
            raise UsageError("Expected at least one model and one column to draw.")


@dataclass(frozen=True)
class ModelsSideBySide(Figure[Accuracies]):
    """Grouped bars, a group per column; reported scores as lines."""

    title: ClassVar[str] = "Models side by side"
    group: ClassVar[str] = "comparison"
    needs: ClassVar[type] = Accuracies

    def draw(self, data: Accuracies) -> Drawing:
        """Draws one bar for each accuracy."""
        count, width = len(data.rows), 0.8 / len(data.rows)
        figure = new_figure(max(6.0, 1.5 + len(data.columns) * (0.45 + 0.32 * count)), 4.4)
        axes = figure.subplots()
        colours = theme().series
        for place, (model, cells) in enumerate(data.rows.items()):
            at = [i for i, name in enumerate(data.columns) if name in cells]
            shift = (place - (count - 1) / 2) * width
            bars = [cells[data.columns[i]] for i in at]
            # The first colour means 'attacked'; here nothing is attacked.
            colour = colours[(place + 1) % len(colours)]
            _bars(axes, bars, np.array(at) + shift, width, colour, model)
        for name, value in data.reported.items():
            i = data.columns.index(name)
            label = "reported" if name == next(iter(data.reported)) else None
            axes.plot([i - 0.45, i + 0.45], [value, value], "--", color=theme().ink,
                      linewidth=1.3, label=label)  # fmt: skip
        axes.set_xticks(range(len(data.columns)), [_broken(name) for name in data.columns])
        axes.set(ylim=(0, 1), ylabel="accuracy")
        tidy(axes, "y")
        _head(axes, data.title)
        figure.tight_layout()
        return figure


@dataclass(frozen=True)
class AttackedAccuracies:
    """Accuracies of one model, clean and under each attack, in order."""

    bars: Mapping[str, Accuracy]
    title: str

    def __post_init__(self) -> None:
        if not self.bars:
            raise UsageError("Expected at least one accuracy to draw.")


@dataclass(frozen=True)
class RobustnessBars(Figure[AttackedAccuracies]):
    """Accuracy without attack and under each attack."""

    title: ClassVar[str] = "Robustness"
    group: ClassVar[str] = "summary"
    needs: ClassVar[type] = AttackedAccuracies

    def draw(self, data: AttackedAccuracies) -> Drawing:
        """Draws one bar for each accuracy."""
        figure = new_figure(max(5.0, 1.2 * len(data.bars)), 3.6, layout="constrained")
        axes = figure.subplots()
        for place, (name, one) in enumerate(data.bars.items()):
            colour = theme().clean if name == "clean" else theme().attacked
            _bars(axes, [one], np.array([place]), 0.8, colour, name, digits=3)
        axes.set_xticks(range(len(data.bars)), list(data.bars))
        axes.set(ylim=(0, 1.12), ylabel="accuracy, with 95 % interval")
        tidy(axes, "y")
        axes.set_title(data.title)
        return figure


def _head(axes: Axes, title: str) -> None:
    """The legend between the axes and their title, in as few rows as the width allows."""
    labels = axes.get_legend_handles_labels()[1]
    figure = axes.get_figure(root=True)
    assert figure is not None
    # Width in inches of a key with its gaps, and of a letter.
    wide = 0.7 + 0.09 * max(map(len, labels))
    across = min(len(labels), max(1, int((figure.get_figwidth() - 0.8) / wide)))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=across, frameon=False, fontsize=9)
    axes.set_title(title, loc="left", weight="bold", pad=12 + 16 * -(-len(labels) // across))


def _bars(
    axes: Axes, cells: Sequence[Accuracy], at: np.ndarray, width: float, colour: str, label: str,
    digits: int = 2,
) -> None:  # fmt: skip
    heights = np.array([cell.value for cell in cells])
    reach = np.array([cell.interval for cell in cells]).reshape(-1, 2)
    errors = np.maximum(np.stack([heights - reach[:, 0], reach[:, 1] - heights]), 0)
    axes.bar(at, heights, width * 0.92, color=colour, label=label)
    axes.errorbar(at, heights, errors, fmt="none", ecolor=theme().ink, elinewidth=0.9, capsize=2)
    box = {"facecolor": theme().ground, "edgecolor": "none", "pad": 0.6}
    for x, high, height in zip(at, reach[:, 1], heights, strict=True):
        axes.text(x, high + 0.012, f"{height:.{digits}f}".lstrip("0"), ha="center", fontsize=8,
                  bbox=box)  # fmt: skip


def _broken(name: str) -> str:
    """A column's name in short lines."""
    words = [word.replace("-", "-\n", 1) if len(word) > 12 else word for word in name.split()]
    return "\n".join(words)
