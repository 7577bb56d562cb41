"""Two plain convolutional networks for images of at least 32 pixels, with either convolution."""

from __future__ import annotations

from tfrobust.backbones.description import Backbone, Tuning, scaled
from tfrobust.typing import Tensor

# (channels, kernel size, whether the map is halved afterwards) of each convolution.
_PLAIN = ((32, 7, True), (64, 3, True), (128, 3, False))
_PLUS = tuple(
    (channels, 3, second and channels < 256)
    for channels in (32, 64, 128, 256)
    for second in (False, True)
)


def simplenet(x: Tensor, *, alpha: float = 1.0, convolution: str = "keras") -> Tensor:
    """Normalised images [B, H, W, 3] -> features [B, H/4, W/4, 128 alpha]; 3 convolutions."""
    for index, (channels, side, halved) in enumerate(_PLAIN, 1):
        x = _conv(x, scaled(channels, alpha), side, f"conv_{index}", convolution, use_bias=True)
        x = _activated(x, index, halved)
    return x


def simplenet_plus(x: Tensor, *, alpha: float = 1.0, convolution: str = "keras") -> Tensor:
    """Normalised images [B, H, W, 3] -> features [B, H/8, W/8, 256 alpha]; 8 convolutions.

    Deeper than `simplenet`, with 3x3 kernels (as in VGG, https://arxiv.org/abs/1409.1556)
    and BatchNorm after each.
    """
    from tfrobust.runtime import keras

    for index, (channels, side, halved) in enumerate(_PLUS, 1):
        x = _conv(x, scaled(channels, alpha), side, f"conv_{index}", convolution, use_bias=False)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"bn_{index}")(x)
        x = _activated(x, index, halved)
    return x


def _conv(
    x: Tensor, channels: int, side: int, name: str, convolution: str, *, use_bias: bool
) -> Tensor:
    from tfrobust.runtime import keras

    kind = keras.layers.Conv2D
    if convolution == "unfold":
        from tfrobust.backbones.unfold import UnfoldConv2D

        kind = UnfoldConv2D
    made = kind(channels, side, padding="same", use_bias=use_bias, name=name,
                kernel_initializer="he_normal")  # fmt: skip
    return made(x)


def _activated(x: Tensor, index: int, halved: bool) -> Tensor:
    from tfrobust.runtime import keras

    x = keras.layers.ReLU(name=f"relu_{index}")(x)
    return keras.layers.MaxPooling2D(2, name=f"pool_{index}")(x) if halved else x


_BLOCKS = ((r"(?:conv|bn)_1$", "stem"), (r"(?:conv|bn)_(\d)", r"conv_\1"))


def _described(name: str, stride: int, batch_norm: bool) -> Backbone:
    return Backbone(
        name, f"{__name__}:{name}", "torch", _BLOCKS, ("alpha", "convolution"),
        stride=stride, batch_norm=batch_norm, tuning=Tuning("adamw", 0.002, weight_decay=0.01),
    )  # fmt: skip


SIMPLENET = _described("simplenet", 4, batch_norm=False)
SIMPLENET_PLUS = _described("simplenet_plus", 8, batch_norm=True)
