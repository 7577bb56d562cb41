"""Accuracy against eps from minimal distances, one line per model or attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.accuracy_curves import NORM_NAMES, eps_label
from tfrobust.figures.certificates import RadiusCurve
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import images_heading, mark_chance, new_figure, tidy
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# The axis ends where all but this share of the images is broken, as a few may be very far.
_SHOWN = 99


@dataclass(frozen=True)
class DistanceCurves:
    """The number of images without an adversarial image within eps.

    Attributes:
      curves: accuracy at the distance of each image that has one.
      medians: median distance of each curve; inf if most images have none.
      norm: the norm of all curves.
      chance: the accuracy of guessing, 1 / classes.
    """

    curves: Sequence[RadiusCurve]
    medians: Sequence[float]
    norm: str
    chance: float

    def __post_init__(self) -> None:
        if not self.curves or len(self.curves) != len(self.medians):
            raise UsageError("Expected minimal distances to draw, each with its median.")


@dataclass(frozen=True)
class MinimalDistancesFigure(Figure[DistanceCurves]):
    """The share of images without an adversarial image within eps, and the medians.

    In L∞ the axis counts in units of 1/255.
    """

    title: ClassVar[str] = "Accuracy against eps"
    group: ClassVar[str] = "distances"
    needs: ClassVar[type] = DistanceCurves

    def draw(self, data: DistanceCurves) -> Drawing:
        """Draws one line for each model or attack."""
        scale = 255.0 if data.norm == "linf" else 1.0
        figure = new_figure(7.2, 4.4, layout="constrained")
        axes = figure.subplots()
        reach, colours = 0.0, theme().series
        for number, (one, median) in enumerate(zip(data.curves, data.medians, strict=True)):
            colour = colours[number % len(colours)]
            found = np.isfinite(median)
            label = f"{one.name}: median {f'{median * scale:.3g}' if found else 'none'}"
            # Beyond the last distance the accuracy is constant: nothing was found there.
            x = np.append(one.radii, 2 * one.radii[-1] + 1) * scale
            y = np.append(one.accuracy, one.accuracy[-1])
            axes.step(x, y, where="post", color=colour, lw=1.8, label=label)
            if found and median:
                held = one.accuracy[np.searchsorted(one.radii, median, side="right") - 1]
                axes.plot(median * scale, held, "o", color=colour, ms=5)
            reach = max(reach, float(np.percentile(one.radii, _SHOWN)) * scale)
        mark_chance(axes, data.chance)
        axes.set(title=self.title, xlabel=eps_label(data.norm, scale), ylabel="accuracy",
                 ylim=(0, 1))  # fmt: skip
        axes.set_xlim(0, 1.05 * reach or 1.0)
        tidy(axes)
        heading = images_heading((one.images for one in data.curves), f", {NORM_NAMES[data.norm]}")
        axes.legend(title=heading, frameon=False, fontsize=9, title_fontsize=8.5, loc="upper right")
        return figure
