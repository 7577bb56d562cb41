"""The job that puts several models side by side: their evaluations, or accuracy on sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.errors import UsageError
from tfrobust.jobs.images import load_splits, without_seen
from tfrobust.progress import Tell, silent

if TYPE_CHECKING:
    from tfrobust.cluster import Ray
    from tfrobust.data.types import ImageSet
    from tfrobust.report.comparison import Cell, Comparison
    from tfrobust.typing import Model
    from tfrobust.workers import Workers


@dataclass(frozen=True)
class CompareResult:
    """Models side by side.

    Attributes:
      comparison: the table.
      figure: the figure; comparison.csv and comparison.md are in the same folder.
    """

    comparison: Comparison
    figure: Path


def compare(
    models: Mapping[str, Path | str],
    output: Path | str = "comparison",
    *,
    sets: Mapping[str, str] | None = None,
    reported: Mapping[str, float] | None = None,
    title: str = "Models side by side",
    on: str | Ray | None = None,
    tell: Tell = silent,
) -> CompareResult:
    """Puts models side by side, by what they were evaluated to be or on sets of images.

    Args:
      models: name -> run folder; with sets model files too.
      output: folder for table and figure.
      sets: name -> images to measure plain accuracy on: an .npz, folder, zip or .pt, or 'test'
        for a run's own test images. Without any, the `evaluation.json` of each run is used.
      reported: name of a column -> a score from elsewhere to show in it.
      title: of the figure.
      on: spread what is measured over a Ray cluster: 'ray', 'ray://HOST:PORT', or a
        `cluster.Ray`.
      tell: takes the table, and warnings where models are not comparable.

    Raises:
      UsageError: a reported score has no column, a run was not evaluated, or there is a cluster
        for what is only read.
      TFRobustError: models or images cannot be read.
    """
    from tfrobust.io import write_text
    from tfrobust.runtime import import_quietly

    sets, reported = dict(sets or {}), dict(reported or {})
    _refuse_unknown(reported, sets)
    if on is not None and not sets:
        raise UsageError("--on: without --set evaluations are read and nothing is measured.")
    import_quietly()
    from tfrobust.figures.accuracies import ModelsSideBySide
    from tfrobust.report.comparison import accuracies

    paths = {name: Path(path) for name, path in models.items()}
    found = _compared(paths, sets, reported, on, tell)
    tell(found.as_text())
    output = Path(output)
    write_text(output / "comparison.csv", found.as_csv())
    write_text(output / "comparison.md", found.as_text() + "\n")
    path = output / "comparison.png"
    return CompareResult(found, ModelsSideBySide().save(accuracies(found, title), path))


def _refuse_unknown(reported: Mapping[str, float], columns: Mapping[str, Any]) -> None:
    """Rejects reported scores for columns that do not exist, if the columns are known."""
    unknown = [name for name in reported if columns and name not in columns]
    if unknown:
        raise UsageError(f"--reported {unknown[0]}: expected one of {', '.join(columns)}.")


def _compared(
    paths: Mapping[str, Path], sets: Mapping[str, str], reported: dict[str, float],
    on: str | Ray | None, tell: Tell,
) -> Comparison:  # fmt: skip
    from tfrobust.cluster.pool import opened_workers
    from tfrobust.report.comparison import (
        EVALUATION_NOTE,
        Comparison,
        differences,
        from_evaluation,
    )

    rows: dict[str, dict[str, Cell]]
    if sets:
        with opened_workers(on) as workers:
            rows = {name: _measured(path, sets, workers, tell) for name, path in paths.items()}
    else:
        rows = {name: from_evaluation(path / "evaluation.json") for name, path in paths.items()}
    columns = dict.fromkeys(column for cells in rows.values() for column in cells)
    _refuse_unknown(reported, columns)
    doubts = [] if sets else differences([path / "evaluation.json" for path in paths.values()])
    for doubt in doubts:
        tell(f"Warning: {doubt}.")
    note = "\n".join(["" if sets else EVALUATION_NOTE, *(f"Not ranked: {one}." for one in doubts)])
    return Comparison(tuple(columns), rows, reported, note.strip(), ranked=not doubts)


def _measured(
    path: Path, sets: Mapping[str, str], workers: Workers | None, tell: Tell
) -> dict[str, Cell]:
    from tfrobust.models.opening import load_any
    from tfrobust.report.comparison import accuracy_on

    model = load_any(path)
    return {
        name: accuracy_on(model, _images(model, path, source, tell), workers=workers)
        for name, source in sets.items()
    }


def _images(model: Model, path: Path, source: str, tell: Tell) -> ImageSet:
    """The images of a set with the labels of a model, without those that its run has seen."""
    from tfrobust.data import ReadOptions, load_all
    from tfrobust.data.labels import match_labels
    from tfrobust.models.inputs import input_shape
    from tfrobust.models.pairs import classifier_for
    from tfrobust.run import RunFolder, class_names

    if source == "test":
        config = RunFolder(path).read_config()
        return load_splits(config.data, config.seed, augmented=False).test
    shape = input_shape(model)
    data = load_all(source, ReadOptions(channels=shape[2] if shape else None))
    try:
        data, notes = without_seen(path, data)
    except UsageError:
        notes = ("it was trained or selected on all of these images",)
    classes = classifier_for(model, data).classes
    data, matched = match_labels(data, class_names(path), classes)
    for line in (*notes, *matched):
        tell(f"Note: {path} on {source}: {line}.")
    return data
