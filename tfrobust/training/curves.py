"""The learning curves of a run, with a line where each stage begins."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"


def curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws loss and accuracies against epochs and saves them as PNG.

    Args:
      rows: of the history, one per epoch.
      path: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=150)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    loss.plot(epochs, [row["loss"] for row in rows], color=GREY, marker="o", ms=3)
    loss.set(title="Training loss", xlabel="epoch", ylim=(0, None))
    series = (
        ("select_clean", "select, clean", BLUE, "-"),
        ("select_fgsm", "select, FGSM", GREEN, "-"),
        ("select_pgd", "select, PGD", ORANGE, "-"),
        ("clean_accuracy", "train, clean", BLUE, ":"),
        ("adv_accuracy", "train, adversarial", PURPLE, ":"),
    )
    for key, label, colour, style in series:
        # Not every method, and not every stage, measures every accuracy.
        values = [row.get(key, math.nan) for row in rows]
        if any(key in row for row in rows):
            accuracy.plot(epochs, values, style, color=colour, label=label, marker="o", ms=3)
    accuracy.set(title="Accuracy", xlabel="epoch", ylim=(0, 1))
    accuracy.legend(frameon=False, fontsize=8)
    for axes in (loss, accuracy):
        _mark_stages(axes, rows)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _mark_stages(axes: Any, rows: list[dict[str, Any]]) -> None:
    for before, row in zip(rows, rows[1:], strict=False):
        if row["stage"] != before["stage"]:
            at = row["epoch"] - 0.5
            axes.axvline(at, color=GREY, lw=0.8, ls="--")
            label = f"stage {row['stage']}: {row['blocks']}"
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(label, (at, 1), xytext=(3, -10), fontsize=7, color=GREY, **place)
