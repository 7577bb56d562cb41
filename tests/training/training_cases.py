"""What the tests of the training methods share."""

from __future__ import annotations

import shutil

import numpy as np

from tfrobust.attacks.gradient import PGD
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.recipe import Recipe
from tfrobust.training.state import Checkpoints

THREAT = ThreatModel("linf", 0.1)
FGSM_STEP = PGD(steps=1, random_start=False, early_stop=False)
PGD_STEPS = PGD(steps=3, early_stop=False)


def make(method, model, *, attack=PGD_STEPS, optimizer=None, **settings):
    """`method` around `model`, compiled with SGD at 0.1."""
    wrapped = METHODS[method].step()(model, Recipe(THREAT, attack, **settings))
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    wrapped.compile(optimizer)
    return wrapped


def batch_of(count=6, side=8, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": tf.constant(rng.uniform(0, 1, (count, side, side, 3)), tf.float32),
        "label": tf.constant(rng.integers(0, classes, count), tf.int32),
    }


class Linear:
    """A linear classifier on five 2x2x3 images, with everything about it in NumPy."""

    def __init__(self, linear_model):
        rng = np.random.default_rng(0)
        self.weights, self.bias = rng.normal(size=(12, 3)), rng.normal(size=3)
        self.x = rng.uniform(0.2, 0.8, (5, 2, 2, 3)).astype("float32")
        self.flat = self.x.reshape(5, 12)
        self.y = np.array([0, 1, 2, 0, 1], "int32")
        self.own = np.eye(3)[self.y]
        self.model = linear_model(self.weights, self.bias)
        self.batch = {"image": tf.constant(self.x), "label": tf.constant(self.y)}

    def probs(self, flat, weights=None):
        logits = flat @ (self.weights if weights is None else weights) + self.bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def loss(self, flat):
        """The mean of -log p(y)."""
        return -np.mean(np.log(self.probs(flat)[np.arange(5), self.y]))

    def gradient(self, flat, weights=None):
        """Of that loss by the weights: x^T (p - onehot) / B."""
        return flat.T @ (self.probs(flat, weights) - self.own) / 5

    def one_step(self, start, eps):
        """`start` moved by eps against the label; (p - onehot) W^T is the pixels' gradient."""
        return start + eps * np.sign((self.probs(start) - self.own) @ self.weights.T)

    def updated(self):
        return self.model.get_layer("logits").get_weights()[0]


def images(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count).astype("int32")
    pixels = rng.integers(0, 256, (count, 8, 8, 3)).astype("uint8")
    return ImageSet(pixels, labels, ("a", "b", "c", "d"))


# Of random images; four steps an epoch in batches of 16.
SPLITS = Splits(images(50, 1), images(24, 2), images(10, 3), ReadLog())


def copy_after(monkeypatch, epoch, run, folder):
    """A copy of the run's folder as a kill in the epoch after `epoch` would leave it."""
    save = Checkpoints.save

    def save_and_copy(self, state, *, is_best):
        save(self, state, is_best=is_best)
        if state.epoch == epoch and not folder.exists():
            shutil.copytree(run.path, folder)

    monkeypatch.setattr(Checkpoints, "save", save_and_copy)
    return RunFolder(folder)
