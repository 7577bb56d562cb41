"""All trials in one picture: bars of the best, parallel coordinates, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from tfrobust.evaluation.figures_canvas import ATTACKED, CLEAN, NEUTRAL, new_figure, save, tidy
from tfrobust.search.figures_factors import COLOURS, accuracy_text, measured, values_of
from tfrobust.search.plan import OBJECTIVES, Search
from tfrobust.search.results import METRICS, Row, complete, front, ranked, shown
from tfrobust.search.space import Factor, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 12
_TICKS = 8


def ranking_figure(search: Search, rows: Sequence[Row], path: Path) -> Path:
    """Draws the best trials as bars, the best at the top; other accuracies as dots.

    Returns:
      `path`.
    """
    best = ranked(rows, search.objective)[:_SHOWN]
    goal, *_ = OBJECTIVES[search.objective]
    others = [name for name in measured(best) if name != goal]
    labels = [_label(search, best, row) for row in best]
    wide = 0.075 * max(map(len, labels))
    figure = new_figure(wide + 4.6, 0.3 * len(best) + 1.5, layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(best))
    axes.barh(places, [row.metrics[goal] for row in best], 0.62, color=CLEAN, label=METRICS[goal])
    for row, place in zip(best, places, strict=True):
        axes.text(1.02, float(place), accuracy_text(row.metrics[goal]), va="center",
                  color=CLEAN, fontsize=9, weight="bold")  # fmt: skip
    for name, colour, marker in zip(others, COLOURS[1:], "oDs", strict=False):
        axes.plot([row.metrics[name] for row in best], places, marker, color=colour, ms=5.5,
                  markeredgecolor="white", markeredgewidth=0.7, clip_on=False,
                  label=METRICS[name])  # fmt: skip
    axes.set_yticks(places, labels, fontsize=8.5)
    axes.set(xlim=(0, 1), ylim=(len(best) - 0.5, -0.5), xlabel="accuracy")
    tidy(axes, "x")
    axes.tick_params("y", length=0)
    count = len(complete(rows))
    title = f"The best {len(best)} of {count} trials" if count > len(best) else "All trials, ranked"
    title += " by the sum of both" if search.objective == "pareto" else ""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return save(figure, path)


def _label(search: Search, rows: Sequence[Row], row: Row) -> str:
    """The values that tell this trial from the others."""
    varied = [f.name for f in search.space if len(values_of(rows, f)) > 1]
    return ", ".join(f"{name} {shown(row.point[name])}" for name in varied) or f"trial {row.trial}"


def parallel_figure(search: Search, rows: Sequence[Row], path: Path) -> Path:
    """Draws a line for each trial through all its factors and accuracies.

    The darker, the better by the objective; the best is vermilion.

    Returns:
      `path`.
    """
    order = ranked(rows, search.objective)[::-1]
    factors = [f for f in search.space if len(values_of(order, f)) > 1]
    metrics = measured(order)
    columns = [_place_factor(factor, order) for factor in factors]
    columns += [np.array([row.metrics[name] for row in order]) for name in metrics]
    figure = new_figure(max(1.65 * len(columns) + 0.6, 5.2), 4.0, layout="constrained")
    axes = figure.subplots()
    _draw_lines(axes, np.stack(columns, axis=1))
    for at, factor in enumerate(factors):
        axis_line(axes, at, *_ticks(factor, order))
    for at, _ in enumerate(metrics, len(factors)):
        ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
        axis_line(axes, at, np.array(ticks), [f"{tick:g}" for tick in ticks])
    names = [f.name for f in factors] + [METRICS[name].replace(" ", "\n", 1) for name in metrics]
    axes.set_xticks(range(len(names)), names, fontsize=9.5)
    axes.set(xlim=(-0.35, len(columns) - 0.85), ylim=(-0.04, 1.04), yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    goal = " and ".join(METRICS[name] for name in OBJECTIVES[search.objective])
    title = f"{len(order)} trials: darker is better by {goal} accuracy, the best is vermilion"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save(figure, path)


def _draw_lines(axes: Axes, heights: np.ndarray) -> None:
    """The lines [trials, axes], from the worst to the best."""
    from matplotlib import colormaps

    shades = colormaps["Blues"](np.linspace(0.25, 0.9, len(heights)))
    for i, line in enumerate(heights):
        best = i == len(heights) - 1
        axes.plot(range(len(line)), line, color=ATTACKED if best else shades[i],
                  lw=2.6 if best else 1.2, zorder=2 if best else 1)  # fmt: skip


def axis_line(axes: Axes, at: int, places: np.ndarray, labels: list[str]) -> None:
    """A vertical axis at `at` with its own ticks, places in [0, 1]."""
    axes.plot([at, at], [0, 1], color="0.35", lw=1, zorder=3)
    for place, label in zip(places, labels, strict=True):
        axes.text(at - 0.05, float(place), label, ha="right", va="center", fontsize=8, zorder=4,
                  bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.6, "lw": 0})  # fmt: skip


def _place_factor(factor: Factor, rows: Sequence[Row]) -> np.ndarray:
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
    """Places and labels: the values, or of many five between the ends in equal distances."""
    values = values_of(rows, factor)
    if factor.numeric and len(values) > _TICKS:
        low, high = cast(float, values[0]), cast(float, values[-1])
        log = factor.geometric and low > 0
        between = spaced(low, high, 5, log=log, integer=factor.integer)
        found = np.array(between, float)
        part = np.log(found / low) / np.log(high / low) if log else (found - low) / (high - low)
        return part, [shown(value) for value in between]
    firsts = [next(row for row in rows if row.point[factor.name] == value) for value in values]
    places = _place_factor(factor, firsts)
    kept = [0]
    for i, place in enumerate(places):
        if place - places[kept[-1]] >= 0.09:
            kept.append(i)
    return places[kept], [shown(values[i]) for i in kept]


def pareto_figure(rows: Sequence[Row], path: Path) -> Path:
    """Draws clean against robust accuracy of all trials; the front is joined and numbered.

    Returns:
      `path`.
    """
    done, best = complete(rows), front(rows)
    figure = new_figure(5.6, 4.6, layout="constrained")
    axes = figure.subplots()
    kept = {row.trial for row in best}
    rest = [_pair(row) for row in done if row.trial not in kept]
    if rest:
        axes.plot(*np.transpose(rest), "o", color=NEUTRAL, ms=5, alpha=0.6, clip_on=False)
    x, y = np.transpose([_pair(row) for row in best])
    axes.step(x, y, where="pre", color=ATTACKED, lw=1.6, zorder=2)
    axes.plot(x, y, "o", color=ATTACKED, ms=7, zorder=3, clip_on=False)
    for row in _apart(best, done):
        axes.annotate(str(row.trial), _pair(row), xytext=(6, 5), textcoords="offset points",
                      fontsize=9, color=ATTACKED)  # fmt: skip
    axes.set(xlabel="clean accuracy", ylabel="robust accuracy (PGD)")
    axes.margins(0.1)
    tidy(axes)
    axes.set_title(f"{len(done)} trials; numbered: no other is better in both", loc="left",
                   fontsize=11)  # fmt: skip
    return save(figure, path)


def _apart(best: Sequence[Row], done: Sequence[Row]) -> list[Row]:
    """Those of the front whose numbers do not run into the number before."""
    spans = np.ptp([_pair(row) for row in done], axis=0)
    kept: list[Row] = []
    for row in best:
        steps = np.abs(np.subtract(_pair(row), _pair(kept[-1]))) if kept else spans + 1
        if np.any(steps > 0.05 * spans):
            kept.append(row)
    return kept


def _pair(row: Row) -> tuple[float, float]:
    return row.metrics["clean"], row.metrics["robust"]
