"""Certified accuracy against the radius, one line for each smoothed classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.evaluation.certificates import Certificates
from tfrobust.evaluation.figures_canvas import NEUTRAL, SERIES, new_figure, save, tidy


def certified_figure(
    found: Sequence[Certificates], path: Path | str, *, title: str = "Certified accuracy"
) -> Path:
    """Draws the share of images that are certified as their class, against the L2 radius.

    Args:
      found: the certificates, a line for each.
      path: the file; its suffix tells the format.
      title: of the figure.

    Returns:
      `path`.

    Raises:
      UsageError: nothing to draw.
    """
    if not found:
        raise UsageError("Expected certificates to draw, found none.")
    figure = new_figure(7.2, 4.4, layout="constrained")
    axes = figure.subplots()
    for number, one in enumerate(found):
        radii, accuracy = one.curve()
        # Each value holds up to its radius, and the line falls to 0 after the last.
        x, y = np.append(radii, radii[-1]), np.append(accuracy, 0.0)
        label = f"{one.model}, sigma {one.sigma:g}"
        axes.step(x, y, where="pre", color=SERIES[number % len(SERIES)], lw=1.8, label=label)
    guess = 1 / found[0].classes
    axes.axhline(guess, color=NEUTRAL, lw=1, ls=":", zorder=1)
    axes.annotate(f"guessing, {guess:.2g}", (1, guess), xycoords=("axes fraction", "data"),
                  xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8.5,
                  color="0.35")  # fmt: skip
    axes.set(title=title, xlabel="L2 radius (pixel values in [0, 1])", ylabel="certified accuracy",
             ylim=(0, 1))  # fmt: skip
    axes.set_xlim(left=0)
    tidy(axes)
    images = {len(one.labels) for one in found}
    heading = f"{images.pop():,} images" if len(images) == 1 else None
    axes.legend(title=heading, frameon=False, fontsize=9, title_fontsize=8.5, loc="upper right")
    return save(figure, path)
