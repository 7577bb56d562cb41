"""The numerical precision in which a network computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfrobust.runtime import keras


def is_mixed(model: keras.Model) -> bool:
    """Whether any layer computes in lower precision than its weights have."""
    return any(layer.compute_dtype != layer.dtype for layer in model.layers if layer.dtype)


def in_float32(model: keras.Model) -> keras.Model:
    """A network with the same layers and weights that computes entirely in float32.

    Mixed precision speeds up training. A network that rounds its inputs to bfloat16 changes in
    steps of 1 / 128 of a value: its gradients are as coarse, attacks on it miss adversarial
    images, and its accuracy under attack does not carry over to the same weights in another
    precision.

    Args:
      model: a functional model; not modified.

    Returns:
      A new model with its own weights.
    """

    config = _float32(model.get_config())
    copy: keras.Model = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def _float32(config: Any) -> Any:
    """A configuration with 'float32' for each mixed policy."""
    if isinstance(config, dict):
        if config.get("class_name") == "Policy":
            return "float32"
        return {name: _float32(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_float32(value) for value in config)
    return config
