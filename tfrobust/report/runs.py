"""The data in a run folder, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.figures import FIGURES, figure_of, place_of, title_of
from tfrobust.figures.figure import dark_path
from tfrobust.figures.provenance import TABLE, provenance, shows_attack
from tfrobust.io import read_csv, read_json
from tfrobust.run import RunFolder
from tfrobust.settings import format_eps, load_yaml


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
      name: of the file, without suffix.
      title: its title on the page.
      path: the file.
      note: the attack that it shows, if that is not the evaluation's; else empty.
      dark: the dark version; None in older runs.
      unfolded: whether it is shown expanded.
    """

    name: str
    title: str
    path: Path
    note: str = ""
    dark: Path | None = None
    unfolded: bool = False


@dataclass(frozen=True)
class RunData:
    """One run.

    Attributes:
      name: of the folder.
      path: the folder.
      config: `config.yaml`; empty for the results of a bare model.
      environment: `environment.json`, or empty.
      history: rows of `history.csv`, as numbers where possible, or empty.
      evaluation: `evaluation.json`.
      explanations: rows of `explanations.csv`, or empty.
      explanations_note: the attack they were measured with, or empty.
      figures: in the page's order.
    """

    name: str
    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    evaluation: dict[str, Any]
    explanations: list[dict[str, str]]
    explanations_note: str = ""
    figures: list[Picture] = field(default_factory=list)


def read_run(
    path: Path, evaluation: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> RunData:
    """Reads a run folder, or the results of a bare model.

    Args:
      path: the folder.
      evaluation: the evaluation, if already available; None reads it.
      config: the training settings, likewise.

    Raises:
      UsageError: the folder contains no evaluation.
      TFRobustError: a file in it is damaged.
    """
    run = RunFolder(path)
    if evaluation is None:
        evaluation = _evaluation(run)
    if config is None:
        config = load_yaml(run.config) if run.config.is_file() else {}
    notes = _notes(run.figures, evaluation["threat_model"])
    return RunData(
        name=path.resolve().name,
        path=path,
        config=config,
        environment=_json(run.environment) if run.environment.is_file() else {},
        history=[_numbers(row) for row in _table(run.history)],
        evaluation=evaluation,
        explanations=_table(path / "explanations.csv"),
        explanations_note=notes[TABLE],
        figures=_figures(run.figures, notes),
    )


def _evaluation(run: RunFolder) -> dict[str, Any]:
    if not run.evaluation.is_file():
        raise UsageError(
            f"{run.path}: expected {run.evaluation.name} of an evaluated run in it, found none: "
            "create it with 'python -m pipelines.train' or 'python -m pipelines.evaluate'."
        )
    return _json(run.evaluation)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise TFRobustError(f"{path} cannot be read ({error}): run its verb again.") from error
    if not isinstance(found, dict):
        raise TFRobustError(f"{path}: expected a JSON object, found {type(found).__name__}.")
    return found


def _table(path: Path) -> list[dict[str, str]]:
    return read_csv(path) if path.is_file() else []


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text or None

    return {name: value(text) for name, text in row.items()}


def remove_evaluation_figures(folder: Path) -> int:
    """Removes the figures of an evaluation whose `evaluation.json` is about to be replaced.

    Returns:
      The number of figures removed.
    """
    found = [path for path in folder.glob("*.png") if _of_evaluation(path.stem)]
    for path in found:
        path.unlink(missing_ok=True)
        dark_path(path).unlink(missing_ok=True)
    (folder / "curves.json").unlink(missing_ok=True)
    return len(found)


def _of_evaluation(stem: str) -> bool:
    name = figure_of(stem)
    return name is not None and FIGURES[name].group == "evaluation"


def _figures(folder: Path, notes: dict[str, str]) -> list[Picture]:
    found = sorted(folder.glob("*.png"), key=lambda path: place_of(path.stem))
    return [_picture(path, notes.get(path.stem, "")) for path in found]


def _picture(path: Path, note: str) -> Picture:
    name, dark = figure_of(path.stem), dark_path(path)
    unfolded = name is not None and FIGURES[name].unfolded
    return Picture(
        path.stem, title_of(path.stem), path, note, dark if dark.is_file() else None, unfolded
    )


def _notes(folder: Path, evaluated: dict[str, Any]) -> dict[str, str]:
    """The provenance of each figure of attacked images, if it differs from the evaluation's."""
    known = provenance(folder)
    names = [TABLE, *(path.stem for path in folder.glob("*.png") if shows_attack(path.stem))]
    return {name: _note(known.get(name), evaluated) for name in names}


def _note(entry: dict[str, Any] | None, evaluated: dict[str, Any]) -> str:
    if entry is None:
        return "The eps of the attack is not recorded."
    norm, eps = entry["norm"], entry["eps"]
    text = f"Attacked by {entry['attack']}, {norm}, eps {format_eps(eps, norm)}"
    if (norm, eps) == (evaluated["norm"], evaluated["eps"]):
        return f"{text}."
    return f"{text}; the evaluation used {evaluated['norm']}, eps {evaluated['eps_text']}."
