"""Feature maps: the mean of every layer's channels, as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import axes_at, label_width, new_figure, text_at, title_at
from tfrobust.figures.style import SMALLEST, theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Inches.
_EDGE, _HEAD, _CAPTION = 0.3, 0.95, 0.42
THUMB, GAP = 0.62, 0.05


@dataclass(frozen=True)
class LayerMean:
    """The output of one layer for one image.

    Attributes:
      layer: its name.
      shape: of its output, without the batch.
      mean: float [h, w], over its channels.
    """

    layer: str
    shape: tuple[int, ...]
    mean: np.ndarray


@dataclass(frozen=True)
class LayerMeans:
    """The outputs of the layers of one or more models for one or more images.

    Attributes:
      models: model -> image's name -> its layers, which are the same for all.
    """

    models: Mapping[str, Mapping[str, Sequence[LayerMean]]]

    def __post_init__(self) -> None:
        lists = [[one.layer for one in found] for of in self.models.values()
                 for found in of.values()]  # fmt: skip
        if not lists or not lists[0] or any(names != lists[0] for names in lists):
            raise UsageError(
                "Expected feature maps of the same layers for all models and images, found "
                f"{sorted({len(names) for names in lists})} layers: compare models of one network."
            )


@dataclass(frozen=True)
class FeatureMaps(Figure[LayerMeans]):
    """The mean over channels of every convolution and dense layer, as heat maps.

    Each layer has a block: one row per model, one column per image (clean, adversarial). The maps
    in a row of a block share one scale, so that they are comparable.

    Attributes:
      across: layers per row.
    """

    title: ClassVar[str] = "What every layer responds to"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = LayerMeans
    shows_attack: ClassVar[bool] = True

    across: int = 7

    def draw(self, data: LayerMeans) -> Drawing:
        """Draws the layers, from the input up."""
        names = list(data.models)
        images = list(data.models[names[0]])
        layers = data.models[names[0]][images[0]]
        wide = max(len(images) * (THUMB + GAP), 1.3) + 0.16
        high = len(names) * (THUMB + GAP) + _CAPTION
        across = min(self.across, len(layers))
        rows = -(-len(layers) // across)
        label = 0.0 if len(names) == 1 else label_width(names, 8.5)
        width = max(2 * _EDGE + label + across * wide, 6.5)
        figure = new_figure(width, _HEAD + rows * high + _EDGE)
        title_at(figure, _EDGE, self.title, 0.3)
        note = f"mean over channels; in each block: {', '.join(images)}"
        text_at(figure, _EDGE, 0.6, note, size=9.5, ha="left", color=theme().soft)
        for index, layer in enumerate(layers):
            left = _EDGE + label + index % across * wide
            top = _HEAD + index // across * high
            for row, name in enumerate(names):
                if label and index % across == 0:
                    middle = top + row * (THUMB + GAP) + THUMB / 2
                    text_at(figure, _EDGE, middle, name, size=8.5, ha="left")
                found = [data.models[name][image][index].mean for image in images]
                low, upper = min(m.min() for m in found), max(m.max() for m in found)
                for column, one in enumerate(found):
                    place = (left + column * (THUMB + GAP), top + row * (THUMB + GAP))
                    thumb_at(figure, *place, one, low, upper)
            below = top + len(names) * (THUMB + GAP) + 0.07
            text_at(figure, left, below, shortened(layer.layer, 18), size=SMALLEST, ha="left")
            text_at(figure, left, below + 0.14, "×".join(map(str, layer.shape)), size=SMALLEST,
                    ha="left", color=theme().soft)  # fmt: skip
        return figure


def thumb_at(
    figure: Drawing, left: float, top: float, values: np.ndarray, low: float, upper: float
) -> None:
    """A small heat map between two values."""
    axes = axes_at(figure, left, top, THUMB, THUMB)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=theme().line, linewidth=0.4)
    # The units of a dense layer are one line: they fill the square.
    axes.imshow(values, cmap="viridis", vmin=low, vmax=max(upper, low + 1e-12),
                interpolation="nearest", aspect="auto")  # fmt: skip


def shortened(name: str, width: int) -> str:
    """A name shortened to at most this many letters."""
    return name if len(name) <= width else f"{name[: width - 1]}…"
