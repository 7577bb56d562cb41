"""Accuracy against one factor: lines where its values are numbers, bars where they are words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tfrobust.evaluation.figures_canvas import SERIES, new_figure, save, tidy
from tfrobust.search.plan import OBJECTIVES, Search
from tfrobust.search.results import METRICS, Row, complete, ranked, shown
from tfrobust.search.space import WEIGHTS, Factor, Value, base_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Caption of a line -> value of the factor -> the trial that stands for it.
Lines = dict[str, dict[Value, Row]]
# The first colour of the figures of an evaluation means 'attacked'; here nothing is.
COLOURS = (*SERIES[1:2], *SERIES[:1], *SERIES[2:])
_MARKERS = "osD^vP"


def values_of(rows: Sequence[Row], factor: Factor) -> list[Value]:
    """The values of a factor that were tried, in order: numbers by size, words as given."""
    found = list(dict.fromkeys(row.point[factor.name] for row in rows))
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in found):
        return sorted(found, key=lambda v: float(cast(float, v)))
    order = {value: i for i, value in enumerate(factor.values)}
    return sorted(found, key=lambda value: order.get(value, len(order)))


def measured(rows: Sequence[Row]) -> list[str]:
    """The metrics that every one of the rows has."""
    return [name for name in METRICS if rows and all(name in row.metrics for row in rows)]


def factor_figure(search: Search, rows: Sequence[Row], factor: Factor, path: Path) -> Path:
    """Draws every measured accuracy against a factor, a panel for each accuracy.

    With an initialisation among the factors there is a line (or bar) for each. Where one
    factor was varied at a time the others are as in the recipe; else, and where no complete
    trial has them so, a point is the best trial, by the objective, among those with its
    value. Values drawn from a range are dots. The title says which of these it is.

    Args:
      search: what was searched.
      rows: its trials; those complete count.
      factor: the one on the horizontal axis.
      path: of the picture.

    Returns:
      `path`.
    """
    # Where no trial has the others as in the recipe, its values being none of those tried,
    # the best of all trials with each value is shown.
    alike = _comparable(search, complete(rows), factor)
    done = alike or complete(rows)
    names, lines = measured(done), _lines(search, done, factor)
    figure = new_figure(max(3.3 * len(names) + 0.6, 4.6), 3.7)
    # Tick labels of neighbouring panels must not touch.
    figure.set_layout_engine("constrained", wspace=0.06)
    panels: Any = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _panel(axes, search, done, factor, name, lines)
        axes.set_title(METRICS[name], fontsize=10.5)
        axes.set_xlabel(factor.name)
    panels[0].set_ylabel("accuracy")
    if factor.numeric:
        panels[0].set_ylim(_limits([row.metrics[name] for row in done for name in names]))
    else:
        # Bars start at 0, and the highest has room for its figure.
        panels[0].set(ylim=(0, 1.08), yticks=np.linspace(0, 1, 6))
    how = _alone(search, factor) if search.one_at_a_time and alike else _best(search, done, lines)
    figure.suptitle(f"Accuracy against {factor.name}: {how}", x=0.01, ha="left", fontsize=11)
    if len(lines) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False,
                      fontsize=9)  # fmt: skip
    return save(figure, path)


def _alone(search: Search, factor: Factor) -> str:
    """What holds for the points of a factor that was varied alone."""
    start = initialisation(search)
    # A crossed factor has lines of its own only where it is the initialisation.
    known = (None, factor.name, start.name if start else None)
    crossed = "" if search.cross in known else f", the best {search.cross}"
    return f"the other factors as in the recipe{crossed}"


def _best(search: Search, done: list[Row], lines: Lines) -> str:
    """Which trials the points are, where the other factors vary too."""
    if sum(map(len, lines.values())) == len(done):
        return f"all {len(done)} trials"
    goal = " and ".join(METRICS[name] for name in OBJECTIVES[search.objective])
    return f"of each value the trial that is best by {goal} accuracy"


def initialisation(search: Search) -> Factor | None:
    """The factor that says what the network starts from, if there is one."""
    return next((factor for factor in search.space if factor.setting == WEIGHTS), None)


def _comparable(search: Search, done: list[Row], factor: Factor) -> list[Row]:
    """All rows; of one factor at a time those in which the others are as in the recipe."""
    if not search.one_at_a_time:
        return done
    crossed = {factor.name, search.cross}
    fixed = {f.name: base_value(search.config, f) for f in search.space if f.name not in crossed}
    kept = [row for row in done if all(row.point[k] == v for k, v in fixed.items())]
    # The recipe's own value is a point of every factor, but an end of none.
    inside = [row for row in kept if row.point[factor.name] in factor.values]
    return inside or kept


def _is_drawn(search: Search, factor: Factor) -> bool:
    return factor.low is not None and search.sampler != "grid"


def _lines(search: Search, done: list[Row], factor: Factor) -> Lines:
    """Of each line and value the best row."""
    start, lines = initialisation(search), cast(Lines, {})
    for row in reversed(ranked(done, search.objective)):
        split = start is not None and start is not factor
        caption = _start(row.point[start.name]) if split and start else ""
        lines.setdefault(caption, {})[row.point[factor.name]] = row
    order = [_start(value) for value in start.values] if start else []
    return dict(sorted(lines.items(), key=lambda line: line[0] not in order or
                       order.index(line[0])))  # fmt: skip


def _start(value: Value) -> str:
    """What a network starts from, as a caption."""
    words = {"none": "from scratch", "imagenet": "from ImageNet"}
    return words.get(str(value), f"from {shown(value)}")


def _panel(
    axes: Axes, search: Search, done: list[Row], factor: Factor, name: str, lines: Lines
) -> None:
    values = values_of(done, factor)
    if not factor.numeric:
        _bars(axes, values, name, lines)
        tidy(axes, "y")
        return
    for i, (caption, found) in enumerate(lines.items()):
        look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "label": caption}
        if _is_drawn(search, factor):
            look |= {"ls": "none", "alpha": 0.7}
        x = [cast(float, value) for value in values if value in found]
        y = [found[value].metrics[name] for value in values if value in found]
        axes.plot(x, y, marker=_MARKERS[i % len(_MARKERS)], ms=5, lw=1.8, clip_on=False, **look)
    scale(axes, factor, [cast(float, value) for value in values])
    tidy(axes)


def scale(axes: Axes, factor: Factor, values: list[float]) -> None:
    """The horizontal axis of a factor with numbers: its own values as ticks where few."""
    log = factor.geometric and min(values) > 0
    axes.set_xscale("log" if log else "linear")
    if len(values) > 10:
        return
    # Labels of neighbours must not run into one another.
    places = np.log(values) if log else np.array(values)
    span, kept = float(places[-1] - places[0]) or 1.0, [0]
    for i in range(1, len(values)):
        if (places[i] - places[kept[-1]]) / span >= 0.15:
            kept.append(i)
    axes.set_xticks([values[i] for i in kept], [shown(values[i]) for i in kept])
    axes.set_xticks([], minor=True)
    axes.tick_params("x", labelsize=8.5)


def _bars(axes: Axes, values: list[Value], name: str, lines: Lines) -> None:
    width = 0.8 / len(lines)
    for i, (caption, found) in enumerate(lines.items()):
        at = [j + (i - (len(lines) - 1) / 2) * width for j, v in enumerate(values) if v in found]
        heights = [found[v].metrics[name] for v in values if v in found]
        bars = axes.bar(at, heights, width * 0.92, color=COLOURS[i % len(COLOURS)], label=caption)
        small = 8.5 if len(values) * len(lines) <= 8 else 6.5
        axes.bar_label(bars, fmt=accuracy_text, fontsize=small, padding=1.5)
    turned = sum(len(shown(v)) for v in values) > 34
    axes.set_xticks(range(len(values)), [shown(v) for v in values], fontsize=8.5,
                    rotation=25 if turned else 0, ha="right" if turned else "center")  # fmt: skip


def accuracy_text(value: float) -> str:
    """An accuracy in a picture: '.523', '1.0'."""
    return f"{value:.3f}".lstrip("0") if value < 0.9995 else "1.0"


def _limits(values: list[float]) -> tuple[float, float]:
    """Whole tenths around the values; from 0 where they reach below a quarter."""
    low, high = min(values), max(values)
    bottom = 0.0 if low < 0.25 else math.floor(low * 10 - 0.2) / 10
    return bottom, min(1.0, math.ceil(high * 10 + 0.2) / 10)
