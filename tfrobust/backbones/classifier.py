"""Builds a classifier from a backbone: image in [0, 1] in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.backbones.description import OPTIONS
from tfrobust.backbones.table import BACKBONES
from tfrobust.backbones.unfreezing import HEAD_LAYER
from tfrobust.config import CONVOLUTIONS, STEMS
from tfrobust.errors import UsageError

if TYPE_CHECKING:
    from tfrobust.backbones.description import Backbone
    from tfrobust.runtime import keras

MIN_SIDE = 32
# Mean and standard deviation of ImageNet's RGB pixels in [0, 1], and the BGR means in 0..255 of
# the Caffe models, from keras.applications.
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
    stem: str = "standard",
    convolution: str = "keras",
    position_embedding: bool = True,
    bn_momentum: float | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    **settings: Any,
) -> keras.Model:
    """Builds a flat functional classifier that includes its own normalisation.

    Normalisation, resizing and logits stay float32 under a mixed precision policy.
    The model consists of stock Keras layers, except for grouped convolutions, `UnfoldConv2D` and
    position embeddings, which are registered: it reloads without custom objects.

    Args:
      name: one of `BACKBONES`.
      num_classes: length of the logits, at least 2.
      image_shape: (H, W, 3) of the images; H and W at least 32 unless resized.
      weights: 'none' (random), 'imagenet' (downloaded once into ``~/.keras/models``) or a local
        file, of Keras or a torch state dict, see `weights.load`; the head stays random unless
        the file is a classifier with the same number of classes.
      resize: side in pixels that images are resized to (bilinear) inside the model.
      alpha: factor on the number of channels, for networks that support it.
      stem: 'standard', which reduces an image's side to 1/32 at the end; 'medium', which keeps
        twice as much; or 'small', four times, for images of 32 pixels. Weights fit all stems,
        except for resnet18, resnet34 and resnext50, whose first convolution is 7x7 or 3x3.
      convolution: 'keras', or 'unfold' for the SimpleNets on `UnfoldConv2D`.
      position_embedding: whether `vit` learns the position of each patch.
      bn_momentum: momentum of each BatchNormalization, if there are any; None keeps the
        network's own, 0.9 to 0.9997, of which the higher ones are slow for short training.
      dropout: share of the pooled features dropped in training.
      seed: seeds Keras's global generators, so that the random weights are reproducible; None
        does not touch them.
      **settings: the network's own settings.

    Returns:
      A model `name`: float32 'image' [B, H, W, 3] in [0, 1] -> float32 [B, num_classes].

    Raises:
      UsageError: an unknown name, an argument out of range, or one of alpha, stem, convolution
        and position_embedding given to a network that does not support it.
      TFRobustError: the weights cannot be downloaded or read, or do not match.

    Examples:
      >>> network = tr.build("simplenet", num_classes=10, image_shape=(32, 32, 3))
      >>> network.output_shape
      (None, 10)
    """
    backbone = BACKBONES[name]
    _check_shapes(backbone, num_classes, image_shape, resize)
    given = (alpha, stem, convolution, position_embedding)
    options = _options(backbone, dict(zip(OPTIONS, given, strict=True)))
    options |= backbone.checked(settings, beside=list(OPTIONS)) if settings else {}
    _check_numbers(alpha, dropout, 0.0 if bn_momentum is None else bn_momentum)
    from tfrobust.runtime import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)
    image = keras.Input(image_shape, name="image", dtype="float32")
    x = _resized(_normalise(image, backbone.normalisation), resize)
    image, features = _features(backbone, image, x, options)
    logits = _head(features, num_classes, dropout, seed)
    model = keras.Model(image, logits, name=backbone.name)
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


def _options(backbone: Backbone, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the network supports; any other non-default setting is an error."""
    for name, value in given.items():
        choices = {"stem": STEMS, "convolution": CONVOLUTIONS}.get(name)
        if choices and value not in choices:
            raise UsageError(f"{name}: expected {' or '.join(choices)}, found {value!r}.")
        if name not in backbone.options and value != OPTIONS[name]:
            takers = [one for one in BACKBONES if name in BACKBONES[one].options]
            raise UsageError(
                f"{name}: {backbone.name} does not support it, expected {OPTIONS[name]!r}, found "
                f"{value!r}: use that, or choose {' or '.join(takers)}."
            )
    return {name: value for name, value in given.items() if name in backbone.options}


def _check_numbers(alpha: float, dropout: float, bn_momentum: float) -> None:
    if alpha <= 0:
        raise UsageError(f"alpha: expected more than 0, found {alpha}.")
    for what, value in (("dropout", dropout), ("bn_momentum", bn_momentum)):
        if not 0 <= value < 1:
            raise UsageError(f"{what}: expected at least 0 and less than 1, found {value}.")


def _normalise(x: Any, normalisation: str) -> Any:
    """Pixels of [0, 1], normalised as in the network's training."""
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


def _resized(x: Any, side: int | None) -> Any:
    """Bilinear resizing, which commutes with normalisation; done first on fewer pixels."""
    from tfrobust.runtime import keras

    if side is None or x.shape[1:3] == (side, side):
        return x
    return keras.layers.Resizing(side, side, "bilinear", dtype="float32", name="resize")(x)


def _head(x: Any, num_classes: int, dropout: float, seed: int | None) -> Any:
    """Features, pooled if they are a map -> logits."""
    from tfrobust.runtime import keras

    layers = keras.layers
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    return layers.Dense(num_classes, dtype="float32", name=HEAD_LAYER)(x)


def _features(
    backbone: Backbone, image: Any, x: Any, options: Mapping[str, Any]
) -> tuple[Any, Any]:
    """The input and the map of features; a non-standard stem builds a new graph."""
    module, _, function = backbone.constructor.rpartition(":")
    if module:
        return image, getattr(import_module(module), function)(x, **options)
    from tfrobust.backbones.stems import with_stem
    from tfrobust.runtime import keras

    own = {name: value for name, value in options.items() if name != "stem"}
    constructor = getattr(keras.applications, backbone.constructor)
    made = constructor(input_tensor=x, include_top=False, weights=None, **own)
    whole = keras.Model(image, made.output)
    features = with_stem(whole, backbone.halvings, options.get("stem", "standard"))
    # EfficientNet's own normalisation is the identity unless Keras downloads its weights.
    for layer in features.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights([np.array(_MEAN), np.square(_STD), np.array(0)])
    return features.input, features.output


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
