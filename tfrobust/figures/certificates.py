"""Certified accuracy against the radius, one line per smoothed classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import images_heading, mark_chance, new_figure, tidy
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class RadiusCurve:
    """A share of images against a radius.

    Attributes:
      name: in the legend.
      radii: float [R], ascending.
      accuracy: float [R], in [0, 1].
      images: number of images.
    """

    name: str
    radii: np.ndarray
    accuracy: np.ndarray
    images: int


@dataclass(frozen=True)
class CertifiedCurves:
    """Certified accuracy of one or more classifiers.

    Attributes:
      curves: each value applies up to its radius.
      chance: the accuracy of guessing, 1 / classes.
    """

    curves: Sequence[RadiusCurve]
    chance: float

    def __post_init__(self) -> None:
        if not self.curves:
            raise UsageError("Expected certificates to draw, found none.")


@dataclass(frozen=True)
class CertifiedAccuracy(Figure[CertifiedCurves]):
    """The share of images that are certified as their class, against the L2 radius."""

    title: ClassVar[str] = "Certified accuracy"
    group: ClassVar[str] = "certificates"
    needs: ClassVar[type] = CertifiedCurves

    def draw(self, data: CertifiedCurves) -> Drawing:
        """Draws one line for each classifier."""
        figure = new_figure(7.2, 4.4, layout="constrained")
        axes = figure.subplots()
        colours = theme().series
        for number, one in enumerate(data.curves):
            # Each value applies up to its radius, and the line falls to 0 after the last.
            x, y = np.append(one.radii, one.radii[-1]), np.append(one.accuracy, 0.0)
            axes.step(x, y, where="pre", color=colours[number % len(colours)], lw=1.8,
                      label=one.name)  # fmt: skip
        mark_chance(axes, data.chance)
        axes.set(title=self.title, xlabel="L2 radius (pixel values in [0, 1])",
                 ylabel="certified accuracy", ylim=(0, 1))  # fmt: skip
        axes.set_xlim(left=0)
        tidy(axes)
        axes.legend(title=images_heading(one.images for one in data.curves), frameon=False,
                    fontsize=9, title_fontsize=8.5, loc="upper right")  # fmt: skip
        return figure
