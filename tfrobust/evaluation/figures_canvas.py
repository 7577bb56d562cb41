"""What all figures of an evaluation share: colours, words, images in inches, saving."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.run import write_bytes
from tfrobust.training.curves import BLUE, GREEN, GREY, ORANGE, PURPLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Clean is blue and attacked is vermilion in every figure; further curves follow.
CLEAN, ATTACKED, NEUTRAL = BLUE, ORANGE, GREY
SERIES = (ORANGE, BLUE, GREEN, PURPLE, "#E69F00", "#56B4E9", "#7A5C3E", "#8F8F8F", "#B59F00")
#: Words on white in vermilion are darker than lines, for contrast.
WRONG_WORD = "#C44601"
DPI = 200
#: Inches of one image: 256 dots, which is 8 a pixel at 32x32 and 4 at 64x64.
CELL = 1.28


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of that size in inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **options)


def save(figure: Figure, path: Path | str) -> Path:
    """Writes the figure atomically; the suffix tells the format (.png, .pdf, .svg).

    Returns:
      The path.

    Raises:
      TFRobustError: the disk is full or the folder cannot be written.
    """
    path, content = Path(path), io.BytesIO()
    figure.savefig(content, format=path.suffix[1:] or "png", dpi=DPI)
    write_bytes(path, content.getvalue())
    return path


def text_at(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    """Text at inches from the left and from the top; centred, if nothing else is said."""
    width, height = figure.get_size_inches()
    # Class words may hold dollar signs, which would be read as mathematics.
    settings = {"ha": "center", "va": "center", "parse_math": False, **options}
    figure.text(left / width, 1 - top / height, text, **settings)


def image_at(figure: Figure, left: float, top: float, image: np.ndarray) -> Axes:
    """An image [H, W, 3] in [0, 1], `CELL` wide, every pixel a square."""
    axes = axes_at(figure, left, top, CELL, CELL)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.75", linewidth=0.5)
    axes.imshow(np.clip(image, 0, 1), interpolation="nearest")
    return axes


def axes_at(figure: Figure, left: float, top: float, wide: float, high: float) -> Axes:
    """Axes of that size, placed in inches from the left and from the top."""
    width, height = figure.get_size_inches()
    area = (left / width, 1 - (top + high) / height, wide / width, high / height)
    return figure.add_axes(area)


def tidy(axes: Axes, grid: str = "both") -> None:
    """The house style of a plot: a faint grid and no frame above and to the right."""
    axes.grid(alpha=0.25, axis=grid)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def class_word(label_names: Sequence[str], label: int, width: int = 30, lines: int = 1) -> str:
    """A class's name on at most `lines` lines; of synonyms in a row too long, the first.

    A model may know classes that the images do not have: those go by their number.
    """
    name = label_names[label] if label < len(label_names) else f"class {label}"
    if len(name) > width * lines:
        name = name.split(",")[0]
    return "\n".join(textwrap.wrap(name, width, max_lines=lines, placeholder="…"))


def label_width(names: Iterable[str], size: float) -> float:
    """Inches of a column that holds the longest of these words in letters of that size."""
    return 0.2 + 0.0083 * size * max(map(len, names))


def amplification(delta: np.ndarray) -> int:
    """The whole factor, 1 or more, that shows a difference best.

    With it the 99th percentile of what has changed just reaches black or white.
    """
    # Divisions by 255 are done in more than one way, which leaves the last bit open.
    changed = np.abs(delta)[np.abs(delta) > 1e-6]
    large = float(np.percentile(changed, 99)) if changed.size else 1.0
    return max(1, int(0.5 / max(large, 1e-3) + 1e-3))


def amplified(delta: np.ndarray, factor: float) -> np.ndarray:
    """A difference of images as an image: grey is no change."""
    return np.clip(0.5 + factor * delta, 0, 1)
