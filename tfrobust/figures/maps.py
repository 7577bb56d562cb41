"""Maps side by side: by several methods, for one or more models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import (
    CELL,
    image_at,
    label_width,
    map_at,
    new_figure,
    text_at,
    title_at,
)
from tfrobust.figures.saliency import Predicted, caption_at
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Inches.
_GAP, _EDGE, _HEAD, _CAPTION, _BETWEEN = 0.07, 0.3, 1.15, 0.32, 0.25


@dataclass(frozen=True)
class MapsOfMethod:
    """One method's maps of N images.

    Attributes:
      values: float [N, H, W]; signed maps in [-1, 1], others in [0, 1].
      signed: whether negative values are evidence against the class.
    """

    values: np.ndarray
    signed: bool


@dataclass(frozen=True)
class MapsOfModel:
    """The maps of several methods for one model, on clean and on its adversarial images.

    Attributes:
      clean: the clean images.
      adversarial: the images crafted from them against this model.
      clean_maps: one for each method.
      adversarial_maps: one for each method.
    """

    clean: Predicted
    adversarial: Predicted
    clean_maps: Sequence[MapsOfMethod]
    adversarial_maps: Sequence[MapsOfMethod]


@dataclass(frozen=True)
class MapsByModel:
    """Models and methods side by side, on the same images.

    Attributes:
      models: name -> its maps.
      methods: the names of the methods in figures, in order.
      labels: int [N], the true labels.
      class_names: by label.
    """

    models: Mapping[str, MapsOfModel]
    methods: Sequence[str]
    labels: np.ndarray
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        for name, one in self.models.items():
            lengths = {len(self.labels), len(one.clean.x), len(one.adversarial.x)}
            if len(lengths) != 1 or lengths == {0}:
                raise UsageError(f"Maps of {name}: expected one label per image, found {lengths}.")
            if not len(one.clean_maps) == len(one.adversarial_maps) == len(self.methods):
                raise UsageError(f"Maps of {name}: expected those of {', '.join(self.methods)}.")


@dataclass(frozen=True)
class Maps(Figure[MapsByModel]):
    """Model against model and clean against adversarial, by several methods.

    Each image has one row per model: the clean image's maps, then the adversarial image crafted
    against that model, and its maps; all for the class that the model predicts.
    """

    title: ClassVar[str] = "Maps, side by side"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = MapsByModel
    shows_attack: ClassVar[bool] = True

    def draw(self, data: MapsByModel) -> Drawing:
        """Draws the rows of each image together."""
        block = (1 + len(data.methods)) * (CELL + _GAP)
        row_high = CELL + _CAPTION
        group = len(data.models) * row_high + 0.18
        label = label_width(data.models, 10.5)
        wide = 2 * _EDGE + label + 2 * block + _BETWEEN
        figure = new_figure(wide, _HEAD + len(data.labels) * group + _EDGE)
        title_at(figure, _EDGE, " and ".join(data.models), 0.33)
        for side, head in enumerate(("clean", "adversarial, made for that model")):
            left = _EDGE + label + side * (block + _BETWEEN)
            _heads(figure, left, head, ("image", *data.methods))
            for number, (name, model) in enumerate(data.models.items()):
                view = (model.clean, model.adversarial)[side]
                maps = (model.clean_maps, model.adversarial_maps)[side]
                for row, true in enumerate(data.labels):
                    top = _HEAD + row * group + number * row_high
                    if side == 0:
                        text_at(figure, _EDGE, top + 0.12, name, size=10.5, ha="left", va="top")
                    image_at(figure, left, top, view.x[row])
                    caption_at(figure, left, top + CELL, view, row, int(true), data.class_names)
                    for column, one in enumerate(maps, 1):
                        at = left + column * (CELL + _GAP)
                        _map_at(figure, at, top, view.x[row], one, row)
        return figure


def _heads(figure: Drawing, left: float, head: str, columns: Sequence[str]) -> None:
    """The heading of a block, and those of its columns."""
    width = len(columns) * (CELL + _GAP)
    text_at(figure, left + width / 2, 0.68, head, size=12, weight="bold")
    for column, word in enumerate(columns):
        centre = left + column * (CELL + _GAP) + CELL / 2
        text_at(figure, centre, _HEAD - 0.2, word, size=9.5, color=theme().soft)


def _map_at(
    figure: Drawing, left: float, top: float, image: np.ndarray, maps: MapsOfMethod, row: int
) -> None:
    """A signed map in red and blue; any other overlaid on the image in grey."""
    if maps.signed:
        map_at(figure, left, top, maps.values[row])
        return
    from matplotlib import colormaps

    colours = colormaps["inferno"](maps.values[row])[..., :3]
    grey = image.mean(axis=-1, keepdims=True)
    image_at(figure, left, top, 0.4 * grey + 0.6 * colours)
