"""What the tests of robust models share: images of three colours and a network."""

from __future__ import annotations

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.runtime import keras as keras_2

RNG = np.random.default_rng(0)
# What takes long by default runs in Keras 3 alone.
IN_KERAS_3 = pytest.mark.parametrize(
    "library", [pytest.param("tf_keras", marks=pytest.mark.slow), "keras 3"], indirect=True
)


def data(count=64, scale=1.0, rng=RNG):
    y = np.arange(count) % 3
    x = np.clip(0.3 * np.eye(3)[y][:, None, None] + rng.uniform(0.2, 0.6, (count, 8, 8, 3)), 0, 1)
    return (scale * x).astype("float32"), y


def network(library, last="softmax", classes=3, first=(), activation="relu"):
    # Seeded: after a command of ours TensorFlow draws nothing without a seed.
    library.utils.set_random_seed(0)
    layers = library.layers
    image = x = library.Input((8, 8, 3))
    for layer in first:
        x = layer(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(x)
    # Fused, Keras 2 keeps another running variance than Keras 3: n / (n - 1) times as large.
    plain = {"fused": False} if library is keras_2 else {}
    x = layers.BatchNormalization(momentum=0.9, **plain)(x)
    x = layers.Flatten()(layers.Activation(activation)(x))
    return library.Model(image, layers.Dense(classes, last, name="top")(x))


def same_start(models, rng=RNG):
    weights = [rng.normal(0, 0.3, w.shape) if w.ndim > 1 else w for w in models[0].get_weights()]
    for model in models:
        model.set_weights(weights)


def small(library, method=None, ball=None, optimizer=None, **compiled):
    """A robust model of a small network, compiled."""
    method = method or tr.AdversarialTraining(attack=tr.PGD(steps=1))
    made = tr.robust(network(library), method, ball or tr.Linf(0.05))
    made.compile(optimizer or library.optimizers.Adam(0.01), **compiled)
    return made


def assert_same(one, other):
    """Two models with the same weights, to the bit."""
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
