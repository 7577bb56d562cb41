"""The output of a search: table, best settings, figures, and the printed text."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfrobust.config import RunConfig
from tfrobust.progress import clock
from tfrobust.search.figure_data import search_figures
from tfrobust.search.plan import Search, at_the_edge, key_of
from tfrobust.search.results import METRICS, Row, complete, format_value, front, ranked, write_table
from tfrobust.search.space import Factor, apply, base_value
from tfrobust.settings import save_yaml

_SHOWN = 5


def write_report(search: Search, rows: Sequence[Row], folder: Path) -> str:
    """Writes `trials.csv`, `best.yaml` and the figures.

    `best.yaml` is the whole configuration of the best trial; for a Pareto front, of the trial
    with the largest sum of both accuracies.

    Returns:
      The text to print: the best trials, and how to train the best again.

    Raises:
      TFRobustError: a file cannot be written.
    """
    write_table(rows, search.space, folder / "trials.csv")
    best = ranked(rows, search.objective)
    if not best:
        return f"{_counts(rows)} Table: {folder / 'trials.csv'}"
    save_yaml(apply(search.config, search.space, best[0].point), folder / "best.yaml")
    figures = search_figures(search, rows, folder / "figures")
    listed = front(rows) if search.objective == "pareto" else best[:_SHOWN]
    heading = "The Pareto front" if search.objective == "pareto" else "The best"
    lines = [_counts(rows), f"{heading}:", *(_line(row) for row in listed)]
    lines += _edges(search, rows, best[0])
    lines += ["Train the best again:", *_command(search, best[0], folder)]
    return "\n".join([*lines, f"Table: {folder / 'trials.csv'}; {len(figures)} figures: "
                              f"{folder / 'figures'}"])  # fmt: skip


def _counts(rows: Sequence[Row]) -> str:
    states = [row.state for row in rows]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    seconds = sum(row.seconds or 0 for row in rows)
    text = f"Trials: {', '.join(counts)}; {clock(seconds)} in all."
    if "running" in states or "waiting" in states:
        text += (
            " Running trials belong to other processes, or to one killed on another machine: run "
            "again later to complete the table."
        )
    open_ends = {key_of(row.point) for row in rows if row.state == "interrupted"}
    lost = len(open_ends - {key_of(row.point) for row in rows if row.state != "interrupted"})
    if lost:
        text += f" Given up, as their process died each time: {lost} (--retry-failed repeats them)."
    return text


def _line(row: Row) -> str:
    found = ", ".join(f"{METRICS[k]} {v:.3f}" for k, v in row.metrics.items() if k in METRICS)
    values = ", ".join(f"{name} {format_value(value)}" for name, value in row.point.items())
    return f"  trial {row.trial}: {found} ({values})"


def _edges(search: Search, rows: Sequence[Row], best: Row) -> list[str]:
    """A hint if a better value may lie outside the range that was tried."""
    tried = [dataclasses.replace(factor, values=_tried(rows, factor)) for factor in search.space]
    names = at_the_edge(tuple(tried), best.point)
    return [f"The best values are at the edge of the range, so a wider space may be better: "
            f"{', '.join(names)}."] if names else []  # fmt: skip


def _tried(rows: Sequence[Row], factor: Factor) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(row.point[factor.name] for row in complete(rows)))


def _command(search: Search, best: Row, folder: Path) -> list[str]:
    """The command for the best settings, and those settings as flags."""
    lines = [f"  python -m pipelines.train --recipe {folder / 'best.yaml'}"]
    config = apply(search.config, search.space, best.point)
    flags = [_flag(search, factor, base_value(config, factor)) for factor in search.space]
    return [*lines, f"  which is the recipe with {' '.join(flags)}"]


def _flag(search: Search, factor: Factor, value: Any) -> str:
    """A factor's value as a flag of `pipelines.train`; as NAME=VALUE if there is no flag."""
    group, _, name = factor.setting.rpartition(".")
    one_stage = len(search.config.training.stages) == 1
    if group.startswith("training.stages."):
        known = one_stage and name in ("learning_rate", "epochs")
        return f"--{name.replace('_', '-')} {value}" if known else f"{factor.setting}={value}"
    hints = typing.get_type_hints(RunConfig)
    fields = {item.name: item for item in dataclasses.fields(hints[group])}
    flag = fields[name].metadata.get("flag", name.replace("_", "-"))
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"{factor.setting}=none" if value is None else f"--{flag} {value}"
