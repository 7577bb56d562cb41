"""The learning curves of a run, with a line where each stage begins and at the elbow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"


def curves(rows: list[dict[str, Any]], path: Path, elbow: int | None = None) -> None:
    """Draws loss and accuracies against epochs and saves them as PNG.

    Args:
      rows: of the history, one per epoch.
      path: of the picture.
      elbow: the epoch where validation turned, if it did; marked.
    """
    draw(rows, elbow).savefig(path)


def draw(rows: list[dict[str, Any]], elbow: int | None = None) -> Any:
    """The figure that `curves` saves."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=150)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    loss.plot(epochs, [row["loss"] for row in rows], color=GREY, marker="o", ms=3, label="train")
    loss.set(xlabel="epoch")
    if any("select_loss" in row for row in rows):
        loss.plot(*_measured(rows, "select_loss"), color=ORANGE, marker="o", ms=3, label="select")
        loss.legend(frameon=False, fontsize=8)
    # After both lines: a limit that is set keeps what it holds then in view, and no more.
    loss.set_ylim(bottom=0)
    series = (
        ("select_clean", "select, clean", BLUE, "-"),
        ("select_fgsm", "select, FGSM", GREEN, "-"),
        ("select_pgd", "select, PGD", ORANGE, "-"),
        ("clean_accuracy", "train, clean", BLUE, ":"),
        ("adv_accuracy", "train, adversarial", PURPLE, ":"),
    )
    for key, label, colour, style in series:
        # Not every method, not every stage and not every epoch measures every accuracy.
        if any(key in row for row in rows):
            points = _measured(rows, key)
            accuracy.plot(*points, style, color=colour, label=label, marker="o", ms=3)
    accuracy.set(xlabel="epoch", ylim=(0, 1))
    accuracy.legend(frameon=False, fontsize=8)
    for axes, title in ((loss, "Loss"), (accuracy, "Accuracy")):
        axes.set_title(title, pad=16)
        _mark_stages(axes, rows)
        for row in rows:
            if row.get("event"):
                _mark(axes, row["epoch"], "went back", ORANGE, ":")
        if elbow is not None:
            _mark(axes, elbow, f"elbow: epoch {elbow}", PURPLE, "-")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _measured(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The epochs that have a value, and the values."""
    found = [row for row in rows if key in row]
    return [row["epoch"] for row in found], [row[key] for row in found]


def _mark_stages(axes: Any, rows: list[dict[str, Any]]) -> None:
    for before, row in zip(rows, rows[1:], strict=False):
        if row["stage"] != before["stage"]:
            _mark(axes, row["epoch"] - 0.5, f"stage {row['stage']}: {row['blocks']}", GREY, "--")


def _mark(axes: Any, at: float, label: str, colour: str, style: str) -> None:
    axes.axvline(at, color=colour, lw=0.8, ls=style)
    # Stages are named above the curves, others at their foot: they never cover each other.
    height, offset = (1, 3) if style == "--" else (0, 4)
    place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(label, (at, height), xytext=(2, offset), fontsize=7, color=colour, **place)
