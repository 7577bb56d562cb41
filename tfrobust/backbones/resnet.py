"""ResNet-18, ResNet-34 and ResNeXt-50, laid out and named as in torchvision.

He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385;
Xie et al., "Aggregated Residual Transformations for Deep Neural Networks",
https://arxiv.org/abs/1611.05431. Layers carry the names of torchvision's modules and pad
as torch does, so that a state dict saved by torch fits by name (`weights.load`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tfrobust.backbones.description import Backbone, Tuning, scaled
from tfrobust.typing import Tensor

Unit = Callable[..., Tensor]

_GROUPS, _WIDTH_OF_GROUP = 32, 4
# Torch's BatchNorm: its epsilon, and 1 minus its momentum.
_EPSILON, _MOMENTUM = 1e-5, 0.9


def resnet18(x: Tensor, *, alpha: float = 1.0, stem: str = "standard") -> Tensor:
    """Normalised images [B, H, W, 3] -> features [B, h, w, 512 alpha], 8 basic blocks."""
    return _network(x, (2, 2, 2, 2), _basic, alpha, stem)


def resnet34(x: Tensor, *, alpha: float = 1.0, stem: str = "standard") -> Tensor:
    """Normalised images [B, H, W, 3] -> features [B, h, w, 512 alpha], 16 basic blocks."""
    return _network(x, (3, 4, 6, 3), _basic, alpha, stem)


def resnext50(x: Tensor, *, stem: str = "standard") -> Tensor:
    """Normalised images [B, H, W, 3] -> features [B, h, w, 2048], 16 blocks of 32 groups x 4d."""
    return _network(x, (3, 4, 6, 3), _aggregated, 1.0, stem)


def _network(x: Tensor, depths: tuple[int, ...], unit: Unit, alpha: float, stem: str) -> Tensor:
    x = _stem(x, scaled(64, alpha), stem)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage and not index else 1
            x = unit(x, scaled(64 << stage, alpha), stride, f"layer{stage + 1}.{index}")
    return x


def _stem(x: Tensor, channels: int, kind: str) -> Tensor:
    """The first map has a quarter of the image's side ('standard'), half ('medium') or all."""
    from tfrobust.runtime import keras

    layers = keras.layers
    if kind != "standard":
        stride = {"medium": 2, "small": 1}[kind]
        return _relu(_norm(_conv(x, channels, 3, stride, "conv1"), "bn1"), "relu")
    x = _relu(_norm(_conv(x, channels, 7, 2, "conv1"), "bn1"), "relu")
    # No value is negative here, so zero padding never affects the maximum.
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="maxpool")(x)


def _basic(x: Tensor, channels: int, stride: int, name: str) -> Tensor:
    y = _norm(_conv(x, channels, 3, stride, f"{name}.conv1"), f"{name}.bn1")
    y = _relu(y, f"{name}.relu1")
    y = _norm(_conv(y, channels, 3, 1, f"{name}.conv2"), f"{name}.bn2")
    return _joined(x, y, channels, stride, name)


def _aggregated(x: Tensor, channels: int, stride: int, name: str) -> Tensor:
    inner = channels // 64 * _GROUPS * _WIDTH_OF_GROUP
    y = _norm(_conv(x, inner, 1, 1, f"{name}.conv1"), f"{name}.bn1")
    y = _relu(y, f"{name}.relu1")
    y = _norm(_conv(y, inner, 3, stride, f"{name}.conv2", _GROUPS), f"{name}.bn2")
    y = _relu(y, f"{name}.relu2")
    y = _norm(_conv(y, 4 * channels, 1, 1, f"{name}.conv3"), f"{name}.bn3")
    return _joined(x, y, 4 * channels, stride, name)


def _joined(x: Tensor, y: Tensor, channels: int, stride: int, name: str) -> Tensor:
    from tfrobust.runtime import keras

    if stride != 1 or x.shape[-1] != channels:
        x = _norm(_conv(x, channels, 1, stride, f"{name}.downsample.0"), f"{name}.downsample.1")
    return _relu(keras.layers.Add(name=f"{name}.add")([y, x]), f"{name}.relu")


def _conv(x: Tensor, channels: int, side: int, stride: int, name: str, groups: int = 1) -> Tensor:
    """A convolution with torch's padding: half the kernel on every side."""
    from tfrobust.runtime import keras

    options: dict[str, Any] = {"use_bias": False, "kernel_initializer": _he(), "name": name}
    # With stride 1 this equals 'same'; with stride 2 it does not.
    if stride > 1 and side > 1:
        x = keras.layers.ZeroPadding2D(side // 2, name=f"{name}.pad")(x)
    options |= {"strides": stride, "padding": "valid" if stride > 1 else "same"}
    if groups == 1:
        return keras.layers.Conv2D(channels, side, **options)(x)
    from tfrobust.backbones.grouped import GroupedConv2D

    return GroupedConv2D(channels, side, groups=groups, **options)(x)


def _he() -> Any:
    """He's initialisation by the outputs, https://arxiv.org/abs/1502.01852."""
    from tfrobust.runtime import keras

    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _norm(x: Tensor, name: str) -> Tensor:
    from tfrobust.runtime import keras

    return keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=name)(x)


def _relu(x: Tensor, name: str) -> Tensor:
    from tfrobust.runtime import keras

    return keras.layers.ReLU(name=name)(x)


_BLOCKS = ((r"(layer\d\.\d+)\.", r"\1"), (r"conv1|bn1", "stem"))


_TUNING = Tuning("sgd", 0.15, weight_decay=0.005, batch_size=128, quick=True, low_precision=True)


def _described(name: str, *options: str) -> Backbone:
    tuning = replace(_TUNING, alpha=0.25) if "alpha" in options else _TUNING
    return Backbone(name, f"{__name__}:{name}", "torch", _BLOCKS, options, tuning=tuning)


RESNET18 = _described("resnet18", "alpha", "stem")
RESNET34 = _described("resnet34", "alpha", "stem")
RESNEXT50 = _described("resnext50", "stem")
