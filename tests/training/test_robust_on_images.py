"""Robust training as Keras people know it, on real images: what is promised is reached.

Networks and ways of the image classification examples of Keras's documentation.
"""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.data import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BALL = tr.Linf(0.1)
FINE = tr.Linf(2 / 255)
VEHICLES = ("airplane", "automobile", "ship", "truck")


@pytest.fixture(scope="module")
def digits():
    """(x, y) for training, selection and test, pixels in [0, 1]."""
    splits = load("digits")
    parts = (splits.train, splits.select, splits.test)
    return [(part.pixels(slice(None)), part.labels) for part in parts]


@pytest.fixture(scope="module")
def vehicles(shared_data):
    """(x, y) of 32 x 32 photographs in 0..255, for training, selection and test."""
    from PIL import Image

    path = shared_data / "cifar10-images.zip"
    if not path.is_file():
        pytest.skip(f"real photographs not found: expected {path}")
    with zipfile.ZipFile(path) as file:
        names = sorted(file.namelist())

        def read(part, first, count):
            found = []
            for label, kind in enumerate(VEHICLES):
                here = [n for n in names if f"/{part}/{kind}/" in n and n.endswith(".jpg")]
                for name in here[first : first + count]:
                    found.append((np.asarray(Image.open(io.BytesIO(file.read(name)))), label))
            # Shuffled: `fit` is given whole batches of all kinds.
            order = np.random.default_rng(0).permutation(len(found))
            x = np.stack([found[i][0] for i in order]).astype("float32")
            return x, np.array([found[i][1] for i in order])

        return read("train", 0, 500), read("train", 1000, 16), read("test", 0, 16)


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


def transfer(library, weights):
    """The transfer learning example: a base that is frozen first, augmentation before it."""
    layers = library.layers
    base = library.applications.MobileNetV2(
        input_shape=(64, 64, 3), include_top=False, weights=str(weights)
    )
    base.trainable = False
    image = library.Input((32, 32, 3))
    x = layers.RandomTranslation(0.1, 0.1)(layers.RandomFlip("horizontal")(image))
    x = layers.Resizing(64, 64)(layers.Rescaling(1 / 127.5, offset=-1)(x))
    x = layers.GlobalAveragePooling2D()(base(x, training=False))
    return library.Model(image, layers.Dense(len(VEHICLES))(layers.Dropout(0.2)(x))), base


def test_transfer_learning_with_a_frozen_base_and_augmentation(library, vehicles, shared_data):
    (x, y), select, test = vehicles
    weights = shared_data / "weights" / "mobilenet_v2_1.0_96_no_top.h5"
    if not weights.is_file():
        pytest.skip(f"pretrained weights not found: expected {weights}")
    library.utils.set_random_seed(0)
    plain, base = transfer(library, weights)
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    for trainable, rate, epochs in ((False, 1e-3, 2), (True, 1e-4, 2)):
        base.trainable = trainable
        plain.compile(library.optimizers.Adam(rate), loss)
        plain.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
    begun = time.monotonic()
    model, _ = transfer(library, weights)
    robust = tr.robust(model, tr.Fast(), FINE)
    robust.compile(library.optimizers.Adam(1e-3), metrics=["accuracy"])
    history = robust.fit(x, y, epochs=99, batch_size=64, validation_data=select, verbose=0,
                         callbacks=[tr.callbacks.StagedUnfreezing("head:1:0.001,all:7:0.0003"),
                                    tr.callbacks.OverfittingGuard()])  # fmt: skip
    print(history.history)
    check(library, "transfer", plain, model, test, FINE, begun)


def check(library, name, plain, model, test, ball, begun):
    trained, found = time.monotonic() - begun, {}
    for kind, one in (("plain", plain), ("robust", model)):
        report = tr.evaluate(one, test, ball, "autoattack", name=kind)
        found[kind] = report.robust_accuracy
        print(library.__name__, name, kind, f"clean {report.clean_accuracy:.3f}",
              f"AutoAttack {report.robust_accuracy:.3f}", report.flags, flush=True)  # fmt: skip
    print(f"robust training {trained:.0f} s, in all {time.monotonic() - begun:.0f} s", flush=True)
    assert found["robust"] > found["plain"] + 0.3
