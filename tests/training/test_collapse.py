"""The guard of single-step training against a network that really collapses."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.config import RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.data import ReadOptions, load
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, setup, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training.fit import fit
from tfrobust.training.guard import Guard

# Without noise, at this radius and rate, the network learns to fool FGSM within five epochs.
CONFIG = RunConfig(
    threat=ThreatConfig(eps=0.2),
    training=TrainingConfig(
        method="fast:noise_reach=0", batch_size=64,
        stages=(StageConfig(epochs=6, learning_rate=0.004, schedule="constant"),),
        optimizer="adam", guard_every=11,
    ),
)  # fmt: skip


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = x = keras.Input((16, 16, 3), name="image")
    for width, pooled in ((16, False), (16, True), (32, False), (32, True)):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
        x = keras.layers.MaxPool2D(2)(x) if pooled else x
    return keras.Model(image, keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x)))


def trained(folder):
    """The state at the end of training, and PGD accuracy of the last weights on 'test'."""
    setup(seed=0)
    splits = load("digits", options=ReadOptions(image_size=16))
    model, run = network(), RunFolder(folder)
    run.create()
    state = fit(model, splits, CONFIG, run)
    x, y = tf.constant(splits.test.images / np.float32(255)), splits.test.labels
    x_adv = PGD(steps=10)(model, x, y, ThreatModel("linf", 0.2), tf.constant([0, 0]))
    return state, float(np.mean(np.argmax(model(x_adv), axis=1) == y))


@pytest.mark.slow
def test_a_real_collapse_is_seen_within_an_epoch_and_undone(tmp_path, monkeypatch, capfd):
    guarded, robust = trained(tmp_path / "guarded")
    said = capfd.readouterr().err
    assert "Catastrophic overfitting at" in said and guarded.rollbacks >= 1
    assert guarded.noise_reach == guarded.rollbacks
    unguarded = []

    def only_look(guard, where):
        guard._since = 0
        unguarded.append(guard._selection.measure())

    monkeypatch.setattr(Guard, "_look", only_look)
    _, collapsed = trained(tmp_path / "unguarded")
    # The same run without its guard: FGSM's figure rises while PGD's is lost.
    best = max(look["select_pgd"] for look in unguarded)
    last = unguarded[-1]
    assert last["select_pgd"] < best / 2 and last["select_fgsm"] > 0.6
    assert collapsed < 0.1 < 0.15 < robust
    # Up to the collapse both are one: what the guard saw it saw at the first look after it.
    first = next(n for n, look in enumerate(unguarded) if look not in guarded.looks)
    assert guarded.looks[:first] == unguarded[:first] and first > 3
    assert unguarded[first]["select_pgd"] < best / 2
