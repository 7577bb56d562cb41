"""What a run folder knows of itself, as plain values."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import RunFolder
from tfrobust.settings import load_yaml

#: Figures in the order of the page -> their titles; others follow by name.
FIGURES = {
    "data": "The images",
    "curves": "Training",
    "eps": "Accuracy against eps",
    "steps": "Accuracy against steps",
    "by_class": "By class",
    "confusion": "Confusion",
    "adversarial": "Adversarial images",
    "examples": "Adversarial images",
    "path": "An attack, step by step",
    "saliency": "What the model looks at",
    "overlay": "Where the prediction is decided",
    "top5": "The five most probable classes",
    "maps": "Model against model",
    "classes": "What each class asks for",
    "faithfulness": "Deletion and insertion",
    "feature_maps": "What every layer answers",
    "channels": "Channels",
}


@dataclass(frozen=True)
class RunData:
    """One run.

    Attributes:
      name: of the folder.
      path: the folder.
      config: `config.yaml`; empty for the results of a bare model.
      environment: `environment.json`, or empty.
      history: rows of `history.csv`, numbers where they are some, or empty.
      evaluation: `evaluation.json`.
      explanations: rows of `explanations.csv`, or empty.
      figures: (title, file) in the page's order.
    """

    name: str
    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    evaluation: dict[str, Any]
    explanations: list[dict[str, str]]
    figures: list[tuple[str, Path]] = field(default_factory=list)


def read_run(path: Path) -> RunData:
    """Reads a run folder, or the results of a bare model.

    Raises:
      UsageError: it holds no evaluation.
      TFRobustError: a file in it is damaged.
    """
    run = RunFolder(path)
    if not run.evaluation.is_file():
        raise UsageError(
            f"{path}: expected {run.evaluation.name} of an evaluated run in it, found none: make "
            "it with 'python -m pipelines.train' or 'python -m pipelines.evaluate'."
        )
    return RunData(
        name=path.resolve().name,
        path=path,
        config=load_yaml(run.config) if run.config.is_file() else {},
        environment=_json(run.environment) if run.environment.is_file() else {},
        history=[_numbers(row) for row in _table(run.history)],
        evaluation=_json(run.evaluation),
        explanations=_table(path / "explanations.csv"),
        figures=_figures(run.figures),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TFRobustError(f"{path} cannot be read ({error}): run its verb again.") from error
    if not isinstance(found, dict):
        raise TFRobustError(f"{path}: expected a JSON object, found {type(found).__name__}.")
    return found


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text or None

    return {name: value(text) for name, text in row.items()}


def _figures(folder: Path) -> list[tuple[str, Path]]:
    order = {name: place for place, name in enumerate(FIGURES)}
    found = sorted(folder.glob("*.png"), key=lambda p: (order.get(p.stem, len(order)), p.stem))
    return [(FIGURES.get(p.stem, p.stem.replace("_", " ").capitalize()), p) for p in found]
