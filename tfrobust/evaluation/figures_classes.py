"""Which classes withstand an attack, and what the others are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfrobust.evaluation.figures_canvas import (
    ATTACKED,
    CLEAN,
    NEUTRAL,
    class_word,
    new_figure,
    save,
    tidy,
)
from tfrobust.evaluation.report import RobustnessReport, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Up to so many classes, every one has a row of its own; above, the ends are shown.
EVERY_CLASS = 30
ENDS = 15
#: Up to so many classes, confusion is a matrix; above, a list of the commonest.
MATRIX = 25


class ClassScores(NamedTuple):
    """Accuracies by class, the most robust class first. C is the number of classes seen.

    Attributes:
      labels: int [C], classes that have an image.
      images: int [C], how many.
      clean: int [C], of those classified correctly.
      robust: int [C], of those still classified correctly under every attack.
    """

    labels: np.ndarray
    images: np.ndarray
    clean: np.ndarray
    robust: np.ndarray

    def part(self, index: np.ndarray | slice) -> ClassScores:
        """The classes at `index`."""
        return ClassScores(*(column[index] for column in self))


def class_scores(report: RobustnessReport) -> ClassScores:
    """Clean and robust accuracy of each class, sorted by robust, then by clean accuracy."""
    labels, place, images = np.unique(report.labels, return_inverse=True, return_counts=True)
    clean = np.bincount(place[report.clean.correct], minlength=len(labels))
    robust = np.bincount(place[report.robust], minlength=len(labels))
    order = np.lexsort((labels, -clean / images, -robust / images))
    return ClassScores(labels, images, clean, robust).part(order)


def per_class_figure(
    report: RobustnessReport, label_names: Sequence[str], path: Path | str
) -> Path:
    """Draws clean and robust accuracy of each class, the most robust on top.

    Above 30 classes: the 15 best and the 15 worst by name, and all of them by rank.

    Args:
      report: of an evaluation.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.

    Returns:
      `path`.
    """
    scores = class_scores(report)
    if len(scores.labels) <= EVERY_CLASS:
        figure = new_figure(7.2, 1.7 + 0.3 * len(scores.labels), layout="constrained")
        axes = figure.subplots()
        _dumbbells(axes, scores, label_names, report)
        axes.set_title("Accuracy by class, clean and under attack")
        title = "dashed: all images; in brackets: images of the class"
        figure.legend(
            frameon=False, fontsize=9, ncols=3, loc="outside lower center", title=title,
            title_fontsize=8.5,
        )  # fmt: skip
        return save(figure, path)
    figure = new_figure(11, 9.6, layout="constrained")
    parts = figure.subplot_mosaic([["all", "all"], ["best", "worst"]], height_ratios=[1, 1.7])
    _by_rank(parts["all"], scores, report)
    _dumbbells(parts["best"], scores.part(slice(0, ENDS)), label_names, report)
    _dumbbells(parts["worst"], scores.part(slice(-ENDS, None)), label_names, report)
    for half in (parts["best"], parts["worst"]):
        half.set_xlabel("accuracy, with 95 % band (in brackets: images)")
    parts["best"].set_title(f"The {ENDS} most robust classes", fontsize=11)
    parts["worst"].set_title(f"The {ENDS} least robust classes", fontsize=11)
    return save(figure, path)


def _dumbbells(
    axes: Axes, scores: ClassScores, label_names: Sequence[str], report: RobustnessReport
) -> None:
    """A row a class: its robust and its clean accuracy, joined by a line."""
    rows = np.arange(len(scores.labels))
    clean, robust = scores.clean / scores.images, scores.robust / scores.images
    ends = [wilson(int(k), int(n)) for k, n in zip(scores.robust, scores.images, strict=True)]
    low, high = np.transpose(ends)
    axes.hlines(rows, low, high, color=ATTACKED, alpha=0.22, lw=7, label="95 % interval")
    axes.hlines(rows, robust, clean, color="0.6", lw=1.4)
    axes.plot(robust, rows, "o", color=ATTACKED, ms=6.5, label="under attack", clip_on=False)
    hollow: dict[str, Any] = {"mfc": "white", "mew": 1.6, "clip_on": False}
    axes.plot(clean, rows, "o", color=CLEAN, ms=6.5, label="clean", **hollow)
    _means(axes, report)
    words = [class_word(label_names, int(label), 26) for label in scores.labels]
    names = [f"{word}  ({n})" for word, n in zip(words, scores.images, strict=True)]
    axes.set_yticks(rows, names, fontsize=9, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy")
    axes.tick_params(axis="y", length=0)
    tidy(axes, grid="x")


def _means(axes: Axes, report: RobustnessReport) -> None:
    for share, colour in ((report.clean.correct, CLEAN), (report.robust, ATTACKED)):
        axes.axvline(float(share.mean()), color=colour, lw=1, ls="--", alpha=0.7, zorder=1)


def _by_rank(axes: Axes, scores: ClassScores, report: RobustnessReport) -> None:
    ranks = np.arange(1, len(scores.labels) + 1)
    clean, robust = scores.clean / scores.images, scores.robust / scores.images
    axes.vlines(ranks, robust, clean, color="0.8", lw=0.8)
    for share, colour, name in ((clean, CLEAN, "clean"), (robust, ATTACKED, "under attack")):
        axes.plot(ranks, share, "o", color=colour, ms=3, label=name, clip_on=False)
    for share, colour in ((report.clean.correct, CLEAN), (report.robust, ATTACKED)):
        axes.axhline(float(share.mean()), color=colour, lw=1, ls="--", alpha=0.7)
    axes.set(xlim=(0, len(ranks) + 1), ylim=(0, 1.02), ylabel="accuracy")
    axes.set_xlabel("classes, by robust accuracy (dashed: mean over all images)")
    axes.set_title(f"Accuracy of {len(ranks)} classes, clean and under attack")
    tidy(axes, grid="y")
    axes.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)


def confusion(report: RobustnessReport, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each class is taken for each other, clean and under attack.

    Args:
      report: of an evaluation; its last attack holds the worst case of all.
      classes: K.

    Returns:
      Two int [K, K]: true class against predicted class, on clean and on attacked images.
    """
    last = report.attacks[-1].outcome if report.attacks else report.clean
    tables = []
    for predictions in (report.clean.predictions, last.predictions):
        pairs = report.labels.astype(np.int64) * classes + predictions
        tables.append(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))
    return tables[0], tables[1]


def confusion_figure(
    report: RobustnessReport, label_names: Sequence[str], path: Path | str
) -> Path:
    """Draws what each class is taken for under attack.

    Up to 25 classes: a matrix, in per cent of each true class. Above: the 15 commonest
    confusions as bars, each with the part that happens without an attack.

    Args:
      report: of an evaluation.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.

    Returns:
      `path`.
    """
    last = report.attacks[-1].outcome.predictions if report.attacks else report.clean.predictions
    seen = (report.labels, report.clean.predictions, last)
    classes = max(len(label_names), *(int(values.max()) + 1 for values in seen))
    clean, attacked = confusion(report, classes)
    if classes <= MATRIX:
        return save(_matrix(attacked, label_names), path)
    return save(_commonest(clean, attacked, label_names), path)


def _matrix(counts: np.ndarray, label_names: Sequence[str]) -> Figure:
    """Each row in per cent of its class: what is right in blue, what is wrong in vermilion."""
    classes = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell, size = (0.62, 10) if classes <= 12 else (0.42, 8)
    side = max(2.6 + cell * classes, 4.6)
    figure = new_figure(side + 0.6, side, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.97")
    own, none = np.eye(classes, dtype=bool), counts == 0
    for hidden, colours in ((~own | none, "Blues"), (own | none, "Oranges")):
        axes.imshow(np.ma.masked_array(share, hidden), cmap=colours, vmin=0, vmax=1.1)
    for row, column in np.argwhere(counts > 0):
        value = share[row, column]
        axes.text(
            column, row, f"{100 * value:.0f}" if value >= 0.01 else "<1", ha="center",
            va="center", fontsize=size, color="white" if value > 0.6 else "0.15",
        )  # fmt: skip
    words = [class_word(label_names, label, 16, 2) for label in range(classes)]
    axes.set_xticks(range(classes), words, rotation=40, ha="right", parse_math=False)
    axes.set_yticks(range(classes), words, parse_math=False)
    axes.set(xlabel="predicted under attack", ylabel="true class")
    axes.set_title("What each class is taken for under attack, in %")
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return figure


def _commonest(clean: np.ndarray, attacked: np.ndarray, label_names: Sequence[str]) -> Figure:
    """Bars of the commonest confusions, each with its part on clean images."""
    from matplotlib.ticker import MaxNLocator

    wrong = np.where(np.eye(len(attacked), dtype=bool), 0, attacked)
    order = np.argsort(-wrong, axis=None, kind="stable")[:ENDS]
    pairs = [tuple(map(int, np.unravel_index(flat, wrong.shape))) for flat in order]
    pairs = [pair for pair in pairs if wrong[pair] > 0]
    under, before = (np.array([table[pair] for pair in pairs]) for table in (wrong, clean))
    # An image that is wrong without an attack stays as it is, so it is part of the bar.
    before = np.minimum(before, under)
    figure = new_figure(9, 1.6 + 0.36 * max(len(pairs), 2), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(pairs))
    axes.barh(rows, before, color=NEUTRAL, alpha=0.6, label="misclassified without an attack")
    axes.barh(rows, under - before, left=before, color=ATTACKED, label="under attack only")
    for row, pair in enumerate(pairs):
        share = under[row] / attacked[pair[0]].sum()
        axes.annotate(
            f"{under[row]}  ({share:.0%} of the class)", (under[row], row), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=8.5, color="0.35",
        )  # fmt: skip
    words = [" → ".join(class_word(label_names, label, 24) for label in pair) for pair in pairs]
    axes.set_yticks(rows, words, fontsize=9, parse_math=False)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="images")
    axes.set_xlim(0, 1.32 * max(under, default=1))
    axes.set_title("The commonest confusions under attack: true class → predicted class")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, grid="x")
    figure.legend(frameon=False, fontsize=9, ncols=2, loc="outside lower center")
    return figure
