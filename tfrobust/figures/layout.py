"""Shared layout: images and text placed in inches, the look of plots, ticks without overlap."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches of one image: 256 dots, which is 8 per pixel at 32x32 and 4 at 64x64.
CELL = 1.28
#: Markers that distinguish curves in addition to colours.
MARKERS = "osD^vP"


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of this size in inches, without pyplot's global state."""
    from tfrobust.figures.notebook_figure import NotebookFigure

    return NotebookFigure(figsize=(width, height), facecolor=theme().ground, **options)


def text_at(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    """Text placed in inches from the left and from the top, centred by default."""
    width, height = figure.get_size_inches()
    # Class names may contain dollar signs, which would be parsed as mathematics.
    settings = {"ha": "center", "va": "center", "parse_math": False, **options}
    figure.text(left / width, 1 - top / height, text, **settings)


def image_at(figure: Figure, left: float, top: float, image: np.ndarray) -> Axes:
    """An image [H, W, C] in [0, 1], `CELL` wide, with square pixels."""
    axes = axes_at(figure, left, top, CELL, CELL)
    show_image(axes, image)
    return axes


def show_image(axes: Axes, image: np.ndarray) -> None:
    """An image [H, W, C] in [0, 1]; one channel is shown in grey."""
    _frame(axes)
    image = np.clip(image, 0, 1)
    shown = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    axes.imshow(shown, interpolation="nearest")


def map_at(figure: Figure, left: float, top: float, values: np.ndarray) -> Axes:
    """A signed map [H, W] in [-1, 1]: red is positive, blue negative."""
    axes = axes_at(figure, left, top, CELL, CELL)
    _frame(axes)
    axes.imshow(values, interpolation="nearest", cmap="RdBu_r", vmin=-1, vmax=1)
    return axes


def _frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=theme().line, linewidth=0.5)


def axes_at(figure: Figure, left: float, top: float, wide: float, high: float) -> Axes:
    """Axes of this size, placed in inches from the left and from the top."""
    width, height = figure.get_size_inches()
    area = (left / width, 1 - (top + high) / height, wide / width, high / height)
    return figure.add_axes(area)


def tidy(axes: Axes, grid: str = "both") -> None:
    """The look of every plot: a faint grid and no frame at the top and right."""
    axes.grid(alpha=0.25, axis=grid)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def class_word(label_names: Sequence[str], label: int, width: int = 30, lines: int = 1) -> str:
    """A class name on at most `lines` lines; of a list of synonyms that is too long, the first.

    A model may have classes that the images lack: those are shown by number.
    """
    name = label_names[label] if label < len(label_names) else f"class {label}"
    if len(name) > width * lines:
        name = name.split(",")[0]
    return "\n".join(textwrap.wrap(name, width, max_lines=lines, placeholder="…"))


def label_width(names: Iterable[str], size: float) -> float:
    """Inches of a column for the longest of these names at this font size."""
    return 0.2 + 0.0083 * size * max(map(len, names))


def amplification(delta: np.ndarray) -> int:
    """The integer factor, at least 1, that shows a difference best.

    With it the 99th percentile of the changed values just reaches black or white.
    """
    # Divisions by 255 are implemented in different ways, so the last bit may differ.
    changed = np.abs(delta)[np.abs(delta) > 1e-6]
    large = float(np.percentile(changed, 99)) if changed.size else 1.0
    return max(1, int(0.5 / max(large, 1e-3) + 1e-3))


def amplified(delta: np.ndarray, factor: float) -> np.ndarray:
    """A difference of images as an image: grey means no change."""
    return np.clip(0.5 + factor * delta, 0, 1)


def title_at(figure: Figure, left: float, title: str, top: float = 0.36) -> None:
    """The title of a figure whose layout is in inches."""
    text_at(figure, left, top, title, size=15, weight="bold", ha="left")


def mark_chance(axes: Axes, chance: float) -> None:
    """A dotted line at the accuracy of guessing."""
    axes.axhline(chance, color=theme().neutral, lw=1, ls=":", zorder=1)
    axes.annotate(
        f"guessing, {chance:.2g}", (1, chance), xycoords=("axes fraction", "data"),
        xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8.5, color=theme().soft,
    )  # fmt: skip


def spread_ticks(
    axes: Axes, values: Sequence[float], labels: Sequence[str], first: Iterable[float] = ()
) -> None:
    """Ticks along x at these values, except those whose labels would overlap another's.

    Args:
      axes: with its final limits and scale.
      values: ascending.
      labels: one for each.
      first: values with priority; the extremes come next.
    """
    axes.set_xticks(values, labels)
    axes.set_xticks([], minor=True)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    # A gap of about one letter.
    gap = 0.06 * figure.dpi
    wanted = [i for i, value in enumerate(values) if any(np.isclose(value, one) for one in first)]
    order = dict.fromkeys([*wanted, 0, len(values) - 1, *range(len(values))])
    kept: list[int] = []
    for i in order:
        if all(boxes[i].x1 + gap < boxes[k].x0 or boxes[k].x1 + gap < boxes[i].x0 for k in kept):
            kept.append(i)
    kept.sort()
    axes.set_xticks([values[i] for i in kept], [labels[i] for i in kept])


def images_heading(counts: Iterable[int], more: str = "") -> str | None:
    """A legend's heading: the number of images if all curves have the same; else None."""
    found = set(counts)
    return f"{found.pop():,} images{more}" if len(found) == 1 else None
