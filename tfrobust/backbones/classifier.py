"""Builds a classifier from a backbone: image in [0, 1] in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.backbones.unfreezing import HEAD_LAYER
from tfrobust.errors import UsageError

if TYPE_CHECKING:
    from tfrobust.backbones.applications import Backbone
    from tfrobust.runtime import keras

MIN_SIDE = 32
# Mean and standard deviation of ImageNet's RGB pixels in [0, 1], and the BGR
# means in 0..255 of the Caffe models, as keras.applications has them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


def build(
    name: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    weights: str = "none",
    resize: int | None = None,
    alpha: float = 1.0,
    bn_momentum: float | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
) -> keras.Model:
    """Builds a flat functional classifier that holds its own normalisation.

    Normalisation, resizing and logits stay float32 under a mixed precision policy.
    The model is made of stock Keras layers only: it reloads without custom objects.

    Args:
      name: one of `BACKBONES`.
      num_classes: length of the logits, at least 2.
      image_shape: (H, W, 3) of the images; H and W at least 32 unless resized.
      weights: 'none' (random), 'imagenet' (downloaded once into ``~/.keras/models``) or
        a local file, see `weights.load`; the head stays random unless the file is a
        classifier with as many classes.
      resize: side in pixels that images are resized to (bilinear) inside the model.
      alpha: width of MobileNetV2.
      bn_momentum: momentum of each BatchNormalization; None keeps the network's own,
        .99 to .9997, which is slow for short training.
      dropout: part of the pooled features dropped in training.
      seed: seeds Keras's global generators, so that the random weights repeat; None
        leaves them alone.

    Returns:
      A model `name`: float32 'image' [B, H, W, 3] in [0, 1] -> float32 [B, num_classes].

    Raises:
      UsageError: an unknown name, or an argument out of range.
      TFRobustError: the weights cannot be downloaded or read, or do not fit.
    """
    from tfrobust.backbones import BACKBONES

    backbone = BACKBONES[name]
    _check_shapes(backbone, num_classes, image_shape, resize)
    _check_numbers(backbone, alpha, dropout, 0.0 if bn_momentum is None else bn_momentum)
    from tfrobust.runtime import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = keras.Input(image_shape, name="image", dtype="float32")
    x = _normalise(image, backbone.normalisation)
    # Bilinear resizing commutes with normalisation, which is cheaper on fewer pixels.
    if resize is not None and image_shape[:2] != (resize, resize):
        x = layers.Resizing(resize, resize, "bilinear", dtype="float32", name="resize")(x)
    x = _features(backbone, x, alpha)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    logits = layers.Dense(num_classes, dtype="float32", name=HEAD_LAYER)(x)
    model = keras.Model(image, logits, name=name)
    if bn_momentum is not None:
        _set_bn_momentum(model, bn_momentum)
    _load(model, backbone, weights, alpha, resize or min(image_shape[:2]))
    return model


def _check_shapes(
    backbone: Backbone, num_classes: int, image_shape: tuple[int, int, int], resize: int | None
) -> None:
    if num_classes < 2:
        raise UsageError(f"num_classes: expected at least 2, found {num_classes}.")
    if len(image_shape) != 3 or image_shape[2] != 3:
        raise UsageError(f"image_shape: expected (height, width, 3), found {image_shape}.")
    if min(image_shape[:2] if resize is None else (resize,)) < MIN_SIDE:
        found = "x".join(map(str, image_shape[:2])) if resize is None else f"resize {resize}"
        raise UsageError(
            f"{backbone.name}: expected images of at least {MIN_SIDE}x{MIN_SIDE} pixels, found "
            f"{found}: set resize to {MIN_SIDE} or more."
        )


def _check_numbers(backbone: Backbone, alpha: float, dropout: float, bn_momentum: float) -> None:
    if alpha != 1 and not backbone.widths:
        raise UsageError(f"alpha: expected 1, {backbone.name} has one width, found {alpha}.")
    if alpha <= 0:
        raise UsageError(f"alpha: expected more than 0, found {alpha}.")
    for what, value in (("dropout", dropout), ("bn_momentum", bn_momentum)):
        if not 0 <= value < 1:
            raise UsageError(f"{what}: expected at least 0 and less than 1, found {value}.")


def _normalise(x: Any, normalisation: str) -> Any:
    """Pixels of [0, 1] as the network was trained to take them."""
    from tfrobust.runtime import keras, tf

    if normalisation == "caffe":
        x = tf.reverse(x, axis=[-1])
    scale, offset = {
        "tf": (2.0, -1.0),
        "caffe": (255.0, [-mean for mean in _CAFFE_MEAN]),
        "torch": ([1 / s for s in _STD], [-m / s for m, s in zip(_MEAN, _STD, strict=True)]),
        "inside": (255.0, 0.0),
    }[normalisation]
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="normalise")(x)


def _features(backbone: Backbone, x: Any, alpha: float) -> Any:
    from tfrobust.runtime import keras

    width = {"alpha": alpha} if backbone.widths else {}
    constructor = getattr(keras.applications, backbone.constructor)
    features = constructor(input_tensor=x, include_top=False, weights=None, **width)
    # EfficientNet's own normalisation is the identity unless Keras downloads its weights.
    for layer in features.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights([np.array(_MEAN), np.square(_STD), np.array(0)])
    return features.output


def _load(model: keras.Model, backbone: Backbone, source: str, alpha: float, side: int) -> None:
    from tfrobust.backbones import weights

    if source == "imagenet":
        weights.load(model, weights.fetch(backbone, alpha=alpha, side=side))
    elif source != "none":
        weights.load(model, source)


def _set_bn_momentum(model: keras.Model, momentum: float) -> None:
    from tfrobust.runtime import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
