"""Robust training as Keras people know it, on real digits: what is promised is reached."""

from __future__ import annotations

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.data import load
from tfrobust.runtime import keras as keras_2

BALL = tr.Linf(0.1)


@pytest.fixture(scope="module")
def digits():
    splits = load("digits")
    parts = (splits.train, splits.select, splits.test)
    return [(part.pixels(slice(None)), part.labels) for part in parts]


@pytest.fixture(params=["tf_keras", "keras 3"])
def library(request):
    if request.param == "tf_keras":
        return keras_2
    return pytest.importorskip("keras", minversion="3.0")


def functional(library, shape):
    """The network of Keras's first image classification example, softmax and all."""
    layers = library.layers
    return library.Sequential([
        library.Input(shape), layers.Conv2D(32, 3, activation="relu", padding="same"),
        layers.MaxPooling2D(2), layers.Conv2D(64, 3, activation="relu", padding="same"),
        layers.MaxPooling2D(2), layers.Flatten(), layers.Dropout(0.2),
        layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def subclassed(library, shape):
    base = functional(library, shape)

    class Mine(library.Model):
        def __init__(self):
            super().__init__()
            self.base = base

        def call(self, x, training=None):
            return self.base(x, training=training)

    model = Mine()
    model(np.zeros((1, *shape), np.float32))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("build", [functional, subclassed])
def test_it_is_far_more_robust_than_plain_training(library, build, digits):
    (x, y), select, (x_test, y_test) = digits
    library.utils.set_random_seed(0)
    plain = build(library, x.shape[1:])
    plain.compile("adam", "sparse_categorical_crossentropy")
    plain.fit(x, y, epochs=30, batch_size=64, verbose=0)
    model = build(library, x.shape[1:])
    robust = tr.robust(model, tr.AdversarialTraining(attack=tr.PGD(steps=5)), BALL)
    robust.compile(library.optimizers.Adam(2e-3), metrics=["accuracy"])
    robust.fit(x, y, epochs=40, batch_size=64, validation_data=select, validation_freq=10,
               verbose=0)  # fmt: skip
    found = {}
    for name, one in (("plain", plain), ("robust", model)):
        report = tr.evaluate(one, (x_test, y_test), BALL, "autoattack", name=name)
        found[name] = report.robust_accuracy
        print(library.__name__, build.__name__, name, report.clean_accuracy, report.robust_accuracy)
    assert found["robust"] > found["plain"] + 0.3
