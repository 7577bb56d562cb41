"""Accuracy against eps from minimal distances, a line for each model or attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.evaluation.distances import MinimalDistances
from tfrobust.evaluation.figures_canvas import NEUTRAL, SERIES, new_figure, save, tidy
from tfrobust.evaluation.figures_curves import NORM_NAMES, eps_label

# The axis ends where all but this share of the images has fallen, for those that none is near.
_SHOWN = 99


def distances_figure(
    found: Sequence[MinimalDistances], path: Path | str, *, title: str = "Accuracy against eps"
) -> Path:
    """Draws the share of images without an adversarial image within eps, and the medians.

    In L∞ the axis counts levels of 255.

    Args:
      found: the distances, a line for each; all of one norm.
      path: the file; its suffix tells the format.
      title: of the figure.

    Returns:
      `path`.

    Raises:
      UsageError: nothing to draw, or norms that differ.
    """
    norms = {one.norm for one in found}
    if len(norms) != 1:
        named = ", ".join(sorted(norms)) or "none"
        raise UsageError(f"Expected minimal distances of one norm to draw, found {named}.")
    (norm,) = norms
    scale = 255.0 if norm == "linf" else 1.0
    figure = new_figure(7.2, 4.4, layout="constrained")
    axes = figure.subplots()
    reach = 0.0
    for number, one in enumerate(found):
        radii, accuracy = one.curve()
        colour = SERIES[number % len(SERIES)]
        median = "none" if not np.isfinite(one.median) else f"{one.median * scale:.3g}"
        label = f"{one.model}, {one.attack}: median {median}"
        # Beyond the last distance the accuracy stays: nothing was found there.
        ends = np.append(radii, 2 * radii[-1] + 1), np.append(accuracy, accuracy[-1])
        axes.step(ends[0] * scale, ends[1], where="post", color=colour, lw=1.8, label=label)
        if np.isfinite(one.median) and one.median:
            axes.plot(one.median * scale, one.accuracy(one.median), "o", color=colour, ms=5)
        reach = max(reach, float(np.percentile(radii, _SHOWN)) * scale)
    axes.axhline(1 / found[0].classes, color=NEUTRAL, lw=1, ls=":", zorder=1)
    axes.set(title=title, xlabel=eps_label(norm), ylabel="accuracy", ylim=(0, 1))
    axes.set_xlim(0, 1.05 * reach or 1.0)
    tidy(axes)
    images = {len(one.labels) for one in found}
    heading = f"{images.pop():,} images, {NORM_NAMES[norm]}" if len(images) == 1 else None
    axes.legend(title=heading, frameon=False, fontsize=9, title_fontsize=8.5, loc="upper right")
    return save(figure, path)
