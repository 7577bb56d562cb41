"""Stems with more resolution for small images: a network's early strides are removed.

Strides have no weights: a network with another stem loads the same file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfrobust.runtime import keras


def with_stem(model: keras.Model, halvings: tuple[str, ...], stem: str) -> keras.Model:
    """The network with another stem and new random weights.

    Args:
      model: a flat functional network.
      halvings: its first two layers that halve the map, from input to output.
      stem: 'standard' keeps both strides, 'medium' the first, 'small' none.

    Returns:
      `model` itself for 'standard', else a network with the same layers and names, whose early
      maps have twice ('medium') or four times ('small') the width and height.
    """
    taken_back = {"standard": (), "medium": halvings[1:], "small": halvings}[stem]
    if not taken_back:
        return model
    config = model.get_config()
    layers = {layer["name"]: layer for layer in config["layers"]}
    for name in taken_back:
        _take_back_stride(layers[name], layers)
    return type(model).from_config(config)


def _take_back_stride(layer: dict[str, Any], layers: dict[str, dict[str, Any]]) -> None:
    settings = layer["config"]
    settings["strides"] = (1, 1)
    source = layers[layer["inbound_nodes"][0][0][0]]
    if source["class_name"] == "ZeroPadding2D":
        # A strided convolution is padded on two sides only; now the map keeps its size.
        side = settings.get("kernel_size", settings.get("pool_size"))[0]
        source["config"]["padding"] = ((side // 2, side // 2), (side // 2, side // 2))
