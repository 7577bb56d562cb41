"""The flat tf_keras twin of a graph computes the same function."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.models.classifier import as_classifier
from tfrobust.models.inference import attackable, inference
from tfrobust.models.twin import needs_twin, twin
from tfrobust.runtime import keras as keras_2
from tfrobust.runtime import tf

X = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype("float32")


@pytest.fixture(params=["tf_keras", "keras 3"])
def library(request):
    if request.param == "tf_keras":
        return keras_2
    return pytest.importorskip("keras", minversion="3.0")


def moved(model):
    """BatchNorm statistics away from their initial values."""
    rng = np.random.default_rng(1)
    weights = model.get_weights()
    model.set_weights(
        [np.abs(w) + rng.uniform(0.1, 0.3, w.shape) if w.ndim == 1 else w for w in weights]
    )
    return model


def tutorial(library):
    """A functional network with a residual sum, as tutorials write them."""
    layers = library.layers
    image = library.Input((32, 32, 3))
    x = layers.Rescaling(2.0, offset=-1.0)(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = previous = layers.Activation("relu")(x)
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.add([x, previous])
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return moved(library.Model(image, layers.Dense(5)(x)))


def transfer(library):
    """A backbone inside a model, with augmentation before it."""
    layers = library.layers
    base = library.applications.MobileNetV2(
        input_shape=(32, 32, 3), include_top=False, weights=None, alpha=0.35
    )
    augment = library.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    image = library.Input((32, 32, 3))
    x = base(layers.Rescaling(2.0, offset=-1.0)(augment(image)), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return moved(library.Model(image, layers.Dense(5)(x)))


def sequential(library):
    layers = library.layers
    return moved(library.Sequential([
        library.Input((32, 32, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(),
        layers.LeakyReLU(), layers.DepthwiseConv2D(3, strides=2), layers.ReLU(6.0),
        layers.AveragePooling2D(2), layers.Flatten(), layers.Dense(7, "gelu"), layers.Dense(5),
    ]))  # fmt: skip


def shared(library):
    """A layer that is used twice, and operations without a layer."""
    layers = library.layers
    image = library.Input((32, 32, 3))
    convolution = layers.Conv2D(3, 3, padding="same", activation="relu")
    x = convolution(image)
    x = convolution(x) * 0.5 + x
    return library.Model(image, layers.Dense(5)(layers.Flatten()(x)))


@pytest.mark.diagonal
@pytest.mark.parametrize("build", [tutorial, transfer, sequential, shared])
def test_it_is_the_same_function_with_the_same_gradients(library, build):
    model = build(library)
    made = twin(model)
    if made is None:
        # Operations of tf_keras have no layer: such a graph is flat already.
        assert build is shared and library is keras_2
        return
    assert build is shared or not needs_twin(made)
    for function in (inference(made), attackable(made)):
        gradients = []
        for one in (inference(model), function):
            x = tf.constant(X)
            with tf.GradientTape() as tape:
                tape.watch(x)
                found = one(x)
                total = tf.reduce_sum(found[:, 0])
            gradients.append(tape.gradient(total, x).numpy())
        np.testing.assert_allclose(found, inference(model)(tf.constant(X)), atol=1e-4, rtol=1e-3)
        np.testing.assert_allclose(*gradients, atol=1e-4 * np.abs(gradients[0]).max())


def test_layers_keep_their_names(library):
    names = [layer.name for layer in twin(transfer(library)).layers]
    assert "Conv1" in names and "out_relu" in names


def test_what_is_not_understood_has_no_twin(library):
    class Own(library.layers.Layer):
        def call(self, x):
            return x * 2

    image = library.Input((32, 32, 3))
    flat = library.layers.Flatten()(Own()(image))
    model = library.Model(image, library.layers.Dense(3)(flat))
    if library is not keras_2:
        assert twin(model) is None
    # It is attacked as it is.
    np.testing.assert_allclose(
        attackable(as_classifier(model, X))(tf.constant(X)), model(X), atol=1e-4
    )


def test_attacks_see_the_twin_and_the_model_judges(library):
    model = transfer(library)
    made = as_classifier(model, X)
    assert made.twin is not None and made.inner is model
    np.testing.assert_allclose(attackable(made)(tf.constant(X)), made(X), atol=1e-3)
