"""A small Vision Transformer for images of 32 to 64 pixels.

Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929:
pre-norm blocks of attention and a two-layer perceptron. Here the class is predicted from the
mean of all tokens, without a class token.
"""

from __future__ import annotations

from tfrobust.backbones.description import Backbone, Tuning, scaled
from tfrobust.typing import Tensor

DEPTH, HEADS, HEAD_WIDTH, MLP_RATIO = 6, 3, 64, 2
# An image is cut into this many patches in each direction.
GRID = 8
_EPSILON = 1e-6


def vit(x: Tensor, *, alpha: float = 1.0, position_embedding: bool = True) -> Tensor:
    """Normalised images [B, H, W, 3] -> features [B, 8, 8, 192 alpha], one token per patch.

    A patch's side is an eighth of the image's, rounded up; the last ones are padded with zeros.
    Without `position_embedding` the tokens are a set: the network does not know the position of a
    patch.
    """
    from tfrobust.runtime import keras

    layers, width = keras.layers, HEADS * scaled(HEAD_WIDTH, alpha)
    patch = tuple(-(-side // GRID) for side in x.shape[1:3])
    x = layers.Conv2D(width, patch, strides=patch, padding="same", name="patches")(x)
    grid = x.shape[1:3]
    x = layers.Reshape((-1, width), name="tokens")(x)
    if position_embedding:
        from tfrobust.backbones.position import PositionEmbedding

        x = PositionEmbedding(name="position")(x)
    for index in range(1, DEPTH + 1):
        x = _block(x, width, f"block_{index}")
    x = layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x)
    # As a map again, so that class-activation methods can read it.
    return layers.Reshape((*grid, width), name="map")(x)


def _block(x: Tensor, width: int, name: str) -> Tensor:
    from tfrobust.runtime import keras

    layers = keras.layers
    y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm1")(x)
    y = layers.MultiHeadAttention(HEADS, width // HEADS, name=f"{name}_attention")(y, y)
    x = layers.Add(name=f"{name}_add1")([x, y])
    y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm2")(x)
    y = layers.Dense(MLP_RATIO * width, activation="gelu", name=f"{name}_mlp1")(y)
    y = layers.Dense(width, name=f"{name}_mlp2")(y)
    return layers.Add(name=f"{name}_add2")([x, y])


VIT = Backbone(
    "vit",
    f"{__name__}:vit",
    "torch",
    ((r"norm|map", "top"), (r"(block_\d+)_", r"\1"), (r"patches|position", "stem")),
    ("alpha", "position_embedding"),
    stride=4,
    batch_norm=False,
    tuning=Tuning("adamw", 0.001, weight_decay=0.01, alpha=0.5),
)
