"""Every robust method makes a small network on real digits more robust than `standard`."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.data import ReadOptions, load
from tfrobust.data.pipeline import steps_per_epoch, training_batches
from tfrobust.runtime import keras, setup, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.recipe import Recipe

THREAT = ThreatModel("linf", 0.1)
EPOCHS, BATCH = 4, 64
# By how much each is expected to be ahead; they are by about twice as much.
CASES = {
    "nsl": ({}, 0.3),
    "pgd": ({}, 0.3),
    "trades": ({"beta": 3.0}, 0.3),
    "mart": ({"beta": 3.0}, 0.3),
    "fast": ({}, 0.3),
    "mixture": ({"fgsm_eps": 0.05}, 0.2),
    "blend": ({}, 0.2),
    "noise": ({"noise_std": 0.2}, 0.15),
    "pgd with awp and ema": ({"awp": 0.005, "ema": 0.98}, 0.3),
}


@pytest.fixture(scope="module")
def digits():
    return load("digits", options=ReadOptions(image_size=8))


@pytest.fixture(scope="module")
def baseline(digits):
    return robust_accuracy("standard", digits)


def network():
    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 3), name="image")
    for width in (16, 32):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.MaxPool2D(2)(keras.layers.ReLU()(x))
    logits = keras.layers.Dense(10, name="logits")
    return keras.Model(image, logits(keras.layers.Flatten()(x)))


def robust_accuracy(method, splits, **settings):
    setup(seed=0)
    model = network()
    attack = PGD(steps=2, early_stop=False)
    wrapped = METHODS[method].step()(model, Recipe(THREAT, attack, **settings))
    wrapped.compile(keras.optimizers.Adam(0.004))
    batches = training_batches(splits.train, batch_size=BATCH, seed=0)
    steps = steps_per_epoch(len(splits.train), BATCH)
    wrapped.fit(batches, epochs=EPOCHS, steps_per_epoch=steps, verbose=0)
    x, y = tf.constant(splits.test.images / np.float32(255)), splits.test.labels
    with wrapped.kept():
        x_adv = PGD(steps=10)(model, x, y, THREAT, tf.constant([0, 0]))
        return np.mean(np.argmax(model(x_adv), axis=1) == y)


def test_every_method_has_its_case():
    assert {name.split()[0] for name in CASES} | {"standard"} == set(METHODS)


# The methods differ in little more than their loss, which test_methods.py works by hand: one with
# several steps and one with a single step run by default, the others with the slow tests.
SLOW = set(CASES) - {"nsl", "fast"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES],
)
def test_more_robust_than_standard_training(case, digits, baseline):
    settings, margin = CASES[case]
    assert robust_accuracy(case.split()[0], digits, **settings) > baseline + margin
