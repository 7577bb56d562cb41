"""The pictures of a search: which settings do what to which accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from tfrobust.search.figures_factors import factor_figure, values_of
from tfrobust.search.figures_grid import grid_figure
from tfrobust.search.figures_trials import parallel_figure, pareto_figure, ranking_figure
from tfrobust.search.plan import Search
from tfrobust.search.results import Row, complete

__all__ = [
    "factor_figure",
    "grid_figure",
    "parallel_figure",
    "pareto_figure",
    "ranking_figure",
    "search_figures",
]

# A picture of two factors for each pair, up to so many factors.
_PAIRS_UP_TO = 3
_FEW = 3


def search_figures(search: Search, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draws what applies to the trials that were measured.

    `grid_1.png` (and `grid_2.png` for the finer grid after it, and so on): heat maps of a
    grid, for each pair of at most three factors; `factor_NAME.png`: lines or bars against
    one factor; `trials.png`: bars of the best; `parallel.png`: all factors of all trials;
    `pareto.png`: clean against robust accuracy.

    Returns:
      The files written.

    Raises:
      TFRobustError: the folder cannot be written.
    """
    done = complete(rows)
    varied = [factor for factor in search.space if len(values_of(done, factor)) > 1]
    files = [
        factor_figure(search, rows, factor, folder / f"factor_{factor.name}.png")
        for factor in varied
    ]
    if done:
        files.append(ranking_figure(search, rows, folder / "trials.png"))
    if search.sampler == "grid" and not search.one_at_a_time and len(varied) <= _PAIRS_UP_TO:
        for turn, pair in itertools.product(
            sorted({row.round for row in done}), itertools.combinations(varied, 2)
        ):
            names = "".join(f"_{factor.name}" for factor in pair) if len(varied) > 2 else ""
            path = folder / f"grid_{turn + 1}{names}.png"
            files.append(grid_figure(search, rows, pair, path, turn=turn))
    if len(done) >= _FEW:
        if len(varied) > 1:
            files.append(parallel_figure(search, rows, folder / "parallel.png"))
        if all("robust" in row.metrics for row in done):
            files.append(pareto_figure(rows, folder / "pareto.png"))
    return files
