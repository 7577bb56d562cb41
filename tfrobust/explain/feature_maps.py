"""The outputs of every convolution and dense layer for an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.explain.target_layer import map_layers
from tfrobust.runtime import keras


@dataclass(frozen=True)
class FeatureMap:
    """The output of one layer for N images.

    Attributes:
      layer: its name.
      values: float32 [N, h, w, C] of a convolution, [N, C] of a dense layer, or [N, T, C] for
        tokens.
    """

    layer: str
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean over channels, float32 [N, h, w]; the units of a dense layer as [N, 1, C]."""
        if self.values.ndim == 2:
            return self.values[:, None]
        mean = self.values.mean(axis=-1)
        return mean if mean.ndim == 3 else _square(mean)

    def channels(self, count: int) -> np.ndarray:
        """The maps [N, h, w, count] of evenly spaced channels, or all if there are fewer."""
        total = self.values.shape[-1]
        index = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
        return self.values[..., index]


def feature_maps(model: keras.Model, x: np.ndarray) -> list[FeatureMap]:
    """The outputs of all convolutions and dense layers, from the image to the logits.

    Args:
      model: a flat functional model.
      x: float32 [N, H, W, C] in [0, 1], one small batch, as all outputs are kept in memory.

    Returns:
      One map for each of these layers; empty if the model has none.

    Raises:
      UsageError: the images do not match the model.
    """
    if x.ndim != 4 or tuple(x.shape[1:]) != tuple(model.input_shape[1:]):
        raise UsageError(
            f"Expected images {list(model.input_shape[1:])}, the model's input shape, found "
            f"{list(x.shape[1:])}."
        )
    layers = [layer for layer in model.layers if is_conv_or_dense(layer)]
    if not layers:
        return []
    outputs = keras.Model(model.inputs, [layer.output for layer in layers])(x, training=False)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [
        FeatureMap(layer.name, np.asarray(output, np.float32))
        for layer, output in zip(layers, outputs, strict=True)
    ]


def is_conv_or_dense(layer: Any) -> bool:
    """Whether a layer is a convolution of any kind or a dense layer."""
    kinds = ("Conv2D", "Dense")
    return any(cls.__name__.endswith(kinds) for cls in type(layer).__mro__)


def channel_layers(model: keras.Model) -> list[str]:
    """The convolutions and dense layers with a map larger than 1x1, from the input up."""
    maps = map_layers(model)
    return [layer.name for layer in model.layers if is_conv_or_dense(layer) and layer.name in maps]


def _square(tokens: np.ndarray) -> np.ndarray:
    """[N, T] -> the map that the tokens were cut from, if T is a square number."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.reshape(len(tokens), side, -1) if side**2 == tokens.shape[1] else tokens[:, None]
