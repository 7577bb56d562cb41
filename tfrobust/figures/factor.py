"""Accuracy against one factor: lines if its values are numbers, bars if they are words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import MARKERS, new_figure, spread_ticks, tidy
from tfrobust.figures.style import SMALLEST, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class FactorScores:
    """Accuracies of a search against one factor.

    Attributes:
      factor: its name.
      how: a description of the trials behind the points.
      values: of the factor, as text, in order.
      numbers: the same as numbers; None if they are words.
      metrics: the measured metrics, one panel each.
      lines: caption -> index of a value in `values` -> accuracies, one per metric.
      logarithmic: whether the values are spaced in ratios rather than in differences.
      drawn: whether they were sampled from a range, in which case points are not joined.
    """

    factor: str
    how: str
    values: Sequence[str]
    numbers: Sequence[float] | None
    metrics: Sequence[str]
    lines: Mapping[str, Mapping[int, Sequence[float]]]
    logarithmic: bool = False
    drawn: bool = False

    def __post_init__(self) -> None:
        if not self.metrics or not any(self.lines.values()):
            raise UsageError(f"Expected at least one measured trial of {self.factor}, found none.")


@dataclass(frozen=True)
class AgainstFactor(Figure[FactorScores]):
    """Every measured accuracy against a factor, one panel per accuracy."""

    title: ClassVar[str] = "Accuracy against a setting"
    group: ClassVar[str] = "search"
    needs: ClassVar[type] = FactorScores

    def draw(self, data: FactorScores) -> Drawing:
        """Draws the panels side by side."""
        names = data.metrics
        figure = new_figure(max(3.3 * len(names) + 0.6, 4.6), 3.7)
        # Tick labels of neighbouring panels must not touch.
        figure.set_layout_engine("constrained", wspace=0.06)
        panels: Any = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for metric, (axes, name) in enumerate(zip(panels, names, strict=True)):
            (_bars if data.numbers is None else _curves)(axes, data, metric)
            axes.set_title(name, fontsize=10.5)
            axes.set_xlabel(data.factor)
        panels[0].set_ylabel("accuracy")
        if data.numbers is None:
            # Bars start at 0, with room for a number above the highest.
            panels[0].set(ylim=(0, 1.08), yticks=np.linspace(0, 1, 6))
        else:
            found = [value for line in data.lines.values() for one in line.values()
                     for value in one]  # fmt: skip
            panels[0].set_ylim(_limits(found))
        figure.suptitle(
            f"Accuracy against {data.factor}: {data.how}", x=0.01, ha="left", fontsize=11
        )
        if len(data.lines) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False,
                          fontsize=9)  # fmt: skip
        if data.numbers is not None and len(data.numbers) <= 10:
            for axes in panels:
                spread_ticks(axes, data.numbers, data.values)
        return figure


def search_colours() -> tuple[str, ...]:
    """The colours of a search's curves; the first colour of an evaluation's means 'attacked'."""
    first, second, *others = theme().series
    return (second, first, *others)


def _curves(axes: Axes, data: FactorScores, metric: int) -> None:
    assert data.numbers is not None
    colours = search_colours()
    for i, (caption, line) in enumerate(data.lines.items()):
        look: dict[str, Any] = {"color": colours[i % len(colours)], "label": caption}
        if data.drawn:
            look |= {"ls": "none", "alpha": 0.7}
        x = [data.numbers[place] for place in sorted(line)]
        y = [line[place][metric] for place in sorted(line)]
        axes.plot(x, y, marker=MARKERS[i % len(MARKERS)], ms=5, lw=1.8, clip_on=False, **look)
    axes.set_xscale("log" if data.logarithmic else "linear")
    axes.tick_params("x", labelsize=8.5)
    tidy(axes)


def _bars(axes: Axes, data: FactorScores, metric: int) -> None:
    width, colours = 0.8 / len(data.lines), search_colours()
    for i, (caption, line) in enumerate(data.lines.items()):
        at = [place + (i - (len(data.lines) - 1) / 2) * width for place in sorted(line)]
        heights = [line[place][metric] for place in sorted(line)]
        bars = axes.bar(at, heights, width * 0.92, color=colours[i % len(colours)], label=caption)
        crowded = len(data.values) * len(data.lines) > 8
        axes.bar_label(bars, fmt=accuracy_text, fontsize=SMALLEST, padding=1.5,
                       rotation=90 if crowded else 0)  # fmt: skip
    turned = sum(map(len, data.values)) > 34
    axes.set_xticks(range(len(data.values)), list(data.values), fontsize=8.5,
                    rotation=25 if turned else 0, ha="right" if turned else "center")  # fmt: skip
    tidy(axes, "y")


def accuracy_text(value: float) -> str:
    """An accuracy in a figure: '.523', '1.0'."""
    return f"{value:.3f}".lstrip("0") if value < 0.9995 else "1.0"


def _limits(values: list[float]) -> tuple[float, float]:
    """Whole tenths around the values; from 0 if they go below a quarter."""
    low, high = min(values), max(values)
    bottom = 0.0 if low < 0.25 else math.floor(low * 10 - 0.2) / 10
    return bottom, min(1.0, math.ceil(high * 10 + 0.2) / 10)
