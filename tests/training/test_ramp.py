"""eps rises over the first part of the training, after the head has learnt clean images."""

from __future__ import annotations

import numpy as np
import pytest
from training_cases import SPLITS, batch_of, make

from tfrobust.config import RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.plugins import settings_of
from tfrobust.run import RunFolder
from tfrobust.runtime import setup, tf
from tfrobust.training import METHODS
from tfrobust.training.fit import fit


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].needs_attack])
def test_no_method_goes_further_than_its_share_of_eps(small_cnn, method):
    wrapped = make(method, small_cnn())
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
    shares, step = [], METHODS["pgd"].step().train_step

    def seen(self, batch):
        tf.py_function(lambda share: shares.append(float(share)), [self.eps_share], [])
        return step(self, batch)

    monkeypatch.setattr(METHODS["pgd"].step(), "train_step", seen)
    stages = (StageConfig(blocks="head", epochs=1), StageConfig(epochs=3))
    training = TrainingConfig(
        method="pgd", stages=stages, batch_size=16, select_steps=2, eps_ramp=0.5
    )
    fit(small_cnn(), SPLITS, RunConfig(threat=ThreatConfig(eps=0.05), training=training), run)
    # 16 steps, of which 4 train the head; half of all, 8, are the ramp.
    np.testing.assert_allclose(shares, [0, 0, 0, 0, *np.arange(8) / 8, 1, 1, 1, 1], atol=1e-6)


@pytest.mark.diagonal
@pytest.mark.parametrize("steps", ["first", "always"])
@pytest.mark.parametrize("method", ["nsl", "pgd", "trades"])
def test_while_eps_is_0_a_step_is_one_of_standard_training(small_cnn, method, steps):
    """Times the sum of the weights, for a method that has any."""
    step, clean = small_cnn(seed=5), small_cnn(seed=5)
    wrapped = make(method, step, clean_steps=steps, clean_weight=0.25, adv_weight=0.75)
    wrapped.eps_share.assign(0.0)
    plain = make("standard", clean)
    batch = batch_of(16)
    measured = tf.function(wrapped.train_step, autograph=False)(batch)
    expected = tf.function(plain.train_step, autograph=False)(batch)
    for one, two in zip(step.get_weights(), clean.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    for name in ("loss", "clean_accuracy"):
        np.testing.assert_allclose(measured[name], expected[name], rtol=1e-5)
    # The adversarial accuracy of no batch is left out of the history.
    logs = dict(measured)
    wrapped.drop_unmeasured(0, logs)
    assert set(logs) == {"loss", "clean_accuracy"}


def test_with_eps_a_step_is_the_methods_own(small_cnn):
    pair = [small_cnn(seed=5), small_cnn(seed=5)]
    for model, steps in zip(pair, ("first", "never"), strict=True):
        wrapped = make("nsl", model, clean_steps=steps)
        tf.function(wrapped.train_step, autograph=False)(batch_of(16))
    for one, two in zip(*(model.get_weights() for model in pair), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("method", list(METHODS))
def test_capabilities_are_those_of_the_steps(small_cnn, method):
    declared = METHODS[method]
    wrapped = make(method, small_cnn())
    batch = batch_of()
    crafted = wrapped.craft(batch["image"], batch["label"])
    # Noise is crafted, but not from the ball.
    assert declared.needs_attack == (crafted is not None and method != "noise")
    fits = True
    try:
        made = make(method, small_cnn(), crafting="nfgsm")
    except Exception:
        fits = False
    assert fits == ("crafting" in settings_of(declared) or wrapped.single_step)
    assert not fits or made.single_step
    assert declared().single_step == wrapped.single_step
    assert ("awp" in settings_of(declared)) == type(wrapped).perturbs_weights


def test_nsl_crafts_as_fast_does(small_cnn):
    batch = batch_of(16)
    found = [
        make(method, small_cnn(seed=3), crafting="nfgsm").craft(batch["image"], batch["label"])
        for method in ("nsl", "fast")
    ]
    np.testing.assert_array_equal(*found)
