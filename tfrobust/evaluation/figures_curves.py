"""Accuracy against eps and against steps, several models or attacks in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.evaluation.curves import Curve
from tfrobust.evaluation.figures_canvas import NEUTRAL, SERIES, new_figure, save, tidy
from tfrobust.settings import format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: How figures write norms.
NORM_NAMES = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
# Curves that reach further, in multiples of eps, are drawn on a scale of doublings.
_LINEAR_UP_TO = 8
_MARKERS = "osD^vP"


def eps_curve_figure(
    curves: Mapping[str, Curve], path: Path | str, *, title: str = "Accuracy against eps"
) -> Path:
    """Draws accuracy against the radius of the ball, with 95 % bands.

    A vertical line marks the run's eps, a dotted one the accuracy of guessing. In L∞
    the axis counts levels of 255. Beyond 8 times the run's eps the axis doubles.

    Args:
      curves: caption -> curve against eps; all of one norm.
      path: the file; its suffix tells the format.
      title: of the figure.

    Returns:
      `path`.

    Raises:
      UsageError: no curve, one against steps, or norms that differ.
    """
    first = _checked(curves, "eps")
    norm = first.threat_model.norm
    scale = 255.0 if norm == "linf" else 1.0
    figure = new_figure(7.2, 4.4, layout="constrained")
    axes = figure.subplots()
    _draw(axes, curves, scale)
    _mark_eps(axes, curves, scale)
    reach = max(curve.values[-1] for curve in curves.values())
    if reach > _LINEAR_UP_TO * first.threat_model.eps:
        _doubling_axis(axes, curves, scale)
    axes.set(xlabel=eps_label(norm))
    # Above the eps on the line, where the legend is not.
    axes.set_title(title, pad=20)
    _finish(axes, curves)
    return save(figure, path)


def steps_figure(
    curves: Mapping[str, Curve], path: Path | str, *, title: str = "Accuracy against steps"
) -> Path:
    """Draws accuracy against the steps of an attack, with 95 % bands, at one eps.

    A curve that has not levelled off at its right end stands for an attack with too few
    steps.

    Args:
      curves: caption -> curve against steps.
      path: the file; its suffix tells the format.
      title: of the figure.

    Returns:
      `path`.

    Raises:
      UsageError: no curve, one against eps, or norms that differ.
    """
    first = _checked(curves, "steps")
    figure = new_figure(7.2, 4.4, layout="constrained")
    axes = figure.subplots()
    _draw(axes, curves, 1.0)
    steps = sorted({value for curve in curves.values() for value in curve.values})
    # Logarithmic from the first step on, with room for 0, the clean images.
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set_xticks(steps, ["clean" if step == 0 else f"{step:g}" for step in steps], minor=False)
    axes.set_xticks([], minor=True)
    ball = first.threat_model
    axes.set(title=title, xlabel=f"steps, {NORM_NAMES[ball.norm]}, eps {format_eps(ball.eps)}")
    _finish(axes, curves)
    return save(figure, path)


def eps_label(norm: str) -> str:
    """What an axis of radii says: the norm and its unit."""
    unit = {"linf": "k/255", "l0": "pixels"}.get(norm, "pixel values in [0, 1]")
    return f"eps, {NORM_NAMES[norm]} ({unit})"


def _checked(curves: Mapping[str, Curve], quantity: str) -> Curve:
    kinds = {(curve.quantity, curve.threat_model.norm) for curve in curves.values()}
    if len(kinds) != 1 or {kind for kind, _ in kinds} != {quantity}:
        raise UsageError(
            f"Expected one or more curves against {quantity}, all of one norm, found "
            f"{', '.join(' in '.join(kind) for kind in sorted(kinds)) or 'none'}."
        )
    return next(iter(curves.values()))


def _draw(axes: Axes, curves: Mapping[str, Curve], scale: float) -> None:
    differ = len({curve.total for curve in curves.values()}) > 1
    for number, (name, curve) in enumerate(curves.items()):
        name = f"{name} ({curve.total:,} images)" if differ else name
        colour = SERIES[number % len(SERIES)]
        marker = _MARKERS[number % len(_MARKERS)]
        x = np.array(curve.values) * scale
        low, high = np.transpose(curve.intervals)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, curve.accuracy, color=colour, marker=marker, ms=4.5, lw=1.8, label=name,
                  clip_on=False, zorder=3)  # fmt: skip


def _mark_eps(axes: Axes, curves: Mapping[str, Curve], scale: float) -> None:
    for eps in sorted({float(curve.threat_model.eps) for curve in curves.values()}):
        axes.axvline(eps * scale, color=NEUTRAL, lw=1, ls="--", zorder=1)
        axes.annotate(
            f"eps {format_eps(eps)}", (eps * scale, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 6), textcoords="offset points", fontsize=8.5, color="0.35", ha="center",
        )  # fmt: skip


def _doubling_axis(axes: Axes, curves: Mapping[str, Curve], scale: float) -> None:
    values = sorted({value * scale for curve in curves.values() for value in curve.values})
    smallest = next(value for value in values if value > 0)
    axes.set_xscale("symlog", linthresh=smallest, linscale=0.6, base=2)
    axes.set_xticks(values, [f"{value:.3g}" for value in values])
    axes.set_xticks([], minor=True)


def _finish(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for chance in sorted({curve.chance for curve in curves.values()}):
        axes.axhline(chance, color=NEUTRAL, lw=1, ls=":", zorder=1)
        axes.annotate(
            f"guessing, {chance:.2g}", (1, chance), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8.5, color="0.35",
        )  # fmt: skip
    axes.set(ylabel="accuracy, with 95 % interval", ylim=(0, 1))
    axes.set_xlim(left=0)
    tidy(axes)
    images = {curve.total for curve in curves.values()}
    heading = f"{images.pop():,} images" if len(images) == 1 else None
    axes.legend(title=heading, frameon=False, fontsize=9, title_fontsize=8.5, loc="upper right")
