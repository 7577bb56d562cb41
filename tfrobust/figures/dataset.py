"""An overview of a data set: examples, images per class, sizes and modes of the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import new_figure, show_image
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.figure import SubFigure

# Above these numbers of classes, columns of examples and bars have no room for names.
_MAX_COLUMNS, _MAX_BARS = 12, 25
_ROWS = 6


@dataclass(frozen=True)
class DataSummary:
    """A data set by its splits.

    Attributes:
      title: of the figure.
      labels: split ('train', 'select', 'test') -> int [N] of its images.
      examples: label -> a few of its images, each [H, W, C], uint8 or in [0, 1].
      class_names: by label.
      imbalance: size of the largest class of 'train' over that of the smallest.
      sizes: of the files, as text -> number of files.
      modes: of the files -> number of files.
    """

    title: str
    labels: Mapping[str, np.ndarray]
    examples: Mapping[int, Sequence[np.ndarray]]
    class_names: Sequence[str]
    imbalance: float
    sizes: Counter[str]
    modes: Counter[str]

    def __post_init__(self) -> None:
        if not self.class_names or not self.labels:
            raise UsageError("Expected at least one class and one split, found none.")

    def counts(self) -> dict[str, np.ndarray]:
        """Split -> images per class, int [K]."""
        classes = len(self.class_names)
        return {part: np.bincount(y, minlength=classes) for part, y in self.labels.items()}


def shown_labels(classes: int) -> np.ndarray:
    """The labels whose images are shown, in order: if there are few classes, each several times."""
    columns = _columns(classes)
    shown = np.linspace(0, classes - 1, min(classes, columns * _ROWS)).round().astype(int)
    return np.tile(shown, _ROWS) if classes <= _MAX_COLUMNS else shown


def _columns(classes: int) -> int:
    return min(classes, 10 if classes > _MAX_COLUMNS else _MAX_COLUMNS)


@dataclass(frozen=True)
class DataSet(Figure[DataSummary]):
    """Examples with their classes, images per class, sizes and modes of the files."""

    title: ClassVar[str] = "The images"
    group: ClassVar[str] = "data"
    needs: ClassVar[type] = DataSummary
    unfolded: ClassVar[bool] = True

    def draw(self, data: DataSummary) -> Drawing:
        """Draws the examples on the left, the counts on the right."""
        figure = new_figure(14, 7.2, layout="constrained")
        figure.suptitle(data.title, fontsize=15, fontweight="bold", parse_math=False)
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.7, 1), wspace=0.03)
        left, right = halves
        _examples(left, data)
        classes, sizes, modes = right.subplots(3, 1, height_ratios=(6, 1.4, 1.4))
        (_bars if len(data.class_names) <= _MAX_BARS else _profile)(classes, data)
        _counter(sizes, data.sizes, "Sizes of the files")
        _counter(modes, data.modes, "Modes of the files")
        return figure


def _part_colours() -> tuple[str, ...]:
    return theme().clean, theme().further[2], theme().further[0]


def _examples(figure: SubFigure, data: DataSummary) -> None:
    """One column per class or, if there are too many, one image each for sixty classes."""
    classes = len(data.class_names)
    columns, shown = _columns(classes), shown_labels(classes)
    # Number of letters that fit above a column of the 8.8 inches.
    letters = min(int(8.8 / columns / 0.085), 30)
    images = {label: iter(found) for label, found in data.examples.items()}
    axes: Any = figure.subplots(_ROWS, columns, squeeze=False)
    for place, axis in enumerate(axes.ravel()):
        label = int(shown[place]) if place < len(shown) else -1
        image = next(images.get(label, iter(())), None)
        if image is None:
            axis.axis("off")
            continue
        show_image(axis, image / 255 if image.dtype == np.uint8 else image)
        axis.axis("off")
        if classes > _MAX_COLUMNS or place < columns:
            name = _short(data.class_names[label], letters)
            axis.set_title(name, fontsize=9.5, pad=3, parse_math=False)


def _bars(axes: Axes, data: DataSummary) -> None:
    names = data.class_names
    places, left = np.arange(len(names)), np.zeros(len(names), int)
    for (part, counts), colour in zip(data.counts().items(), _part_colours(), strict=False):
        axes.barh(places, counts, left=left, color=colour, label=part, height=0.75)
        left = left + counts
    for place, count in zip(places, left, strict=True):
        axes.text(float(count), float(place), f" {count:,}", va="center", fontsize=9)
    axes.set_yticks(places, [_short(name, 22) for name in names], fontsize=9.5, parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.02)
    axes.set_xlabel(_imbalance(data))
    _finish(axes)


def _profile(axes: Axes, data: DataSummary) -> None:
    """All classes by number of images, descending; the extremes are named."""
    parts = data.counts()
    total = np.sum(list(parts.values()), axis=0)
    order = np.argsort(-total, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    below = np.zeros(len(order), int)
    for (part, counts), colour in zip(parts.items(), _part_colours(), strict=False):
        axes.bar(ranks, counts[order], bottom=below, width=1, color=colour, label=part)
        below = below + counts[order]
    axes.set_xlim(0.5, len(order) + 0.5)
    axes.set_xlabel(f"{_ends(data, total, order)}\n{_imbalance(data)}", parse_math=False)
    _finish(axes)


def _imbalance(data: DataSummary) -> str:
    return f"imbalance in train {data.imbalance:.2f} (largest / smallest class)"


def _ends(data: DataSummary, total: np.ndarray, order: np.ndarray) -> str:
    def listed(labels: Iterable[int]) -> str:
        return ", ".join(f"{_short(data.class_names[i], 11)} {total[i]:,}" for i in labels)

    return f"most: {listed(order[:3])}\nfewest: {listed(order[:-4:-1])}"


def _counter(axes: Axes, counter: Counter[str], title: str) -> None:
    rows = counter.most_common(3)
    others = sum(counter.values()) - sum(count for _, count in rows)
    if others:
        rows.append((f"{len(counter) - 3} others", others))
    counts = [count for _, count in rows]
    axes.barh(range(len(rows)), counts, color=theme().neutral, height=0.7)
    for place, count in enumerate(counts):
        axes.text(count, place, f" {count:,}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=9.5)
    axes.set_ylim(3.6, -0.6)
    axes.set_xticks([])
    axes.margins(x=0.12)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.set_title(title, fontsize=11, loc="left")


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    # The legend is between the axes and their title.
    axes.set_title("Images per class", fontsize=11, loc="left", pad=22)
    axes.legend(ncols=3, fontsize=9, frameon=False, loc="lower right", bbox_to_anchor=(1.02, 0.98))


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"
