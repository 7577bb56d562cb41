"""eps rises over the first part of the training, after the head has learnt clean images."""

from __future__ import annotations

import numpy as np
import pytest
from training_cases import SPLITS, batch_of, make

from tfrobust.config import RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.run import RunFolder
from tfrobust.runtime import setup, tf
from tfrobust.training import METHODS
from tfrobust.training.fit import fit
from tfrobust.training.traits import TRAITS


@pytest.mark.parametrize("method", [name for name in TRAITS if TRAITS[name].adversarial])
def test_no_method_goes_further_than_its_share_of_eps(small_cnn, method):
    wrapped = make(method, small_cnn(), eps_ramp=0.5)
    batch = batch_of(32)
    # A single step of N-FGSM reaches 3 radii, the blend with x half of one.
    reach = {"fast": 3, "blend": 0.5}.get(method, 1)
    if method == "mixture":
        wrapped.recipe = wrapped.recipe.__class__(
            wrapped.recipe.threat_model, wrapped.recipe.attack, adv_probability=1.0, fgsm_eps=0.1
        )
    furthest = []
    for share in (0.5, 1.0):
        wrapped.eps_share.assign(share)
        x_adv = wrapped.craft(batch["image"], batch["label"])
        furthest.append(float(tf.reduce_max(tf.abs(x_adv - batch["image"]))))
    assert furthest[0] <= 0.05 * reach + 1e-6 < furthest[1] <= 0.1 * reach + 1e-6


def test_the_ramp_by_hand(small_cnn, tmp_path, monkeypatch):
    setup(seed=1)
    run = RunFolder(tmp_path / "run")
    run.create()
    shares, step = [], METHODS["pgd"].train_step

    def seen(self, batch):
        tf.py_function(lambda share: shares.append(float(share)), [self.eps_share], [])
        return step(self, batch)

    monkeypatch.setattr(METHODS["pgd"], "train_step", seen)
    stages = (StageConfig(blocks="head", epochs=1), StageConfig(epochs=3))
    training = TrainingConfig(
        method="pgd", stages=stages, batch_size=16, select_steps=2, eps_ramp=0.5
    )
    fit(small_cnn(), SPLITS, RunConfig(threat=ThreatConfig(eps=0.05), training=training), run)
    # 16 steps, of which 4 train the head; half of all, 8, are the ramp.
    np.testing.assert_allclose(shares, [0, 0, 0, 0, *np.arange(8) / 8, 1, 1, 1, 1], atol=1e-6)


def test_at_an_eps_of_0_nothing_is_crafted(small_cnn, monkeypatch):
    wrapped = make("pgd", small_cnn(), eps_ramp=0.5)
    x, y = batch_of()["image"], batch_of()["label"]
    monkeypatch.setattr(type(wrapped), "craft", lambda self, x, y: x + 1.0)
    wrapped.eps_share.assign(0.0)
    np.testing.assert_array_equal(wrapped._crafted(x, y), x)
    wrapped.eps_share.assign(0.1)
    np.testing.assert_array_equal(wrapped._crafted(x, y), x + 1.0)


@pytest.mark.parametrize("method", list(METHODS))
def test_traits_are_those_of_the_methods(small_cnn, method):
    traits = TRAITS[method]
    wrapped = make(method, small_cnn())
    batch = batch_of()
    crafted = wrapped.craft(batch["image"], batch["label"])
    # Noise is crafted, but not from the ball.
    assert traits.adversarial == (crafted is not None and method != "noise")
    fits = True
    try:
        made = make(method, small_cnn(), crafting="nfgsm")
    except Exception:
        fits = False
    assert fits == (traits.crafting or wrapped.single_step)
    assert not fits or made.single_step


def test_nsl_crafts_as_fast_does(small_cnn):
    batch = batch_of(16)
    found = [
        make(method, small_cnn(seed=3), crafting="nfgsm").craft(batch["image"], batch["label"])
        for method in ("nsl", "fast")
    ]
    np.testing.assert_array_equal(*found)
