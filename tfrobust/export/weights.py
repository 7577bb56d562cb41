"""Weights only, with the arguments with which `tfrobust.build` rebuilds their network."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.backbones import build
from tfrobust.errors import TFRobustError
from tfrobust.io import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from tfrobust.config import BackboneConfig
    from tfrobust.runtime import keras

# The backbone's settings that `build` takes besides name and weights.
_OPTIONS = (
    "resize", "alpha", "stem", "convolution", "position_embedding", "bn_momentum", "dropout",
)  # fmt: skip


def settings_file(path: Path) -> Path:
    """The JSON file beside a file of weights: 'model.weights.h5' -> 'model.weights.json'."""
    return path.with_suffix(".json")


def write(model: keras.Model, backbone: BackboneConfig, path: Path) -> None:
    """Writes a network's weights, and beside them the arguments of its `build`.

    Args:
      model: built by `build`, image in [0, 1], float32 [None, H, W, 3] -> logits.
      backbone: its settings.
      path: of the weights, with the suffix .weights.h5.

    Raises:
      TFRobustError: a file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        model.save_weights(made)
        content = made.read_bytes()
    write_bytes(path, content)
    write_json(settings_file(path), _arguments(model, backbone))


def _arguments(model: keras.Model, backbone: BackboneConfig) -> dict[str, Any]:
    return {
        "name": backbone.name,
        "num_classes": int(model.output_shape[-1]),
        "image_shape": [int(side) for side in model.input_shape[1:]],
        "options": {**{name: getattr(backbone, name) for name in _OPTIONS}, **backbone.settings},
    }


def rebuild(path: Path) -> keras.Model:
    """The network of a file of weights with its settings beside it.

    Args:
      path: of the weights.

    Returns:
      The network that `build` returns, with these weights.

    Raises:
      UsageError: the settings name an unknown network or option.
      TFRobustError: a file is missing or damaged, or the weights do not match the settings.
    """
    file = settings_file(path)
    try:
        values = read_json(file)
        shape, options = tuple(values["image_shape"]), values["options"]
        return build(
            values["name"], num_classes=values["num_classes"], image_shape=shape,
            weights=str(path), **options,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TFRobustError(
            f"{file} does not describe how to build the network of {path.name} "
            f"({type(error).__name__}: {error}): export the run again."
        ) from error
