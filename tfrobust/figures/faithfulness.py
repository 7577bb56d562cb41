"""Deletion and insertion: the probability as the pixels of a map are removed or inserted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import new_figure, tidy
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class DeletionCurves:
    """Probabilities along deletion and insertion.

    Attributes:
      curves: model -> method -> (deletion, insertion), each float [N, steps + 1].
    """

    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]

    def __post_init__(self) -> None:
        if not self.curves:
            raise UsageError("Expected curves of at least one model, found none.")


@dataclass(frozen=True)
class Faithfulness(Figure[DeletionCurves]):
    """Deletion and insertion curves of each method, averaged over images, one row per model."""

    title: ClassVar[str] = "Deletion and insertion"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = DeletionCurves

    def draw(self, data: DeletionCurves) -> Drawing:
        """Draws one row per model."""
        rows = len(data.curves)
        figure = new_figure(9.2, 0.6 + 3.0 * rows, layout="constrained")
        plots = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True)
        for (model, methods), row in zip(data.curves.items(), plots, strict=True):
            for kind, axes in enumerate(row):
                for colour, (name, pair) in zip(theme().series * 2, methods.items(), strict=False):
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
        return figure
