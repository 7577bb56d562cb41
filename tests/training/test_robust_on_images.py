"""Robust training as Keras people know it, on real images: what is promised is reached.

Networks and ways of the image classification examples of Keras's documentation.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.data import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BALL = tr.Linf(0.1)


@pytest.fixture(scope="module")
def digits():
    """(x, y) for training, selection and test, pixels in [0, 1]."""
    splits = load("digits")
    parts = (splits.train, splits.select, splits.test)
    return [(part.pixels(slice(None)), part.labels) for part in parts]


def functional(library, shape):
    """The network of the first image classification example, softmax and all."""
    layers = library.layers
    image = library.Input(shape)
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(image)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    x = layers.Dropout(0.2)(layers.Flatten()(layers.MaxPooling2D(2)(x)))
    return library.Model(image, layers.Dense(10, activation="softmax")(x))


def subclassed(library, shape):
    """The same as a class with layers of its own."""
    layers = library.layers

    class Mine(library.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Conv2D(32, 3, activation="relu", padding="same")
            self.second = layers.Conv2D(64, 3, activation="relu", padding="same")
            self.pool, self.flatten = layers.MaxPooling2D(2), layers.Flatten()
            self.dropout = layers.Dropout(0.2)
            self.top = layers.Dense(10, activation="softmax")

        def call(self, x, training=None):
            x = self.pool(self.second(self.pool(self.first(x))))
            return self.top(self.dropout(self.flatten(x), training=training))

    model = Mine()
    model(np.zeros((1, *shape), np.float32))
    return model


@pytest.mark.parametrize("build", [functional, subclassed])
def test_it_is_far_more_robust_than_plain_training(library, build, digits):
    (x, y), select, (x_test, y_test) = digits
    library.utils.set_random_seed(0)
    plain = build(library, x.shape[1:])
    plain.compile("adam", "sparse_categorical_crossentropy")
    plain.fit(x, y, epochs=10, batch_size=64, verbose=0)
    model, begun = build(library, x.shape[1:]), time.monotonic()
    robust = tr.robust(model, tr.AdversarialTraining(attack=tr.PGD(steps=3)), BALL)
    robust.compile(library.optimizers.Adam(2e-3), metrics=["accuracy"])
    robust.fit(x, y, epochs=20, batch_size=64, validation_data=select, validation_freq=10,
               verbose=0)  # fmt: skip
    check(library, build.__name__, plain, model, (x_test[:100], y_test[:100]), BALL, begun)


def check(library, name, plain, model, test, ball, begun):
    trained, found = time.monotonic() - begun, {}
    for kind, one in (("plain", plain), ("robust", model)):
        report = tr.evaluate(one, test, ball, "autoattack", name=kind)
        found[kind] = report.robust_accuracy
        print(library.__name__, name, kind, f"clean {report.clean_accuracy:.3f}",
              f"AutoAttack {report.robust_accuracy:.3f}", report.flags, flush=True)  # fmt: skip
    print(f"robust training {trained:.0f} s, in all {time.monotonic() - begun:.0f} s", flush=True)
    assert found["robust"] > found["plain"] + 0.3
