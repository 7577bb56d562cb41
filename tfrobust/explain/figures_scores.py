"""Figures of numbers: the top-5 classes of an image, and what explanations are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfrobust.evaluation.figures_canvas import (
    ATTACKED,
    CELL,
    CLEAN,
    SERIES,
    axes_at,
    class_word,
    image_at,
    new_figure,
    save,
    text_at,
    tidy,
)

# Inches.
_EDGE, _HEAD, _ROW, _BARS, _WORDS = 0.3, 0.95, 1.62, 1.7, 1.55


def top5_figure(
    x: np.ndarray,
    x_adv: np.ndarray,
    y: np.ndarray,
    p_clean: np.ndarray,
    p_adv: np.ndarray,
    label_names: Sequence[str],
    path: Path | str,
) -> Path:
    """Each image, clean and adversarial, with its five most probable classes in words.

    Args:
      x: float32 [N, H, W, 3] in [0, 1], N >= 1.
      x_adv: like x, made from it.
      y: int [N], the true labels.
      p_clean: float [N, K], probabilities on x.
      p_adv: float [N, K], probabilities on x_adv.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.
    """
    half = CELL + _WORDS + _BARS + 0.35
    figure = new_figure(2 * _EDGE + 2 * half + 0.2, _HEAD + len(x) * _ROW + 0.2)
    text_at(figure, _EDGE, 0.32, "The five most probable classes", size=15, weight="bold",
            ha="left")  # fmt: skip
    sides = (("clean", x, p_clean, CLEAN), ("adversarial", x_adv, p_adv, ATTACKED))
    for side, (head, images, probs, colour) in enumerate(sides):
        left = _EDGE + side * (half + 0.2)
        text_at(figure, left, 0.72, head, size=12, weight="bold", ha="left")
        for row in range(len(x)):
            top = _HEAD + row * _ROW
            image_at(figure, left, top, images[row])
            best = np.argsort(-probs[row])[:5]
            axes = axes_at(figure, left + CELL + _WORDS, top, _BARS, CELL)
            axes.barh(range(len(best)), probs[row][best], color=colour, height=0.66)
            axes.set(xlim=(0, 1.18), ylim=(4.6, -0.6), xticks=[])
            words = [class_word(label_names, int(one), 20) for one in best]
            axes.set_yticks(range(len(best)), words, fontsize=9, parse_math=False)
            for tick, one in zip(axes.get_yticklabels(), best, strict=True):
                tick.set_fontweight("bold" if one == y[row] else "normal")
            for place, one in enumerate(best):
                axes.text(probs[row][one] + 0.02, place, f"{probs[row][one]:.0%}", va="center",
                          fontsize=8.5, color="0.35")  # fmt: skip
            axes.tick_params(left=False)
            axes.spines[:].set_visible(False)
    text_at(figure, 2 * _EDGE + 2 * half + 0.1, 0.36, "bold: the true class", size=9, ha="right",
            color="0.35")  # fmt: skip
    return save(figure, path)


def faithfulness_figure(
    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], path: Path | str
) -> Path:
    """Deletion and insertion curves of each method, mean over the images, a row per model.

    Args:
      curves: model -> method -> (deletion, insertion), each float [N, steps + 1].
      path: the file; its suffix tells the format.
    """
    figure = new_figure(9.2, 0.6 + 3.0 * len(curves), layout="constrained")
    plots = figure.subplots(len(curves), 2, squeeze=False, sharex=True, sharey=True)
    for (model, methods), row in zip(curves.items(), plots, strict=True):
        for kind, axes in enumerate(row):
            for colour, (name, pair) in zip(SERIES * 2, methods.items(), strict=False):
                mean = pair[kind].mean(axis=0)
                share = np.linspace(0, 100, len(mean))
                axes.plot(share, mean, label=name, color=colour, linewidth=1.6)
            word = ("removed (lower is better)", "put in (higher is better)")[kind]
            axes.set_xlabel(f"% of pixels {word}")
            axes.set_title(f"{model}: {('deletion', 'insertion')[kind]}", fontsize=11)
            axes.set_ylim(0, 1.02)
            tidy(axes)
        row[0].set_ylabel("probability of the class")
    plots[0][1].legend(fontsize=8, frameon=False, loc="lower right")
    return save(figure, path)
