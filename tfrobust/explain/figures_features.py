"""Figures of a network's inside: its feature maps, its channels, the images its classes ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.evaluation.figures_canvas import (
    axes_at,
    class_word,
    label_width,
    new_figure,
    save,
    text_at,
)
from tfrobust.explain.feature_maps import FeatureMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
_THUMB, _GAP, _EDGE, _HEAD, _CAPTION = 0.62, 0.05, 0.3, 0.95, 0.36
#: Layers in a row of the figure of feature maps, channels and layers in that of channels.
ACROSS, CHANNELS, LAYERS = 7, 16, 8


def feature_map_figure(
    maps: Mapping[str, Mapping[str, Sequence[FeatureMap]]], path: Path | str
) -> Path:
    """The mean over channels of every convolution and dense layer, as heat maps.

    Each layer has a block: a row for each model, a column for each image (clean,
    adversarial). The maps of a row of a block share one scale, so that they compare.

    Args:
      maps: model -> image's name -> `feature_maps` of that one image.
      path: the file; its suffix tells the format.

    Raises:
      UsageError: the models differ in their layers, or there is nothing to show.
    """
    names = list(maps)
    images = list(maps[names[0]]) if names else []
    layers = _same_layers(maps)
    wide = len(images) * (_THUMB + _GAP) + 0.16
    high = len(names) * (_THUMB + _GAP) + _CAPTION
    across = min(ACROSS, len(layers))
    rows = -(-len(layers) // across)
    label = 0.0 if len(names) == 1 else label_width(names, 8.5)
    figure = new_figure(max(2 * _EDGE + label + across * wide, 6.5), _HEAD + rows * high + _EDGE)
    text_at(figure, _EDGE, 0.3, "What every layer answers", size=15, weight="bold", ha="left")
    text_at(figure, _EDGE, 0.6, f"mean over channels; in each block: {', '.join(images)}", size=9.5,
            ha="left", color="0.35")  # fmt: skip
    for index, layer in enumerate(layers):
        left = _EDGE + label + index % across * wide
        top = _HEAD + index // across * high
        for row, name in enumerate(names):
            if label and index % across == 0:
                middle = top + row * (_THUMB + _GAP) + _THUMB / 2
                text_at(figure, _EDGE, middle, name, size=8.5, ha="left")
            found = [maps[name][image][index].mean[0] for image in images]
            low, upper = min(m.min() for m in found), max(m.max() for m in found)
            for column, one in enumerate(found):
                place = (left + column * (_THUMB + _GAP), top + row * (_THUMB + _GAP))
                _thumb(figure, *place, one, low, upper)
        below = top + len(names) * (_THUMB + _GAP) + 0.06
        text_at(figure, left, below, _shortened(layer, 19), size=6.8, ha="left", color="0.25")
        shape = maps[names[0]][images[0]][index].values.shape[1:]
        text_at(figure, left, below + 0.11, "×".join(map(str, shape)), size=6.3, ha="left",
                color="0.5")  # fmt: skip
    return save(figure, path)


def channel_figure(
    found: Sequence[FeatureMap], path: Path | str, *, layers: Sequence[str] | None = None
) -> Path:
    """Grids of single channels of some convolutions for one image, a row for each.

    Args:
      found: `feature_maps` of one image; of each layer that is shown, `CHANNELS` channels,
        evenly spaced, are drawn, scaled one by one.
      path: the file; its suffix tells the format.
      layers: which, in this order; None is `LAYERS` of those with maps larger than 1x1,
        evenly spaced, from the image up.

    Raises:
      UsageError: no layer has a map larger than 1x1, or one that is asked for has none.
    """
    drawn = _drawn(found, layers)
    label = 1.75
    figure = new_figure(
        2 * _EDGE + label + CHANNELS * (_THUMB + _GAP),
        _HEAD - 0.15 + len(drawn) * (_THUMB + 2 * _GAP) + _EDGE,
    )
    text_at(figure, _EDGE, 0.3, "Channels, from the image up" if layers is None else "Channels",
            size=15, weight="bold", ha="left")  # fmt: skip
    for row, one in enumerate(drawn):
        top = _HEAD - 0.15 + row * (_THUMB + 2 * _GAP)
        shape = "×".join(map(str, one.values.shape[1:]))
        text_at(figure, _EDGE, top + 0.2, _shortened(one.layer, 23), size=8.5, ha="left")
        text_at(figure, _EDGE, top + 0.4, shape, size=8, ha="left", color="0.45")
        channels = np.moveaxis(one.channels(CHANNELS)[0], -1, 0)
        for column, channel in enumerate(channels):
            left = _EDGE + label + column * (_THUMB + _GAP)
            _thumb(figure, left, top, channel, channel.min(), channel.max())
    return save(figure, path)


def class_image_figure(
    images: Mapping[str, np.ndarray],
    classes: Sequence[int],
    label_names: Sequence[str],
    path: Path | str,
) -> Path:
    """The image that each class asks for, a row for each model.

    Args:
      images: model -> `maximise` of these classes, [len(classes), H, W, 3].
      classes: the labels.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.
    """
    side, label = 1.1, 0.0 if len(images) == 1 else label_width(images, 10.5)
    wide = side + 0.1
    figure = new_figure(
        max(2 * _EDGE + label + len(classes) * wide, 6.0), 1.15 + len(images) * wide + 0.1
    )
    text_at(figure, _EDGE, 0.3, "What each class asks for", size=15, weight="bold", ha="left")
    for column, one in enumerate(classes):
        centre = _EDGE + label + column * wide + side / 2
        words = class_word(label_names, one, 15, 2)
        text_at(figure, centre, 0.86, words, size=8.5, color="0.25")
    for row, (name, found) in enumerate(images.items()):
        top = 1.1 + row * wide
        if label:
            text_at(figure, _EDGE, top + side / 2, name, size=10.5, ha="left")
        for column, image in enumerate(found):
            axes = axes_at(figure, _EDGE + label + column * wide, top, side, side)
            _plain(axes)
            axes.imshow(image, interpolation="nearest")
    return save(figure, path)


def _drawn(found: Sequence[FeatureMap], layers: Sequence[str] | None) -> list[FeatureMap]:
    """The layers whose channels are drawn: those asked for, or some from the image up."""
    maps = {
        one.layer: one for one in found if one.values.ndim == 4 and max(one.values.shape[1:3]) > 1
    }
    wrong = [name for name in layers or () if name not in maps]
    if not maps or wrong:
        known = ", ".join(maps) or "which there is none"
        raise UsageError(
            f"Expected layers with maps larger than 1x1, of {known}; found "
            f"{', '.join(wrong) or 'none'}."
        )
    names = list(maps)
    index = np.unique(np.linspace(0, len(names) - 1, min(LAYERS, len(names))).astype(int))
    return [maps[name] for name in layers or [names[i] for i in index]]


def _same_layers(maps: Mapping[str, Mapping[str, Sequence[FeatureMap]]]) -> list[str]:
    """The layers of all, which must be the same ones."""
    lists = [[one.layer for one in found] for model in maps.values() for found in model.values()]
    if not lists or not lists[0] or any(names != lists[0] for names in lists):
        raise UsageError(
            "Expected feature maps of the same layers for all models and images, found "
            f"{sorted({len(names) for names in lists})} layers: compare models of one network."
        )
    return lists[0]


def _thumb(
    figure: Figure, left: float, top: float, values: np.ndarray, low: float, upper: float
) -> None:
    axes = axes_at(figure, left, top, _THUMB, _THUMB)
    _plain(axes)
    # A dense layer's units are one line: they fill the square.
    axes.imshow(values, cmap="viridis", vmin=low, vmax=max(upper, low + 1e-12),
                interpolation="nearest", aspect="auto")  # fmt: skip


def _plain(axes: object) -> None:
    axes.set(xticks=[], yticks=[])  # type: ignore[attr-defined]
    axes.spines[:].set(color="0.8", linewidth=0.4)  # type: ignore[attr-defined]


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
