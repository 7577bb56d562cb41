"""The guard of single-step training: what it sees, and that it undoes exactly."""

from __future__ import annotations

import numpy as np
import pytest
from training_cases import SPLITS, batch_of, copy_after, make

from tfrobust.config import RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, setup, tf
from tfrobust.training import guard as guard_module
from tfrobust.training.fit import fit
from tfrobust.training.guard import Guard
from tfrobust.training.health import Snapshot
from tfrobust.training.state import TrainState


class Scripted:
    """Measures what it is told to."""

    count = 32

    def __init__(self, *pgd):
        self.pgd = list(pgd)

    def measure(self):
        return {"select_clean": 0.9, "select_fgsm": 0.6, "select_pgd": self.pgd.pop(0)}


def test_a_collapse_is_undone_to_the_bit_and_training_goes_on_with_wider_noise(small_cnn, capfd):
    model = small_cnn()
    wrapped = make("fast", model, optimizer=keras.optimizers.Adam(0.01), ema=0.9)
    held = [*model.variables, *wrapped.optimizer.variables, *wrapped.averages.variables]
    step, state = tf.function(wrapped.train_step, autograph=False), TrainState()
    # PGD falls from .5 to .1 while FGSM stands.
    guard = Guard(Scripted(0.5, 0.1, 0.45), state, 2, Snapshot(held))
    guard.set_model(wrapped)
    guard.on_epoch_begin(0)

    def two_steps(first):
        for batch in (first, first + 1):
            step(batch_of(seed=batch))
            guard.on_train_batch_end(batch)

    two_steps(0)
    good = [v.numpy() for v in held]
    assert int(wrapped.optimizer.iterations) == 2
    two_steps(2)
    for value, variable in zip(good, held, strict=True):
        np.testing.assert_array_equal(value, variable)
    # Weights, statistics, both moments of Adam, its step and the averages had all moved.
    assert len(held) > 3 * len(model.trainable_variables)
    assert (state.rollbacks, state.noise_reach, float(wrapped.reach)) == (1, 3.0, 3.0)
    said = capfd.readouterr().err
    assert "Catastrophic overfitting at epoch 1, step 4" in said and "3 * eps" in said
    two_steps(4)
    # The collapsed look is not among those that later ones are judged by.
    assert [look["select_pgd"] for look in state.looks] == [0.5, 0.45]
    assert any(np.any(a != b.numpy()) for a, b in zip(good, held, strict=True))
    assert step.experimental_get_tracing_count() == 1


def test_it_looks_at_what_is_left_of_an_epoch_and_not_twice(small_cnn):
    wrapped = make("fast", small_cnn())
    script = Scripted(0.5, 0.5, 0.5)
    guard = Guard(script, TrainState(), 2, Snapshot(wrapped.base_model.variables))
    guard.set_model(wrapped)
    for steps, looks in ((3, 2), (2, 1)):
        guard.on_epoch_begin(0)
        before = len(script.pgd)
        for batch in range(steps):
            guard.on_train_batch_end(batch)
        guard.on_epoch_end(0)
        assert before - len(script.pgd) == looks


CONFIG = RunConfig(
    threat=ThreatConfig(eps=0.05),
    training=TrainingConfig(
        method="fast", stages=(StageConfig(epochs=3, learning_rate=0.05),), batch_size=16,
        select_steps=2, guard_every=3, guard_limit=16, ema=0.9, optimizer="adam",
    ),
)  # fmt: skip


@pytest.fixture
def collapses_once(monkeypatch):
    """The third look of a run finds a collapse, until the noise is widened."""
    look, seen = Guard._look, {}

    def remember(self, where):
        seen["reach"] = float(self.model.reach.numpy())
        look(self, where)

    monkeypatch.setattr(Guard, "_look", remember)
    monkeypatch.setattr(
        guard_module,
        "overfits_to_fgsm",
        lambda rows, least: len(rows) == 3 and seen["reach"] == 2.0,
    )


def test_a_run_with_a_rollback_resumes_to_the_same_weights(
    small_cnn, tmp_path, monkeypatch, collapses_once
):
    setup(seed=1)
    run = RunFolder(tmp_path / "whole")
    run.create()
    killed = copy_after(monkeypatch, 2, run, tmp_path / "killed")
    whole = small_cnn()
    first = fit(whole, SPLITS, CONFIG, run)
    # Looks after step 3 and at the end of each of three epochs of 4 steps, one undone.
    assert (first.rollbacks, first.noise_reach, len(first.looks)) == (1, 3.0, 5)
    resumed = small_cnn(seed=99)
    second = fit(resumed, SPLITS, CONFIG, killed, resume=True)
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert second.looks == first.looks and second.noise_reach == 3.0
    # The kept models, which are averages, are the same too.
    kept = [keras.models.load_model(r.best_model, compile=False) for r in (run, killed)]
    for one, two in zip(*(model.get_weights() for model in kept), strict=True):
        np.testing.assert_array_equal(one, two)
