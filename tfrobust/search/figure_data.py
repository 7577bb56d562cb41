"""Data for the figures of a search: the effect of each setting on each accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from tfrobust.figures import draw_figures
from tfrobust.figures.factor import FactorScores
from tfrobust.figures.grid import GridScores
from tfrobust.figures.trials import Ranking, TrialAxis, TrialLines, TrialPairs
from tfrobust.search.plan import OBJECTIVES, Search, finer, grid, key_of
from tfrobust.search.results import METRICS, Row, complete, format_value, front, ranked
from tfrobust.search.space import WEIGHTS, Factor, Value, base_value, spaced

# A figure of two factors for each pair, up to this many factors.
_PAIRS_UP_TO = 3
_FEW = 3
# Trials in the ranking, and the largest number of values of a factor that all get a tick.
_RANKED, _TICKS = 12, 8
#: Caption of a line -> value of the factor -> the trial that is drawn for it.
Lines = dict[str, dict[Value, Row]]


def search_figures(search: Search, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draws the figures that apply to the trials that were measured.

    `grid_1.png` (and `grid_2.png` for the finer grid after it, and so on): heat maps of a grid,
    for each pair of at most three factors; `factor_NAME.png`: lines or bars against one factor;
    `trials.png`: bars of the best; `parallel.png`: all factors of all trials; `pareto.png`:
    clean against robust accuracy.

    Returns:
      The files written.

    Raises:
      TFRobustError: the folder cannot be written.
    """
    done = complete(rows)
    varied = [factor for factor in search.space if len(values_of(done, factor)) > 1]
    files: list[Path] = []
    for factor in varied:
        files += draw_figures(factor_scores(search, rows, factor), folder, factor.name)
    if done:
        files += draw_figures(ranking(search, rows), folder)
    if search.sampler == "grid" and not search.one_at_a_time and len(varied) <= _PAIRS_UP_TO:
        for turn, pair in itertools.product(
            sorted({row.round for row in done}), itertools.combinations(varied, 2)
        ):
            names = "".join(f"_{factor.name}" for factor in pair) if len(varied) > 2 else ""
            data = grid_scores(search, rows, pair, turn=turn)
            files += draw_figures(data, folder, f"{turn + 1}{names}")
    if len(done) >= _FEW:
        if len(varied) > 1:
            files += draw_figures(trial_lines(search, rows), folder)
        if all("robust" in row.metrics for row in done):
            files += draw_figures(trial_pairs(rows), folder)
    return files


def values_of(rows: Sequence[Row], factor: Factor) -> list[Value]:
    """The values of a factor that were tried, in order: numbers ascending, words as given."""
    found = list(dict.fromkeys(row.point[factor.name] for row in rows))
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in found):
        return sorted(found, key=lambda v: float(cast(float, v)))
    order = {value: i for i, value in enumerate(factor.values)}
    return sorted(found, key=lambda value: order.get(value, len(order)))


def measured(rows: Sequence[Row]) -> list[str]:
    """The metrics that all of the rows have."""
    return [name for name in METRICS if rows and all(name in row.metrics for row in rows)]


def _objective(search: Search) -> str:
    return " and ".join(METRICS[name] for name in OBJECTIVES[search.objective])


def factor_scores(search: Search, rows: Sequence[Row], factor: Factor) -> FactorScores:
    """Every measured accuracy against a factor.

    If the initialisation is among the factors, each of its values has a line. If one factor was
    varied at a time, the others are as in the recipe; otherwise, and if no complete trial has
    them so, a point is the best trial, by the objective, among those with its value.

    Args:
      search: the search.
      rows: its trials; only complete ones count.
      factor: the one on the horizontal axis.
    """
    # If no trial has the others as in the recipe, because its values are not among those tried,
    # the best of all trials with each value is drawn.
    alike = _comparable(search, complete(rows), factor)
    done = alike or complete(rows)
    names, lines, values = measured(done), _lines(search, done, factor), values_of(done, factor)
    how = _alone(search, factor) if search.one_at_a_time and alike else _best(search, done, lines)
    numbers = [cast(float, value) for value in values] if factor.numeric else None
    return FactorScores(
        factor.name, how, [format_value(value) for value in values], numbers,
        [METRICS[name] for name in names],
        {
            caption: {values.index(value): [row.metrics[name] for name in names]
                      for value, row in line.items()}
            for caption, line in lines.items()
        },
        logarithmic=bool(numbers and factor.geometric and min(numbers) > 0),
        drawn=factor.low is not None and search.sampler != "grid",
    )  # fmt: skip


def _alone(search: Search, factor: Factor) -> str:
    """A caption for the points of a factor that was varied alone."""
    start = initialisation(search)
    # A crossed factor has its own lines only if it is the initialisation.
    known = (None, factor.name, start.name if start else None)
    crossed = "" if search.cross in known else f", the best {search.cross}"
    return f"the other factors as in the recipe{crossed}"


def _best(search: Search, done: list[Row], lines: Lines) -> str:
    """A caption for points at which the other factors vary too."""
    if sum(map(len, lines.values())) == len(done):
        return f"all {len(done)} trials"
    return f"for each value the best trial by {_objective(search)} accuracy"


def initialisation(search: Search) -> Factor | None:
    """The factor that sets the network's initial weights, if there is one."""
    return next((factor for factor in search.space if factor.setting == WEIGHTS), None)


def _comparable(search: Search, done: list[Row], factor: Factor) -> list[Row]:
    """All rows; if one factor is varied at a time, those with the others as in the recipe."""
    if not search.one_at_a_time:
        return done
    crossed = {factor.name, search.cross}
    fixed = {f.name: base_value(search.config, f) for f in search.space if f.name not in crossed}
    kept = [row for row in done if all(row.point[k] == v for k, v in fixed.items())]
    # The recipe's own value is a point of every factor, but not an end of any.
    inside = [row for row in kept if row.point[factor.name] in factor.values]
    return inside or kept


def _lines(search: Search, done: list[Row], factor: Factor) -> Lines:
    """The best row for each line and value."""
    start, lines = initialisation(search), cast(Lines, {})
    for row in reversed(ranked(done, search.objective)):
        split = start is not None and start is not factor
        caption = _start(row.point[start.name]) if split and start else ""
        lines.setdefault(caption, {})[row.point[factor.name]] = row
    order = [_start(value) for value in start.values] if start else []
    return dict(sorted(lines.items(), key=lambda line: line[0] not in order or
                       order.index(line[0])))  # fmt: skip


def _start(value: Value) -> str:
    """A network's initial weights, as a caption."""
    words = {"none": "from scratch", "imagenet": "from ImageNet"}
    return words.get(str(value), f"from {format_value(value)}")


def grid_scores(
    search: Search, rows: Sequence[Row], pair: tuple[Factor, Factor], *, turn: int = 0
) -> GridScores:
    """Each measured accuracy on a grid of two factors.

    If there are further factors, a cell is its best trial by the objective.

    Args:
      search: the search.
      rows: its trials; only complete ones count.
      pair: the factors of the vertical and the horizontal axis.
      turn: 0 for the first grid, 1 for the finer one after it, and so on.
    """
    done = of_round(search, complete(rows), turn)
    down, across = (values_of(done, factor) for factor in pair)
    maps = {name: np.full((len(down), len(across)), np.nan) for name in measured(done)}
    for row in reversed(ranked(done, search.objective)):
        at = down.index(row.point[pair[0].name]), across.index(row.point[pair[1].name])
        for name, values in maps.items():
            values[at] = row.metrics[name]
    title = "Accuracy on the grid" if turn == 0 else f"Accuracy on the finer grid {turn}"
    rest = len([factor for factor in search.space if len(values_of(done, factor)) > 1]) > 2
    title += f", for each cell the best trial by {_objective(search)}" if rest else ""
    return GridScores(
        title, pair[0].name, pair[1].name,
        [format_value(value) for value in down], [format_value(value) for value in across],
        {METRICS[name]: values for name, values in maps.items()},
    )  # fmt: skip


def of_round(search: Search, done: list[Row], turn: int) -> list[Row]:
    """The complete rows on the grid of a round, including those that earlier rounds ran."""
    space = search.space
    for number in range(turn):
        before = [row for row in done if row.round <= number]
        space = finer(space, ranked(before, search.objective)[0].point)
    keys = {key_of(point) for point in grid(space)}
    return [row for row in done if key_of(row.point) in keys and row.round <= turn]


def ranking(search: Search, rows: Sequence[Row]) -> Ranking:
    """The best trials in descending order."""
    best = ranked(rows, search.objective)[:_RANKED]
    goal, *_ = OBJECTIVES[search.objective]
    names = dict.fromkeys([goal, *measured(best)])
    count = len(complete(rows))
    title = f"The best {len(best)} of {count} trials" if count > len(best) else "All trials, ranked"
    title += " by the sum of both" if search.objective == "pareto" else ""
    scores = {METRICS[name]: [row.metrics[name] for row in best] for name in names}
    return Ranking(title, [_label(search, best, row) for row in best], METRICS[goal], scores)


def _label(search: Search, rows: Sequence[Row], row: Row) -> str:
    """The values that distinguish this trial from the others."""
    varied = [f.name for f in search.space if len(values_of(rows, f)) > 1]
    return (
        ", ".join(f"{name} {format_value(row.point[name])}" for name in varied)
        or f"trial {row.trial}"
    )


def trial_lines(search: Search, rows: Sequence[Row]) -> TrialLines:
    """All trials across all factors that vary and all accuracies, the best last."""
    order = ranked(rows, search.objective)[::-1]
    factors = [f for f in search.space if len(values_of(order, f)) > 1]
    axes = [
        TrialAxis(factor.name, _places(factor, order), *_ticks(factor, order)) for factor in factors
    ]
    ticks = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for name in measured(order):
        heights = np.array([row.metrics[name] for row in order])
        words = METRICS[name].replace(" ", "\n", 1)
        axes.append(TrialAxis(words, heights, ticks, [f"{tick:g}" for tick in ticks]))
    return TrialLines(axes, _objective(search))


def _places(factor: Factor, rows: Sequence[Row]) -> np.ndarray:
    """Where each row crosses the factor's axis, in [0, 1]."""
    values = values_of(rows, factor)
    if not factor.numeric:
        step = max(len(values) - 1, 1)
        return np.array([values.index(row.point[factor.name]) / step for row in rows])
    numbers = np.array([cast(float, row.point[factor.name]) for row in rows], float)
    low, high = numbers.min(), numbers.max()
    if factor.geometric and low > 0:
        return cast(np.ndarray, np.log(numbers / low) / np.log(high / low))
    return cast(np.ndarray, (numbers - low) / (high - low))


def _ticks(factor: Factor, rows: Sequence[Row]) -> tuple[np.ndarray, list[str]]:
    """Positions and labels: the values, or, if there are many, five evenly spaced ones."""
    values = values_of(rows, factor)
    if factor.numeric and len(values) > _TICKS:
        low, high = cast(float, values[0]), cast(float, values[-1])
        log = factor.geometric and low > 0
        between = spaced(low, high, 5, log=log, integer=factor.integer)
        found = np.array(between, float)
        part = np.log(found / low) / np.log(high / low) if log else (found - low) / (high - low)
        return part, [format_value(value) for value in between]
    firsts = [next(row for row in rows if row.point[factor.name] == value) for value in values]
    places = _places(factor, firsts)
    kept = [0]
    for i, place in enumerate(places):
        if place - places[kept[-1]] >= 0.09:
            kept.append(i)
    return places[kept], [format_value(values[i]) for i in kept]


def trial_pairs(rows: Sequence[Row]) -> TrialPairs:
    """Clean and robust accuracy of all trials, with the Pareto front separate."""
    best = front(rows)
    kept = {row.trial for row in best}
    rest = [_pair(row) for row in complete(rows) if row.trial not in kept]
    return TrialPairs({row.trial: _pair(row) for row in best}, rest)


def _pair(row: Row) -> tuple[float, float]:
    return row.metrics["clean"], row.metrics["robust"]
