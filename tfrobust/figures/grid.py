"""Heat maps of a grid over two factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.factor import accuracy_text
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import new_figure
from tfrobust.figures.style import readable_on, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class GridScores:
    """Accuracies on a grid of two factors.

    Attributes:
      title: of the figure.
      down: name of the factor on the vertical axis.
      across: name of the factor on the horizontal axis.
      down_values: as text, from the bottom.
      across_values: as text, from the left.
      maps: metric -> float [down, across]; NaN where no trial was completed.
    """

    title: str
    down: str
    across: str
    down_values: Sequence[str]
    across_values: Sequence[str]
    maps: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        shape = len(self.down_values), len(self.across_values)
        if not self.maps or any(one.shape != shape for one in self.maps.values()):
            raise UsageError(f"Expected at least one map {shape} of the grid.")


@dataclass(frozen=True)
class GridMaps(Figure[GridScores]):
    """A heat map for each measured accuracy; its best cell is framed."""

    title: ClassVar[str] = "Accuracy on the grid"
    group: ClassVar[str] = "search"
    needs: ClassVar[type] = GridScores

    def draw(self, data: GridScores) -> Drawing:
        """Draws the maps side by side."""
        width, height = 0.85 * len(data.across_values) + 1.1, 0.55 * len(data.down_values) + 1.35
        figure = new_figure(max(len(data.maps) * width, 5.0), height + 0.3, layout="constrained")
        panels: Any = figure.subplots(1, len(data.maps), squeeze=False)[0]
        for axes, (name, values) in zip(panels, data.maps.items(), strict=True):
            _map(axes, data, values)
            axes.set_title(name, fontsize=10.5)
            axes.set(xlabel=data.across, ylabel=data.down if axes is panels[0] else None)
        figure.suptitle(data.title, x=0.01, ha="left", fontsize=11)
        return figure


def _map(axes: Axes, data: GridScores, values: np.ndarray) -> None:
    low, high = np.nanmin(values), np.nanmax(values)
    # A map of nearly equal values must not look like one with large differences.
    room = max(0.1 - (high - low), 0) / 2
    shades, span = theme().shades(theme().clean), high - low + 2 * room
    axes.imshow(values, cmap=shades, vmin=low - room, vmax=high + room, aspect="auto",
                origin="lower")  # fmt: skip
    for (i, j), value in np.ndenumerate(values):
        ground = theme().ground if np.isnan(value) else shades((value - low + room) / span)
        text = "–" if np.isnan(value) else accuracy_text(value)
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color=readable_on(ground))
    for i, j in np.argwhere(values == high):
        _frame(axes, float(i), float(j))
    axes.set_xticks(np.arange(1, len(data.across_values)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(data.down_values)) - 0.5, minor=True)
    axes.grid(which="minor", color=theme().ground, linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xticks(range(len(data.across_values)), list(data.across_values), fontsize=8.5)
    axes.set_yticks(range(len(data.down_values)), list(data.down_values), fontsize=8.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _frame(axes: Axes, i: float, j: float) -> None:
    from matplotlib.patches import Rectangle

    place, colour = (j - 0.46, i - 0.44), theme().attacked
    axes.add_patch(Rectangle(place, 0.92, 0.88, fill=False, edgecolor=colour, linewidth=2.2))
