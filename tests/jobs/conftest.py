"""A run folder as training leaves it, without the training, and images that any model learns."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.config import BackboneConfig, DataConfig, EvaluationConfig, RunConfig, ThreatConfig
from tfrobust.data import load
from tfrobust.data.digests import RunImages
from tfrobust.run import RunFolder

COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]])


def pictures(count=60, seed=0):
    """uint8 images of four plain colours with noise, and which."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 4
    x = np.clip(COLOURS[y][:, None, None] + rng.normal(0, 20, (count, 8, 8, 3)), 0, 255)
    return x.astype("uint8"), y


def classifier():
    """The network that is right on all of them, with a convolution to look into."""
    from tfrobust.runtime import keras

    image = keras.Input((8, 8, 3))
    same = keras.layers.Conv2D(3, 1, name="colours")
    dense = keras.layers.Dense(4)
    logits = dense(keras.layers.GlobalAveragePooling2D()(same(image)))
    same.set_weights([np.eye(3)[None, None], np.zeros(3)])
    dense.set_weights([40 * (COLOURS / 255).T, -20 * ((COLOURS / 255) ** 2).sum(axis=1)])
    return keras.Model(image, logits)


@pytest.fixture
def images(tmp_path):
    """An .npz file of the pictures."""
    np.savez(tmp_path / "images.npz", **dict(zip("xy", pictures(), strict=True)))
    return tmp_path / "images.npz"


@pytest.fixture
def run(tmp_path, images):
    """A run folder with a model and its split, and nothing measured."""
    return make_run(tmp_path / "run", images)


def make_run(folder, images):
    made = RunFolder(folder)
    made.create()
    config = RunConfig(
        data=DataConfig(dataset=str(images)), threat=ThreatConfig(eps=0.02),
        backbone=BackboneConfig(name="simplenet"),
        evaluation=EvaluationConfig(attacks=("fgsm",), figures=False),
    )  # fmt: skip
    made.write_config(config)
    RunImages.of(load(str(images), seed=config.seed)).save(made.seen)
    classifier().save(made.best_model)
    return made
