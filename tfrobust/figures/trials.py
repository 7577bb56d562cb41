"""All trials of a search in one figure: bars of the best, parallel coordinates, Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.factor import accuracy_text, search_colours
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import new_figure, tidy
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Ranking:
    """The best trials in descending order.

    Attributes:
      title: of the figure.
      labels: what distinguishes each trial from the others.
      goal: the metric of the bars.
      scores: metric -> accuracies, one per trial; includes `goal`.
    """

    title: str
    labels: Sequence[str]
    goal: str
    scores: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        if not self.labels or self.goal not in self.scores:
            raise UsageError(f"Expected at least one trial with its {self.goal} accuracy.")


@dataclass(frozen=True)
class BestTrials(Figure[Ranking]):
    """The best trials as bars, in descending order; other accuracies as dots."""

    title: ClassVar[str] = "The best trials"
    group: ClassVar[str] = "search"
    needs: ClassVar[type] = Ranking

    def draw(self, data: Ranking) -> Drawing:
        """Draws one row per trial."""
        wide, count = 0.075 * max(map(len, data.labels)), len(data.labels)
        figure = new_figure(wide + 4.6, 0.3 * count + 1.5, layout="constrained")
        axes = figure.subplots()
        places, goal, blue = np.arange(count), data.scores[data.goal], theme().clean
        axes.barh(places, goal, 0.62, color=blue, label=data.goal)
        for value, place in zip(goal, places, strict=True):
            axes.text(1.02, float(place), accuracy_text(value), va="center", color=blue,
                      fontsize=9, weight="bold")  # fmt: skip
        others = [name for name in data.scores if name != data.goal]
        for name, colour, marker in zip(others, search_colours()[1:], "oDs", strict=False):
            axes.plot(data.scores[name], places, marker, color=colour, ms=5.5,
                      markeredgecolor=theme().ground, markeredgewidth=0.7, clip_on=False,
                      label=name)  # fmt: skip
        axes.set_yticks(places, list(data.labels), fontsize=8.5)
        axes.set(xlim=(0, 1), ylim=(count - 0.5, -0.5), xlabel="accuracy")
        tidy(axes, "x")
        axes.tick_params("y", length=0)
        figure.suptitle(data.title, x=0.01, ha="left", fontsize=11)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        return figure


@dataclass(frozen=True)
class TrialAxis:
    """One axis of the parallel coordinates.

    Attributes:
      name: the label below it.
      heights: float [T], where each trial crosses it, in [0, 1].
      ticks: float [M], in [0, 1].
      labels: one per tick.
    """

    name: str
    heights: np.ndarray
    ticks: np.ndarray
    labels: Sequence[str]


@dataclass(frozen=True)
class TrialLines:
    """All trials with all their factors and accuracies, the best last.

    Attributes:
      axes: from the left.
      goal: the metric that orders them.
    """

    axes: Sequence[TrialAxis]
    goal: str

    def __post_init__(self) -> None:
        if len({len(one.heights) for one in self.axes}) != 1 or not len(self.axes[0].heights):
            raise UsageError("Expected the same number of trials on every axis, at least 1.")


@dataclass(frozen=True)
class ParallelTrials(Figure[TrialLines]):
    """One line per trial through all its factors and accuracies.

    The stronger the colour, the better; the best is vermilion.
    """

    title: ClassVar[str] = "All trials"
    group: ClassVar[str] = "search"
    needs: ClassVar[type] = TrialLines

    def draw(self, data: TrialLines) -> Drawing:
        """Draws the lines, from the worst to the best."""
        count = len(data.axes)
        figure = new_figure(max(1.65 * count + 0.6, 5.2), 4.0, layout="constrained")
        axes = figure.subplots()
        heights = np.stack([one.heights for one in data.axes], axis=1)
        shades = theme().shades(theme().clean)(np.linspace(0.25, 1, len(heights)))
        for i, line in enumerate(heights):
            best = i == len(heights) - 1
            axes.plot(range(count), line, color=theme().attacked if best else shades[i],
                      lw=2.6 if best else 1.2, zorder=2 if best else 1)  # fmt: skip
        for at, one in enumerate(data.axes):
            _upright(axes, at, one)
        axes.set_xticks(range(count), [one.name for one in data.axes], fontsize=9.5)
        axes.set(xlim=(-0.35, count - 0.85), ylim=(-0.04, 1.04), yticks=[])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        title = f"{len(heights)} trials: stronger is better by {data.goal} accuracy, the best is "
        figure.suptitle(f"{title}vermilion", x=0.01, ha="left", fontsize=11)
        return figure


def _upright(axes: Axes, at: int, one: TrialAxis) -> None:
    axes.plot([at, at], [0, 1], color=theme().soft, lw=1, zorder=3)
    box = {"facecolor": theme().ground, "alpha": 0.75, "pad": 0.6, "lw": 0}
    for place, label in zip(one.ticks, one.labels, strict=True):
        axes.text(at - 0.05, float(place), label, ha="right", va="center", fontsize=8.5, zorder=4,
                  bbox=box)  # fmt: skip


@dataclass(frozen=True)
class TrialPairs:
    """Clean and robust accuracy of all trials.

    Attributes:
      front: number -> (clean, robust) of the trials that no other beats in both, by ascending
        clean accuracy.
      rest: (clean, robust) of the others.
    """

    front: Mapping[int, tuple[float, float]]
    rest: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        if not self.front:
            raise UsageError("Expected at least one trial, found none.")


@dataclass(frozen=True)
class ParetoFront(Figure[TrialPairs]):
    """Clean against robust accuracy of all trials; the front is joined and numbered."""

    title: ClassVar[str] = "Clean against robust accuracy"
    group: ClassVar[str] = "search"
    needs: ClassVar[type] = TrialPairs

    def draw(self, data: TrialPairs) -> Drawing:
        """Draws one dot per trial."""
        figure = new_figure(5.6, 4.6, layout="constrained")
        axes = figure.subplots()
        if data.rest:
            axes.plot(*np.transpose(data.rest), "o", color=theme().neutral, ms=5, alpha=0.6,
                      clip_on=False)  # fmt: skip
        x, y = np.transpose(list(data.front.values()))
        axes.step(x, y, where="pre", color=theme().attacked, lw=1.6, zorder=2)
        axes.plot(x, y, "o", color=theme().attacked, ms=7, zorder=3, clip_on=False)
        for number in _apart(data):
            axes.annotate(str(number), data.front[number], xytext=(6, 5), fontsize=9,
                          textcoords="offset points", color=theme().wrong)  # fmt: skip
        axes.set(xlabel="clean accuracy", ylabel="robust accuracy (PGD)")
        axes.margins(0.1)
        tidy(axes)
        count = len(data.front) + len(data.rest)
        axes.set_title(f"{count} trials; numbered: no other is better in both", loc="left",
                       fontsize=11)  # fmt: skip
        return figure


def _apart(data: TrialPairs) -> list[int]:
    """The trials of the front whose numbers do not overlap the previous one."""
    spans = np.ptp([*data.front.values(), *data.rest], axis=0)
    kept: list[int] = []
    for number, pair in data.front.items():
        steps = np.abs(np.subtract(pair, data.front[kept[-1]])) if kept else spans + 1
        if np.any(steps > 0.05 * spans):
            kept.append(number)
    return kept
