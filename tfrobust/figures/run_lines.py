"""Lines of accuracy on a report's page: runs against eps, and one run against its epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tfrobust.errors import UsageError
from tfrobust.figures.accuracy_curves import eps_label, eps_scale
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import MARKERS, new_figure, spread_ticks, tidy
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

# Inches, chosen so that letters match the surrounding text on a desktop page.
_SIZE = (5.4, 3.2)


@dataclass(frozen=True)
class RunLine:
    """Accuracy of one run.

    Attributes:
      name: in the legend.
      x: eps, or epochs, ascending.
      accuracy: in [0, 1], one per x.
      colour: index of the colour, from 0.
      dashed: for a second kind of line of the same run.
    """

    name: str
    x: Sequence[float]
    accuracy: Sequence[float]
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class RunsByEps:
    """The worst case of one or more runs against the radius.

    Attributes:
      lines: one for each run.
      norm: of the ball.
    """

    lines: Sequence[RunLine]
    norm: str

    def __post_init__(self) -> None:
        if not any(len(one.x) for one in self.lines):
            raise UsageError("Expected a line with at least one point, found none.")


@dataclass(frozen=True)
class RunByEpoch:
    """Accuracy on 'select' after each epoch.

    Attributes:
      lines: clean and attacked.
      stages: positions where a stage starts.
    """

    lines: Sequence[RunLine]
    stages: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not any(len(one.x) for one in self.lines):
            raise UsageError("Expected a line with at least one point, found none.")


@dataclass(frozen=True)
class RunsAgainstEps(Figure[RunsByEps]):
    """Runs side by side against the radius of the attack."""

    title: ClassVar[str] = "Accuracy against the radius of the attack"
    group: ClassVar[str] = "page"
    needs: ClassVar[type] = RunsByEps

    def draw(self, data: RunsByEps) -> Drawing:
        """Draws one line for each run."""
        figure = new_figure(*_SIZE, layout="constrained")
        axes = figure.subplots()
        radii = sorted({eps for one in data.lines for eps in one.x})
        scale = eps_scale(data.norm, radii)
        _lines(axes, data.lines, scale)
        axes.set_xlabel(eps_label(data.norm, scale))
        _legend(figure, len(data.lines))
        spread_ticks(axes, [eps * scale for eps in radii], [f"{eps * scale:.4g}" for eps in radii])
        return figure


@dataclass(frozen=True)
class RunAgainstEpochs(Figure[RunByEpoch]):
    """A run's accuracy on 'select', with a line where each stage starts."""

    title: ClassVar[str] = "Training"
    group: ClassVar[str] = "page"
    needs: ClassVar[type] = RunByEpoch

    def draw(self, data: RunByEpoch) -> Drawing:
        """Draws the clean and the attacked line."""
        figure = new_figure(*_SIZE, layout="constrained")
        axes = figure.subplots()
        _lines(axes, data.lines, 1.0)
        for place in data.stages:
            axes.axvline(place, color=theme().neutral, lw=1, ls=":", zorder=1)
        axes.set_xlabel("epoch")
        _legend(figure, len(data.lines))
        epochs = sorted({epoch for one in data.lines for epoch in one.x})
        spread_ticks(axes, epochs, [f"{epoch:g}" for epoch in epochs])
        return figure


def _lines(axes: Axes, lines: Sequence[RunLine], scale: float) -> None:
    colours = (theme().clean, theme().attacked, *theme().further)
    for one in lines:
        number = one.colour % len(colours)
        axes.plot([x * scale for x in one.x], one.accuracy, color=colours[number], lw=1.8, ms=4,
                  marker=MARKERS[number % len(MARKERS)], ls="--" if one.dashed else "-",
                  label=one.name, clip_on=False)  # fmt: skip
    axes.set(ylim=(0, 1), ylabel="accuracy")
    tidy(axes)


def _legend(figure: Drawing, lines: int) -> None:
    legend = figure.legend(loc="outside lower center", ncols=min(lines, 2), frameon=False,
                           fontsize=9)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
