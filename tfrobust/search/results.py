"""The results of a search: its trials as rows, the table as CSV, and the best of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from tfrobust.errors import TFRobustError
from tfrobust.io import csv_text, read_csv, write_text
from tfrobust.search.plan import OBJECTIVES
from tfrobust.search.space import Factor, Point, Value
from tfrobust.search.trial_folder import run_name

#: Metric -> its name in figures.
METRICS = {
    "clean": "clean",
    "perturbed_train": "perturbed train",
    "perturbed_validation": "perturbed validation",
    "robust": "robust (PGD)",
}
_BEFORE = ("trial", "run", "round", "state", "seconds")
_AFTER = (*METRICS, "best_epoch", "error")


@dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
      trial: its number, in the order of planning.
      run: its folder's name in `trials`; a repeated trial has that of the first attempt.
      round: 0 for the first grid, 1 for the finer one around its best, and so on.
      state: 'complete', 'pruned', 'failed', 'interrupted' (and repeated), 'running' or
        'waiting'.
      point: factor -> value; empty until it is drawn.
      metrics: name in `METRICS` -> accuracy in [0, 1], if measured; and 'best_epoch'.
      seconds: from its start to its end, or None.
      error: why it failed, or None.
    """

    trial: int
    run: str
    round: int
    state: str
    point: Point
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None


def rows_of(study: optuna.Study) -> list[Row]:
    """All trials of a study, by number, without those that another process had already run."""
    trials = study.get_trials(deepcopy=False)
    return [_row(trial) for trial in trials if _counts(trial)]


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    return "key" in trial.user_attrs and "dropped" not in trial.user_attrs


def _row(trial: optuna.trial.FrozenTrial) -> Row:
    attrs = trial.user_attrs
    state = trial.state.name.lower()
    if state == "fail":
        state = "failed" if "error" in attrs else "interrupted"
    return Row(
        trial=trial.number,
        run=run_name(trial.number, attrs),
        round=attrs.get("round", 0),
        state=state,
        point=attrs.get("point") or {},
        metrics=attrs.get("metrics", {}),
        seconds=trial.duration.total_seconds() if trial.duration else None,
        error=attrs.get("error"),
    )


def complete(rows: Sequence[Row]) -> list[Row]:
    """The rows that were trained to the end and measured."""
    return [row for row in rows if row.state == "complete"]


def ranked(rows: Sequence[Row], objective: str) -> list[Row]:
    """The complete rows in descending order.

    Sorted by the objective, then by the sum of all metrics, then by number. For 'pareto' the sum
    of both comes first.
    """
    names = OBJECTIVES[objective]
    return sorted(
        complete(rows),
        key=lambda row: (
            -sum(row.metrics[name] for name in names),
            -sum(row.metrics.get(name, 0.0) for name in METRICS),
            row.trial,
        ),
    )


def front(rows: Sequence[Row]) -> list[Row]:
    """The complete rows that no other row beats in both clean and robust accuracy.

    In order from the most robust to the most accurate.
    """
    pairs = [(row.metrics["clean"], row.metrics["robust"], row) for row in complete(rows)]
    kept = [
        (clean, robust, row)
        for clean, robust, row in pairs
        if not any(
            other >= clean and another >= robust and (other, another) != (clean, robust)
            for other, another, _ in pairs
        )
    ]
    return [row for _, _, row in sorted(kept, key=lambda entry: (entry[0], entry[2].trial))]


def format_value(value: Any) -> str:
    """A value for a line or a figure: short numbers, file names without folders."""
    if isinstance(value, float):
        return f"{value:.3g}"
    path = Path(str(value))
    return path.stem if path.suffix in (".h5", ".keras", ".pth", ".pt", ".npz") else path.name


def write_table(rows: Sequence[Row], space: Sequence[Factor], path: Path) -> None:
    """Writes the table as CSV: trial, factors, metrics; missing values are empty.

    Raises:
      TFRobustError: the file cannot be written.
    """
    names = [factor.name for factor in space]
    lines: list[list[Any]] = []
    for row in rows:
        seconds = None if row.seconds is None else round(row.seconds, 1)
        before = [row.trial, row.run, row.round, row.state, seconds]
        values = [json.dumps(row.point[name]) if name in row.point else None for name in names]
        measured = [row.metrics.get(name) for name in _AFTER[:-1]]
        lines.append([*before, *map(_bare, values), *measured, row.error])
    write_text(path, csv_text([*_BEFORE, *names, *_AFTER], lines))


def _bare(text: str | None) -> str | None:
    """Words without JSON's quotes, if that is unambiguous."""
    if text is None or not text.startswith('"'):
        return text
    word = str(json.loads(text))
    return word if _value(word) == word else text


def _value(text: str) -> Value:
    try:
        value: Value = json.loads(text)
    except ValueError:
        return text
    return value


def read_table(path: Path) -> list[Row]:
    """The rows of a table that `write_table` wrote; seconds are rounded to a tenth.

    Raises:
      TFRobustError: it cannot be read.
    """
    try:
        return [_read(line) for line in read_csv(path)]
    except (OSError, UnicodeDecodeError, ValueError, KeyError) as error:
        raise TFRobustError(f"{path} is not a table of pipelines.search ({error}).") from error


def _read(line: dict[str, Any]) -> Row:
    metrics = {name: line.pop(name) for name in _AFTER[:-1]}
    trial, run, turn, state, seconds = (line.pop(name) for name in _BEFORE)
    error = line.pop("error") or None
    found = {name: float(text) for name, text in metrics.items() if text}
    if "best_epoch" in found:
        found["best_epoch"] = int(found["best_epoch"])
    return Row(
        trial=int(trial), run=run, round=int(turn), state=state,
        point={name: _value(text) for name, text in line.items() if text},
        metrics=found, seconds=float(seconds) if seconds else None, error=error,
    )  # fmt: skip
