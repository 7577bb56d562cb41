"""Heat maps of a grid over two factors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.evaluation.figures_canvas import ATTACKED, new_figure, save
from tfrobust.search.figures_factors import accuracy_text, measured, values_of
from tfrobust.search.plan import OBJECTIVES, Search, finer, grid, key_of
from tfrobust.search.results import METRICS, Row, complete, ranked, shown
from tfrobust.search.space import Factor

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def grid_figure(
    search: Search,
    rows: Sequence[Row],
    pair: tuple[Factor, Factor],
    path: Path,
    *,
    turn: int = 0,
) -> Path:
    """Draws a heat map for each measured accuracy; the best cell of each is framed.

    With further factors a cell is its best trial by the objective. A dash stands where no
    trial came to its end.

    Args:
      search: what was searched.
      rows: its trials; those complete count.
      pair: the factors of the vertical and the horizontal axis.
      path: of the picture.
      turn: 0 for the first grid, 1 for the finer one after it, and so on.

    Returns:
      `path`.
    """
    done = of_round(search, complete(rows), turn)
    names = measured(done)
    down, across = pair
    sides = [len(values_of(done, factor)) for factor in pair]
    width, height = 0.85 * sides[1] + 1.1, 0.55 * sides[0] + 1.35
    figure = new_figure(max(len(names) * width, 5.0), height + 0.3, layout="constrained")
    panels: Any = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _map(axes, search, done, pair, name)
        axes.set_title(METRICS[name], fontsize=10.5)
        axes.set(xlabel=across.name, ylabel=down.name if axes is panels[0] else None)
    title = "Accuracy on the grid" if turn == 0 else f"Accuracy on the finer grid {turn}"
    rest = len([factor for factor in search.space if len(values_of(done, factor)) > 1]) > 2
    goal = " and ".join(METRICS[name] for name in OBJECTIVES[search.objective])
    title += f", of each cell the trial that is best by {goal}" if rest else ""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save(figure, path)


def of_round(search: Search, done: list[Row], turn: int) -> list[Row]:
    """The complete rows on the grid of a round, with those that earlier rounds had done."""
    space = search.space
    for number in range(turn):
        before = [row for row in done if row.round <= number]
        space = finer(space, ranked(before, search.objective)[0].point)
    keys = {key_of(point) for point in grid(space)}
    return [row for row in done if key_of(row.point) in keys and row.round <= turn]


def _map(
    axes: Axes, search: Search, done: list[Row], pair: tuple[Factor, Factor], name: str
) -> None:
    down, across = (values_of(done, factor) for factor in pair)
    found = np.full((len(down), len(across)), np.nan)
    for row in reversed(ranked(done, search.objective)):
        at = down.index(row.point[pair[0].name]), across.index(row.point[pair[1].name])
        found[at] = row.metrics[name]
    low, high = np.nanmin(found), np.nanmax(found)
    # A map of nearly equal values must not look like one of great differences.
    room = max(0.1 - (high - low), 0) / 2
    axes.imshow(found, cmap="Blues", vmin=low - room, vmax=high + room, aspect="auto",
                origin="lower")  # fmt: skip
    for (i, j), value in np.ndenumerate(found):
        dark = (value - low + room) > 0.6 * (high - low + 2 * room)
        text = "–" if np.isnan(value) else accuracy_text(value)
        axes.text(j, i, text, ha="center", va="center", fontsize=9,
                  color="white" if dark else "black")  # fmt: skip
    for i, j in np.argwhere(found == high):
        _frame(axes, float(i), float(j))
    axes.set_xticks(np.arange(1, len(across)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(down)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xticks(range(len(across)), [shown(value) for value in across], fontsize=8.5)
    axes.set_yticks(range(len(down)), [shown(value) for value in down], fontsize=8.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _frame(axes: Axes, i: float, j: float) -> None:
    from matplotlib.patches import Rectangle

    place = (j - 0.46, i - 0.44)
    axes.add_patch(Rectangle(place, 0.92, 0.88, fill=False, edgecolor=ATTACKED, linewidth=2.2))
