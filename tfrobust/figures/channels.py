"""Single channels of some convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.figures.feature_maps import GAP, THUMB, shortened, thumb_at
from tfrobust.figures.figure import Figure
from tfrobust.figures.layout import new_figure, text_at, title_at
from tfrobust.figures.style import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Inches.
_EDGE, _HEAD, _LABEL = 0.3, 0.8, 1.75


@dataclass(frozen=True)
class LayerChannels:
    """Channels of one layer for one image.

    Attributes:
      layer: its name.
      shape: of its output, without the batch.
      channels: float [c, h, w], the channels shown.
    """

    layer: str
    shape: tuple[int, ...]
    channels: np.ndarray


@dataclass(frozen=True)
class ChannelRows:
    """Channels of some layers.

    Attributes:
      layers: one row each.
      title: of the figure.
    """

    layers: Sequence[LayerChannels]
    title: str = "Channels"

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("Expected channels of at least one layer, found none.")


@dataclass(frozen=True)
class Channels(Figure[ChannelRows]):
    """Grids of single channels of some convolutions for one image, each scaled separately."""

    title: ClassVar[str] = "Channels"
    group: ClassVar[str] = "explanation"
    needs: ClassVar[type] = ChannelRows

    def draw(self, data: ChannelRows) -> Drawing:
        """Draws a row for each layer."""
        most = max(len(one.channels) for one in data.layers)
        width = 2 * _EDGE + _LABEL + most * (THUMB + GAP)
        figure = new_figure(max(width, 4.5), _HEAD + len(data.layers) * (THUMB + 2 * GAP) + _EDGE)
        title_at(figure, _EDGE, data.title, 0.3)
        for row, one in enumerate(data.layers):
            top = _HEAD + row * (THUMB + 2 * GAP)
            text_at(figure, _EDGE, top + 0.2, shortened(one.layer, 23), size=8.5, ha="left")
            text_at(figure, _EDGE, top + 0.4, "×".join(map(str, one.shape)), size=8, ha="left",
                    color=theme().soft)  # fmt: skip
            for column, channel in enumerate(one.channels):
                left = _EDGE + _LABEL + column * (THUMB + GAP)
                thumb_at(figure, left, top, channel, channel.min(), channel.max())
        return figure
