"""One style for every figure: its colours, light and dark, and its fonts.

The colours are those of Okabe and Ito, https://jfly.uni-koeln.de/color/, which people with any
kind of colour vision can tell apart; on a dark background they are lighter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap

#: Dots per inch of a PNG.
DPI = 200
#: The smallest font size in points: 11 dots high if a PNG is shown at half its size.
SMALLEST = 8.0


@dataclass(frozen=True)
class Theme:
    """The colours for a light or dark background.

    Attributes:
      ground: the background.
      ink: titles and labels.
      soft: secondary text; contrast of at least 4.5 to 1 with the background.
      line: frames.
      neutral: neither clean nor attacked.
      clean: clean images and correct predictions.
      attacked: attacked images.
      wrong: text in the colour of `attacked`, which needs more contrast than lines.
      further: curves after these.
    """

    ground: str
    ink: str
    soft: str
    line: str
    neutral: str
    clean: str
    attacked: str
    wrong: str
    further: tuple[str, ...]

    @property
    def series(self) -> tuple[str, ...]:
        """The colours of curves, in order."""
        return (self.attacked, self.clean, *self.further)

    def shades(self, colour: str) -> LinearSegmentedColormap:
        """A colour map from the background to a colour."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("shades", [self.ground, colour])

    def settings(self) -> dict[Any, Any]:
        """The theme as matplotlib settings."""
        from cycler import cycler

        ground = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
        ink = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor",
               "ytick.labelcolor")  # fmt: skip
        line = ("axes.edgecolor", "xtick.color", "ytick.color")
        return {
            **dict.fromkeys(ground, self.ground),
            **dict.fromkeys(ink, self.ink),
            **dict.fromkeys(line, self.soft),
            "grid.color": self.soft,
            "axes.prop_cycle": cycler(color=self.series),
            "axes.titlesize": 12,
            "svg.hashsalt": "tfrobust",  # the same figure is the same file
        }


LIGHT = Theme(
    ground="#FFFFFF", ink="#1B1D20", soft="#595959", line="#BFBFBF", neutral="#777777",
    clean="#0072B2", attacked="#D55E00", wrong="#C44601",
    further=("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C3E", "#8F8F8F", "#B59F00"),
)  # fmt: skip
DARK = Theme(
    ground="#1F2226", ink="#ECEEF0", soft="#A9B0B8", line="#4A5159", neutral="#9AA1A9",
    clean="#56B4E9", attacked="#F08A4B", wrong="#F08A4B",
    further=("#3ECF72", "#DD9CC6", "#E6B93C", "#7C9BFF", "#C8A27C", "#BDBDBD", "#F0E442"),
)  # fmt: skip
THEMES = {"light": LIGHT, "dark": DARK}
_CURRENT: ContextVar[Theme] = ContextVar("theme", default=LIGHT)


def theme() -> Theme:
    """The active theme; light by default."""
    return _CURRENT.get()


@contextlib.contextmanager
def using(entered: Theme) -> Iterator[Theme]:
    """Activates a theme. Matplotlib's settings are per process: one thread draws at a time."""
    import matplotlib

    token = _CURRENT.set(entered)
    try:
        with matplotlib.rc_context(entered.settings()):
            yield entered
    finally:
        _CURRENT.reset(token)


def readable_on(colour: Any) -> str:
    """Black or white text, whichever has more contrast with a colour."""
    return "#000000" if luminance(colour) > 0.18 else "#FFFFFF"


def luminance(colour: Any) -> float:
    """The relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Any, other: Any) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
