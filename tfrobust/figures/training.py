"""The learning curves of a run, with a line where each stage starts and at the elbow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import new_figure, tidy
from tfrobust.figures.style import SMALLEST, theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class TrainingHistory:
    """A run's history.

    Attributes:
      rows: one per epoch, with 'epoch', 'loss', 'stage' and 'blocks'; accuracies if they were
        measured.
      elbow: the epoch after which validation turned, if it did.
    """

    rows: Sequence[Mapping[str, Any]]
    elbow: int | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            raise UsageError("Expected a history of at least one epoch, found none.")


@dataclass(frozen=True)
class LearningCurves(Figure[TrainingHistory]):
    """Loss and accuracies against epochs."""

    title: ClassVar[str] = "Training in full"
    group: ClassVar[str] = "training"
    needs: ClassVar[type] = TrainingHistory

    def draw(self, data: TrainingHistory) -> Drawing:
        """Draws the loss on the left, the accuracies on the right."""
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(10, 4, layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        _losses(loss, data.rows)
        _accuracies(accuracy, data.rows)
        for axes, title in ((loss, "Loss"), (accuracy, "Accuracy")):
            axes.set_title(title, pad=18)
            _mark_stages(axes, data.rows)
            for row in data.rows:
                if row.get("event"):
                    _mark(axes, row["epoch"], "rolled back", theme().wrong, ":")
            if data.elbow is not None:
                _mark(axes, data.elbow, f"elbow: epoch {data.elbow}", theme().ink, "-", 16)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            tidy(axes)
        return figure


def _losses(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    epochs, losses = _measured(rows, "loss")
    axes.plot(epochs, losses, color=theme().neutral, marker="o", ms=3, label="train")
    if any("select_loss" in row for row in rows):
        found = _measured(rows, "select_loss")
        axes.plot(*found, color=theme().attacked, marker="o", ms=3, label="select")
        axes.legend(frameon=False, fontsize=8.5)
    # After both lines: the limits are fixed by what is drawn by then.
    axes.set_ylim(bottom=0)


def _accuracies(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    green, purple, *_ = theme().further
    series = (
        ("select_clean", "select, clean", theme().clean, "-"),
        ("select_fgsm", "select, FGSM", green, "-"),
        ("select_pgd", "select, PGD", theme().attacked, "-"),
        ("clean_accuracy", "train, clean", theme().clean, ":"),
        ("adv_accuracy", "train, adversarial", purple, ":"),
    )
    for key, label, colour, style in series:
        # Not every method, stage and epoch measures every accuracy.
        if any(key in row for row in rows):
            axes.plot(*_measured(rows, key), style, color=colour, label=label, marker="o", ms=3)
    axes.set_ylim(0, 1)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5)


def _measured(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The epochs that have a value, and the values."""
    found = [row for row in rows if key in row]
    return [row["epoch"] for row in found], [row[key] for row in found]


def _mark_stages(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for before, row in zip(rows, rows[1:], strict=False):
        if row["stage"] != before["stage"]:
            label = f"stage {row['stage']}: {row['blocks']}"
            _mark(axes, row["epoch"] - 0.5, label, theme().soft, "--")


def _mark(axes: Axes, at: float, label: str, colour: str, style: str, up: int = 4) -> None:
    axes.axvline(at, color=colour, lw=0.8, ls=style)
    # Stages are named above the curves, other marks at the bottom: they never overlap.
    height, offset = (1, 3) if style == "--" else (0, up)
    axes.annotate(label, (at, height), xytext=(2, offset), fontsize=SMALLEST, color=colour,
                  xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
