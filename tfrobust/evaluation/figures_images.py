"""Images beside their adversarial ones, and the path of a descent step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.evaluation.figures_canvas import (
    ATTACKED,
    CELL,
    CLEAN,
    NEUTRAL,
    WRONG_WORD,
    amplification,
    amplified,
    axes_at,
    class_word,
    image_at,
    new_figure,
    save,
    text_at,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Steps of a path that are shown as images.
SHOWN = 8
# Inches.
_GAP, _CAPTION, _EDGE = 0.07, 0.46, 0.3
_TRIPLE = 3 * CELL + 2 * _GAP
# Where the rows of a path begin: from the left, and from the top.
_LEFT, _IMAGES, _NOISE, _CURVES = 0.7, 1.0, 2.78, 4.6


def triples_figure(
    x: np.ndarray,
    x_adv: np.ndarray,
    y: np.ndarray,
    p_clean: np.ndarray,
    p_adv: np.ndarray,
    label_names: Sequence[str],
    path: Path | str,
    *,
    title: str = "Clean, adversarial and the difference",
) -> Path:
    """Draws clean image, adversarial image and amplified difference, two triples in a row.

    Below each image stand the class that the model sees and its probability, and below
    the difference its largest value. One factor amplifies all differences.

    Args:
      x: float32 [N, H, W, 3] in [0, 1], N >= 1.
      x_adv: like x, made from it.
      y: int [N], the true labels.
      p_clean: float [N, K], probabilities on x.
      p_adv: float [N, K], probabilities on x_adv.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.
      title: of the figure.

    Returns:
      `path`.

    Raises:
      UsageError: the arrays do not belong together.
    """
    _check_triples(x, x_adv, y, p_clean, p_adv)
    delta = x_adv - x
    factor = amplification(delta)
    columns = min(2, len(x))
    rows = -(-len(x) // columns)
    width = 2 * _EDGE + columns * _TRIPLE + (columns - 1) * 0.55
    figure = new_figure(max(width, 5.5), 1.15 + rows * (CELL + _CAPTION + 0.12))
    text_at(figure, _EDGE, 0.36, title, size=15, weight="bold", ha="left")
    for i in range(len(x)):
        left = _EDGE + (i % columns) * (_TRIPLE + 0.55)
        top = 1.0 + (i // columns) * (CELL + _CAPTION + 0.12)
        if i < columns:
            _heads(figure, left, factor)
        for image, probabilities in ((x[i], p_clean[i]), (x_adv[i], p_adv[i])):
            image_at(figure, left, top, image)
            _seen(figure, left, top + CELL, probabilities, int(y[i]), label_names)
            left += CELL + _GAP
        if p_clean[i].argmax() != y[i]:
            words = f"true class: {class_word(label_names, int(y[i]), 17)}"
            text_at(figure, left, top + CELL + 0.31, words, size=8.5, ha="left", color="0.35")
        image_at(figure, left, top, amplified(delta[i], factor))
        largest = f"at most {255 * float(np.abs(delta[i]).max()):.3g}/255"
        for below, words in ((0.14, largest), (0.31, _size(delta[i]))):
            text_at(figure, left, top + CELL + below, words, size=8.5, ha="left", color="0.35")
    return save(figure, path)


def _check_triples(
    x: np.ndarray, x_adv: np.ndarray, y: np.ndarray, p_clean: np.ndarray, p_adv: np.ndarray
) -> None:
    fits = x.shape == x_adv.shape and x.ndim == 4 and p_clean.shape == p_adv.shape
    if not fits or not len(x) == len(y) == len(p_clean) or len(x) == 0:
        shapes = ", ".join(str(list(array.shape)) for array in (x, x_adv, y, p_clean, p_adv))
        raise UsageError(
            "Expected x and x_adv as [N, H, W, 3], y as [N], p_clean and p_adv as [N, K], N >= 1, "
            f"found {shapes}."
        )


def path_figure(
    steps: np.ndarray,
    x: np.ndarray,
    y: int,
    probabilities: np.ndarray,
    label_names: Sequence[str],
    path: Path | str,
    *,
    title: str = "A descent, step by step",
) -> Path:
    """Draws about 8 steps of a descent: image, amplified noise, and the probabilities.

    The curves are of the true class and of the class that is seen in the end. A path
    that has come to rest is shown up to there.

    Args:
      steps: float32 [S + 1, H, W, 3] in [0, 1], the image after 0..S steps.
      x: float32 [H, W, 3], the clean image.
      y: its label.
      probabilities: float [S + 1, K], what the model says at each step.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.
      title: of the figure.

    Returns:
      `path`.

    Raises:
      UsageError: the arrays do not belong together.
    """
    if steps.shape[1:] != x.shape or x.ndim != 3 or len(probabilities) != len(steps) != 0:
        raise UsageError(
            "Expected steps as [S + 1, H, W, 3], x as [H, W, 3] and probabilities as [S + 1, K], "
            f"found {list(steps.shape)}, {list(x.shape)} and {list(probabilities.shape)}."
        )
    last = resting_step(steps)
    shown = np.unique(np.linspace(0, last, min(SHOWN, last + 1)).round().astype(int))
    delta = steps[shown] - x
    factor = amplification(delta)
    columns = len(shown) + 1
    wide = max(columns * (CELL + _GAP) - _GAP, 4 * CELL)
    figure = new_figure(_LEFT + wide + _EDGE, _CURVES + 2.05)
    text_at(figure, _EDGE, 0.36, title, size=15, weight="bold", ha="left")
    _path_margin(figure, x, y, factor, label_names)
    for column, step in enumerate(shown):
        at = _LEFT + (column + 1) * (CELL + _GAP)
        head = "start" if step == 0 else f"step {step}"
        text_at(figure, at + CELL / 2, _IMAGES - 0.15, head, size=10, color="0.35")
        image_at(figure, at, _IMAGES, steps[step])
        _seen(figure, at, _IMAGES + CELL, probabilities[step], y, label_names)
        image_at(figure, at, _NOISE, amplified(delta[column], factor))
        size = _size(delta[column])
        text_at(figure, at, _NOISE + CELL + 0.14, size, size=8.5, ha="left", color="0.35")
    _probability_curves(figure, wide, probabilities[: last + 1], shown, y, label_names)
    return save(figure, path)


def _path_margin(
    figure: Figure, x: np.ndarray, y: int, factor: int, label_names: Sequence[str]
) -> None:
    """The clean image, and what the two rows are."""
    text_at(figure, _LEFT + CELL / 2, _IMAGES - 0.15, "clean", size=10, color="0.35")
    image_at(figure, _LEFT, _IMAGES, x)
    words = class_word(label_names, y, 17)
    text_at(figure, _LEFT, _IMAGES + CELL + 0.14, words, size=9, ha="left", weight="bold")
    text_at(figure, _LEFT, _IMAGES + CELL + 0.31, "true class", size=9, ha="left", color="0.35")
    noise = "difference" if factor == 1 else f"difference × {factor}"
    text_at(figure, _LEFT + CELL, _NOISE + CELL / 2, noise, size=10, ha="right", color="0.35")


def resting_step(steps: np.ndarray) -> int:
    """The step after which nothing moves any more, 0..S.

    Args:
      steps: float32 [S + 1, H, W, C].
    """
    moved = np.flatnonzero(np.any(steps[1:] != steps[:-1], axis=(1, 2, 3)))
    return int(moved[-1]) + 1 if len(moved) else 0


def _heads(figure: Figure, left: float, factor: int) -> None:
    difference = "difference" if factor == 1 else f"difference × {factor}"
    for number, head in enumerate(("clean", "adversarial", difference)):
        centre = left + number * (CELL + _GAP) + CELL / 2
        text_at(figure, centre, 0.84, head, size=10, color="0.35")


def _seen(
    figure: Figure,
    left: float,
    top: float,
    probabilities: np.ndarray,
    y: int,
    label_names: Sequence[str],
) -> None:
    """The class that the model sees, right or wrong, and its probability, on two lines."""
    top1 = int(probabilities.argmax())
    mark, colour = ("✓", CLEAN) if top1 == y else ("✗", WRONG_WORD)
    words = f"{mark} {class_word(label_names, top1, 17)}"
    text_at(figure, left, top + 0.14, words, size=9, ha="left", color=colour, weight="bold")
    text_at(figure, left, top + 0.31, f"{probabilities[top1]:.0%}", size=9, ha="left", color=colour)


def _size(delta: np.ndarray) -> str:
    """How much changed: the L2 norm, and the number of pixels where it is few of them."""
    # Compilers divide by 255 in more than one way, which leaves the last bit open.
    pixels = int(np.any(np.abs(delta) > 1e-6, axis=-1).sum())
    length = float(np.sqrt(np.square(delta, dtype=np.float64).sum()))
    few = 0 < pixels <= max(1, delta.shape[0] * delta.shape[1] // 20)
    count = f"{pixels} pixel{'s' if pixels > 1 else ''}, " if few else ""
    return f"{count}L2 {length:.2f}"


def _probability_curves(
    figure: Figure,
    wide: float,
    probabilities: np.ndarray,
    shown: np.ndarray,
    y: int,
    label_names: Sequence[str],
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = axes_at(figure, _LEFT, _CURVES, wide, 1.45)
    end = int(probabilities[-1].argmax())
    for label, colour in ((y, CLEAN), (end, ATTACKED)) if end != y else ((y, CLEAN),):
        curve, name = probabilities[:, label], class_word(label_names, label, 24)
        axes.plot(range(len(curve)), curve, color=colour, lw=1.8, label=name)
        axes.plot(shown, curve[shown], "o", color=colour, ms=5)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y)
    if len(wrong) and wrong[0] > 0:
        axes.axvline(wrong[0], color=NEUTRAL, lw=1, ls="--", zorder=1)
    axes.set(ylim=(0, 1.02), xlabel="step", ylabel="probability")
    axes.set_xlim(-0.02 * len(probabilities), 1.02 * max(len(probabilities) - 1, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    corner: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 0.97), "ncols": 2}
    legend = axes.legend(frameon=False, fontsize=9, **corner)
    for text in legend.get_texts():
        text.set_parse_math(False)
