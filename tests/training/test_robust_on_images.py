"""Robust training as Keras people know it, on real images: what is promised is reached.

Networks and ways of the image classification examples of Keras's documentation:
`python -m pytest -m slow -s tests/training/test_robust_on_images.py` prints the table.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

import tfrobust as tr
from benchmarks.learns import extract
from tfrobust.data import ReadOptions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
DIGITS, PHOTOS = tr.Linf(0.15), tr.Linf(4 / 255)
HEAD_THEN_ALL = "head:3:0.003,all:9:0.001"


@pytest.fixture(scope="module")
def digits():
    """(x, y) for training, selection and test, 8x8, pixels in [0, 1]."""
    return parts(tr.load("digits", options=ReadOptions(image_size=8)))


@pytest.fixture(scope="module")
def photos(shared_data, tmp_path_factory):
    """The same of four classes of CIFAR-10, 300 images each, 32x32, pixels in 0..255."""
    folder = tmp_path_factory.mktemp("photos") / "images"
    extract(shared_data / "cifar10-images.zip", "/train/", 3, 300, folder)
    return [(255 * x, y) for x, y in parts(tr.load(str(folder)))]


def parts(splits):
    """Of test 100 images, whatever their order."""
    chosen = (splits.train, splits.select, splits.test.sample(100, seed=0))
    return [(part.pixels(slice(None)), part.labels) for part in chosen]


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


def transfer(library, shape, weights):
    """The transfer learning guide's: augmentation, a frozen base of ImageNet, a head."""
    layers = library.layers
    whole = library.applications.MobileNetV2(input_shape=shape, include_top=False, weights=None)
    whole.load_weights(weights)
    # Of images so small, what comes after has next to no place left.
    base = library.Model(whole.input, whole.get_layer("block_6_expand_relu").output)
    base.trainable = False
    image = library.Input(shape)
    x = layers.RandomRotation(0.05)(layers.RandomFlip("horizontal")(image))
    x = base(layers.Rescaling(1 / 127.5, -1)(x), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return library.Model(image, layers.Dense(4)(x))


@pytest.mark.parametrize("build", [functional, subclassed])
def test_it_is_far_more_robust_than_plain_training(library, build, digits):
    (x, y), select, test = digits
    library.utils.set_random_seed(0)
    plain = build(library, x.shape[1:])
    plain.compile("adam", "sparse_categorical_crossentropy")
    plain.fit(x, y, epochs=10, batch_size=64, verbose=0)
    model, begun = build(library, x.shape[1:]), time.monotonic()
    robust = tr.robust(model, tr.AdversarialTraining(attack=tr.PGD(steps=3)), DIGITS)
    robust.compile(library.optimizers.Adam(2e-3), metrics=["accuracy"])
    robust.fit(x, y, epochs=20, batch_size=64, validation_data=select, validation_freq=10,
               verbose=0)  # fmt: skip
    check(library, build.__name__, plain, model, test, DIGITS, begun)


def test_so_it_is_from_a_frozen_base_with_augmentation(library, photos, shared_data):
    """Both train the head first and then all of the network but BatchNorm, as the guide does."""
    (x, y), select, test = photos
    weights = shared_data / "weights" / "mobilenet_v2_1.0_96_no_top.h5"
    models = {}
    attacked = tr.AdversarialTraining(attack=tr.PGD(steps=2), batch_norm="none")
    for name, method in (("plain", tr.Standard(batch_norm="none")), ("robust", attacked)):
        library.utils.set_random_seed(0)
        models[name], begun = transfer(library, x.shape[1:], weights), time.monotonic()
        robust = tr.robust(models[name], method, PHOTOS)
        robust.compile("adam", metrics=["accuracy"])
        robust.fit(x, y, epochs=12, batch_size=32, validation_data=select, validation_freq=12,
                   verbose=0, callbacks=[tr.callbacks.StagedUnfreezing(HEAD_THEN_ALL)])  # fmt: skip
    check(library, "transfer", *models.values(), test, PHOTOS, begun)


def check(library, name, plain, model, test, ball, begun):
    trained, found = time.monotonic() - begun, {}
    for kind, one in (("plain", plain), ("robust", model)):
        report = tr.evaluate(one, test, ball, "autoattack", name=kind)
        found[kind] = report.robust_accuracy
        print(library.__name__, name, kind, f"clean {report.clean_accuracy:.3f}",
              f"AutoAttack {report.robust_accuracy:.3f}", report.flags, flush=True)  # fmt: skip
    print(f"robust training {trained:.0f} s, in all {time.monotonic() - begun:.0f} s", flush=True)
    assert found["robust"] > found["plain"] + 0.3
