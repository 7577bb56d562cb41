"""A folded network is the same function, with the same gradients."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import input_gradient
from tfrobust.backbones import build
from tfrobust.models.folding import fold
from tfrobust.runtime import keras, tf
from tfrobust.training.batch_norm import batch_norm_layers


def randomise(model, seed=0):
    """BatchNorm as after training: every parameter away from its initial value."""
    rng = np.random.default_rng(seed)
    for layer in batch_norm_layers(model):
        for variable in layer.weights:
            positive = "gamma" in variable.name or "variance" in variable.name
            low, high = (0.5, 1.5) if positive else (-0.3, 0.3)
            variable.assign(rng.uniform(low, high, variable.shape))
    return model


def pixels(side, count=3):
    rng = np.random.default_rng(1)
    return tf.constant(rng.uniform(0, 1, (count, side, side, 3)), tf.float32)


def check_equal(model, x):
    y = np.zeros(len(x), "int32")
    folded = fold(model)
    grads, logits = zip(
        *(input_gradient(f, x, y, "cross_entropy")
          for f in (folded, lambda x: model(x, training=False))), strict=True
    )  # fmt: skip
    scale = np.abs(logits[1]).max()
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4 * max(scale, 1))
    np.testing.assert_allclose(grads[0], grads[1], atol=1e-2 * np.abs(grads[1]).max())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenetv2", {"alpha": 0.35}),
        pytest.param("resnet50", {}, marks=pytest.mark.slow),
        pytest.param("resnet50v2", {}, marks=pytest.mark.slow),
        pytest.param("efficientnetb0", {}, marks=pytest.mark.slow),
        ("resnet18", {"alpha": 0.25}),
        pytest.param("resnext50", {}, marks=pytest.mark.slow),
        ("simplenet_plus", {"alpha": 0.5}),
        ("simplenet", {"convolution": "unfold"}),
        ("vit", {"alpha": 0.25}),
    ],
)
def test_networks_fold_to_themselves(name, options):
    model = randomise(build(name, num_classes=5, image_shape=(32, 32, 3), seed=0, **options))
    check_equal(model, pixels(32))


def test_every_kind_of_convolution_by_itself():
    layers = keras.layers
    image = keras.Input((9, 9, 3), name="image")
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(6, 3, strides=2)(image))
    x = layers.BatchNormalization(center=False)(
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    )
    x = layers.BatchNormalization()(layers.Conv2D(8, 1, groups=2, use_bias=False)(x))
    # Not foldable: an activation in between, and an output that is used twice.
    x = layers.BatchNormalization()(layers.Conv2D(8, 1, activation="relu")(x))
    shared = layers.Conv2D(8, 1)(x)
    x = layers.Add()([layers.BatchNormalization()(shared), shared])
    x = layers.Add()([x, x])
    model = keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    check_equal(randomise(model), pixels(9))


def test_folds_the_present_weights_each_time_it_runs(small_cnn):
    model, x = small_cnn(), pixels(8)
    run = tf.function(lambda x: fold(model)(x), autograph=False)
    run(x)
    randomise(model)
    np.testing.assert_allclose(run(x), model(x, training=False), atol=1e-5)


def test_nested_models_run_as_they_are(small_cnn):
    inner = randomise(small_cnn())
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, keras.layers.Dense(2)(inner(image)))
    check_equal(model, pixels(8))


@pytest.mark.diagonal
@pytest.mark.parametrize("padding", [((0, 1), (0, 1)), 1, ((1, 0), (0, 2))])
@pytest.mark.parametrize("stride", [1, 2])
def test_zeros_laid_around_an_image_become_the_convolution_s_padding(padding, stride):
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, strides=stride)(layers.ZeroPadding2D(padding)(image))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    # A pad that two layers see stays; one before a depthwise convolution goes.
    seen_twice = layers.ZeroPadding2D(padding)(x)
    x = layers.Add()([layers.Conv2D(4, 3, use_bias=False)(seen_twice),
                      layers.DepthwiseConv2D(3)(seen_twice)])  # fmt: skip
    x = layers.DepthwiseConv2D(3, strides=stride)(layers.ZeroPadding2D(padding)(x))
    model = keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    check_equal(randomise(model), pixels(8))


@pytest.mark.parametrize("side, stride", [(1, 1), (1, 2), (2, 2), (2, 1)])
def test_images_of_one_pixel(side, stride):
    layers = keras.layers
    image = keras.Input((side, side, 3), name="image")
    x = image
    for kernel in (3, 1, 2, 5):
        x = layers.Conv2D(6, kernel, strides=stride, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    model = keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))
    check_equal(randomise(model), pixels(side))
