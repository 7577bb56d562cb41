"""Several models side by side: one table, one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.chance import wilson
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.figures.accuracies import Accuracies, Accuracy
from tfrobust.io import csv_text, read_json
from tfrobust.settings import format_eps
from tfrobust.workers import Workers


@dataclass(frozen=True)
class Cell:
    """One accuracy: `hits` of `total` images.

    Attributes:
      hits: number of correct images.
      total: number of images.
      doubted: its evaluation raised flags.
      aside: a secondary score, dropped from a crowded figure.
    """

    hits: int
    total: int
    doubted: bool = False
    aside: bool = False

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return wilson(self.hits, self.total)


@dataclass(frozen=True)
class Comparison:
    """Accuracies of models (rows) under several conditions (columns).

    Attributes:
      columns: the conditions, in order.
      rows: model -> column -> accuracy; a model may lack some columns.
      reported: column -> a score reported elsewhere, for comparison.
      note: a line below the table.
      ranked: whether the best value of each column is marked.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    reported: Mapping[str, float]
    note: str = ""
    ranked: bool = True

    def as_text(self) -> str:
        """The table as Markdown, the best of each column in bold."""
        lines = ["| model | " + " | ".join(self.columns) + " |"]
        lines.append("|---" * (len(self.columns) + 1) + "|")
        best = {
            name: max(self._values(name), default=None) if self.ranked else None
            for name in self.columns
        }
        for model, cells in self.rows.items():
            shown = [_shown(cells.get(name), best[name]) for name in self.columns]
            lines.append(f"| {model} | " + " | ".join(shown) + " |")
        if self.reported:
            shown = [f"{self.reported[n]:.4g}" if n in self.reported else "" for n in self.columns]
            lines.append("| reported | " + " | ".join(shown) + " |")
        if any(cell.doubted for cells in self.rows.values() for cell in cells.values()):
            lines.append("\n? its evaluation raised doubts, see evaluation.json.")
        if self.note:
            lines.append("\n" + self.note)
        return "\n".join(lines)

    def as_csv(self) -> str:
        """One line per accuracy, with its interval."""
        rows: list[list[Any]] = []
        for model, cells in self.rows.items():
            for name, cell in cells.items():
                low, high = cell.interval
                scores = [f"{value:.6f}" for value in (cell.accuracy, low, high)]
                rows.append([model, name, *scores, cell.total, self.reported.get(name)])
        head = ["model", "measured_on", "accuracy", "low", "high", "images", "reported"]
        return csv_text(head, rows)

    def _values(self, column: str) -> list[float]:
        return [cells[column].accuracy for cells in self.rows.values() if column in cells]


def _shown(cell: Cell | None, best: float | None) -> str:
    if cell is None:
        return ""
    text = f"{cell.accuracy:.3f}{' ?' if cell.doubted else ''}"
    return f"**{text}**" if cell.accuracy == best else text


# The meaning of the columns of `from_evaluation`.
EVALUATION_NOTE = (
    "Each attack: images that survived it and the attacks before it; worst case: images that "
    "survived all of them."
)


def from_evaluation(path: Path) -> dict[str, Cell]:
    """The accuracies in an `evaluation.json`: clean, attacks, worst case, transfer, sweep.

    Returns:
      Column -> accuracy. A column names the attack, its target, the norm unless it is linf, and
      eps, so that a column only combines equal conditions.

    Raises:
      UsageError: there is no such file.
      TFRobustError: it is not an evaluation.
    """
    if not path.is_file():
        raise UsageError(f"{path} not found: evaluate the run first, with pipelines.evaluate.")
    try:
        values: dict[str, Any] = read_json(path)
        return _cells(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TFRobustError(
            f"{path} is not an evaluation of tfrobust ({type(error).__name__}: {error})."
        ) from error


def differences(paths: Sequence[Path]) -> list[str]:
    """The reasons why evaluations cannot be compared, one sentence each; empty if they can.

    Args:
      paths: of files `evaluation.json` that `from_evaluation` has read.
    """
    found = [read_json(path) for path in paths]
    reasons = []
    names = {tuple(one["classes"]) for one in found if one.get("classes")}
    if len(names) > 1:
        shown = " against ".join(", ".join(each[:4]) + (", ..." if len(each) > 4 else "")
                                 for each in sorted(names)[:3])  # fmt: skip
        reasons.append(f"their classes differ ({shown})")
    # Older evaluations have no digest: their labels are compared instead.
    digests = {one.get("images_sha256") for one in found}
    known = digests if None not in digests else {_labels_of(one) for one in found}
    if len(known) > 1:
        counts = ", ".join(f"{path.parent.name} {one['num_examples']:,}"
                           for path, one in zip(paths, found, strict=True))  # fmt: skip
        reasons.append(f"they were measured on different test images ({counts} images)")
    return reasons


def _labels_of(values: dict[str, Any]) -> tuple[int, ...]:
    labels = values.get("examples", {}).get("label")
    return tuple(labels) if labels else (values["num_examples"],)


def _cells(values: dict[str, Any]) -> dict[str, Cell]:
    total, doubted = int(values["num_examples"]), bool(values["unreliable"])

    def cell(value: float, *, doubt: bool = doubted, aside: bool = False) -> Cell:
        return Cell(round(value * total), total, doubt, aside)

    ball, attacks = values["threat_model"], values["attacks"]
    found = {"clean": cell(values["clean_accuracy"], doubt=False)}
    found["clean top-5"] = cell(values["clean_top5_accuracy"], doubt=False, aside=True)
    for name, entry in attacks.items():
        found[_column(name, entry, ball, ball["eps_text"])] = cell(entry["accuracy"])
    if len(attacks) > 1:
        found[f"worst case {_at(ball, ball['eps_text'])}"] = cell(values["robust_accuracy"])
    transfer = values["transfer"]
    if transfer and values["model"] in transfer["accuracy"]:
        name = f"transfer {_at(ball, transfer['eps_text'])}"
        found[name] = cell(transfer["accuracy"][values["model"]])
    for entry in values["sweep"]:
        eps = format_eps(entry["eps"], ball["norm"])
        found[_column(entry["attack"], entry, ball, eps)] = cell(entry["accuracy"], aside=True)
    return found


def _column(name: str, entry: dict[str, Any], ball: dict[str, Any], eps: str) -> str:
    settings = entry["parameters"]
    # The targets of FAB and APGD are all classes in turn, as their names say.
    aim = settings.get("target", "").replace("_", " ") if settings.get("targeted") else ""
    return " ".join(filter(None, (name, aim, _at(ball, eps))))


def _at(ball: dict[str, Any], eps: str) -> str:
    return eps if ball["norm"] == "linf" else f"{ball['norm']} {eps}"


def accuracy_on(
    model: Any, data: ImageSet, batch_size: int = 256, workers: Workers | None = None
) -> Cell:
    """Plain accuracy on a set of images, perturbed already or not.

    Args:
      model: any classifier.
      data: the images.
      batch_size: images in a batch.
      workers: who does the batches; threads of this process if None.

    Raises:
      TFRobustError: the model does not accept these images or labels, or returns
        probabilities.
    """
    evaluator = Evaluator(model, data, batch_size=batch_size, workers=workers)
    correct = evaluator.clean.correct
    return Cell(int(correct.sum()), len(correct))


def accuracies(found: Comparison, title: str) -> Accuracies:
    """The data of the table's figure: with the columns that fit, at most 40 bars.

    Beyond that, the secondary columns appear only in the table.
    """
    columns = found.columns
    if len(columns) * len(found.rows) > 40:
        aside = {name for cells in found.rows.values() for name, cell in cells.items()
                 if cell.aside}  # fmt: skip
        columns = tuple(n for n in columns if n not in aside or n in found.reported)
    rows = {
        model: {name: Accuracy(cell.hits, cell.total) for name, cell in cells.items()}
        for model, cells in found.rows.items()
    }
    return Accuracies(columns, rows, title, found.reported)
