"""Accuracy against eps and against steps, several models or attacks in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.chance import wilson
from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import (
    MARKERS,
    images_heading,
    mark_chance,
    new_figure,
    spread_ticks,
    tidy,
)
from tfrobust.figures.style import theme
from tfrobust.settings import format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: The names of norms in figures.
NORM_NAMES = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
# Curves that reach further, in multiples of eps, are drawn on a logarithmic scale of base 2.
_LINEAR_UP_TO = 8


@dataclass(frozen=True)
class AccuracyCurve:
    """Accuracy on one sample of images, point by point.

    Attributes:
      name: in the legend.
      values: eps, or steps, ascending; 0 means the clean images.
      correct: number of images still classified correctly at each value.
      total: images in the sample.
    """

    name: str
    values: Sequence[float]
    correct: Sequence[int]
    total: int

    @property
    def accuracy(self) -> list[float]:
        """In [0, 1], one for each value."""
        return [count / self.total for count in self.correct]


@dataclass(frozen=True)
class AccuracyCurves:
    """Curves for one norm, against the same quantity.

    Attributes:
      curves: at least one.
      norm: of the ball.
      eps: the run's radius.
      chance: the accuracy of guessing, 1 / classes.
    """

    curves: Sequence[AccuracyCurve]
    norm: str
    eps: float
    chance: float

    def __post_init__(self) -> None:
        if not self.curves or not all(len(one.values) == len(one.correct) for one in self.curves):
            raise UsageError("Expected at least one curve, each with as many counts as values.")

    @property
    def values(self) -> list[float]:
        """The values of all curves, ascending."""
        return sorted({float(value) for one in self.curves for value in one.values})


@dataclass(frozen=True)
class EpsCurves(AccuracyCurves):
    """Curves against the radius of the ball."""


@dataclass(frozen=True)
class StepsCurves(AccuracyCurves):
    """Curves against the steps of an attack, all at one eps."""


@dataclass(frozen=True)
class AccuracyAgainstEps(Figure[EpsCurves]):
    """Accuracy against the radius of the ball, with 95 % bands.

    A vertical line marks the run's eps, a dotted one the accuracy of guessing. In L∞ the axis
    counts in units of 1/255 if eps is such a fraction; beyond 8 times eps it is logarithmic.
    """

    title: ClassVar[str] = "Accuracy against eps"
    group: ClassVar[str] = "evaluation"
    needs: ClassVar[type] = EpsCurves

    def draw(self, data: EpsCurves) -> Drawing:
        """Draws one line for each curve."""
        scale = eps_scale(data.norm, [data.eps])
        figure = new_figure(7.2, 4.4, layout="constrained")
        axes = figure.subplots()
        _draw(axes, data, scale)
        axes.axvline(data.eps * scale, color=theme().neutral, lw=1, ls="--", zorder=1)
        axes.annotate(
            f"eps {format_eps(data.eps, data.norm)}", (data.eps * scale, 1),
            xycoords=("data", "axes fraction"), xytext=(0, 6), textcoords="offset points",
            fontsize=8.5, color=theme().soft, ha="center",
        )  # fmt: skip
        axes.set(xlabel=eps_label(data.norm, scale))
        # Above the eps on the line, away from the legend.
        axes.set_title(self.title, pad=20)
        _finish(axes, data)
        if data.values[-1] > _LINEAR_UP_TO * data.eps:
            values = [value * scale for value in data.values]
            smallest = next(value for value in values if value > 0)
            axes.set_xscale("symlog", linthresh=smallest, linscale=0.6, base=2)
            spread_ticks(axes, values, [f"{v:.3g}" for v in values], first=[data.eps * scale])
        return figure


@dataclass(frozen=True)
class AccuracyAgainstSteps(Figure[StepsCurves]):
    """Accuracy against the steps of an attack, with 95 % bands, at one eps.

    A curve that has not levelled off at its right end indicates an attack with too few steps.
    """

    title: ClassVar[str] = "Accuracy against steps"
    group: ClassVar[str] = "evaluation"
    needs: ClassVar[type] = StepsCurves

    def draw(self, data: StepsCurves) -> Drawing:
        """Draws one line for each curve."""
        figure = new_figure(7.2, 4.4, layout="constrained")
        axes = figure.subplots()
        _draw(axes, data, 1.0)
        eps = f"{NORM_NAMES[data.norm]}, eps {format_eps(data.eps, data.norm)}"
        axes.set(title=self.title, xlabel=f"steps, {eps}")
        _finish(axes, data)
        # Logarithmic from the first step on, with room for 0, the clean images.
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        labels = ["clean" if step == 0 else f"{step:g}" for step in data.values]
        spread_ticks(axes, data.values, labels)
        return figure


def eps_scale(norm: str, radii: Sequence[float]) -> float:
    """The factor for radii on an axis: 255 in L∞ if they are fractions of 255; else 1.

    A user who writes 0.1 sees 0.1 on the axis, not 25.5.
    """
    levels = all(format_eps(eps, norm).endswith("/255") for eps in radii if eps)
    return 255.0 if norm == "linf" and levels else 1.0


def eps_label(norm: str, scale: float) -> str:
    """The label of an axis of radii: the norm and its unit."""
    unit = "pixels" if norm == "l0" else "pixel values in [0, 1]"
    return f"eps, {NORM_NAMES[norm]} ({'k/255' if scale == 255 else unit})"


def _draw(axes: Axes, data: AccuracyCurves, scale: float) -> None:
    differ = len({curve.total for curve in data.curves}) > 1
    colours = theme().series
    for number, curve in enumerate(data.curves):
        name = f"{curve.name} ({curve.total:,} images)" if differ else curve.name
        colour = colours[number % len(colours)]
        x = np.array(curve.values) * scale
        low, high = np.transpose([wilson(count, curve.total) for count in curve.correct])
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, curve.accuracy, color=colour, marker=MARKERS[number % len(MARKERS)], ms=4.5,
                  lw=1.8, label=name, clip_on=False, zorder=3)  # fmt: skip


def _finish(axes: Axes, data: AccuracyCurves) -> None:
    mark_chance(axes, data.chance)
    axes.set(ylabel="accuracy, with 95 % interval", ylim=(0, 1))
    axes.set_xlim(left=0)
    tidy(axes)
    heading = images_heading(curve.total for curve in data.curves)
    axes.legend(title=heading, frameon=False, fontsize=9, title_fontsize=8.5, loc="upper right")
