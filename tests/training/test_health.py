"""A run that does not learn goes back, tries again more gently, and says so."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from training_cases import SPLITS, batch_of, make

from tfrobust.chance import guessing_loss
from tfrobust.config import RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.errors import TFRobustError
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, setup, tf
from tfrobust.training.diagnosis import diagnose
from tfrobust.training.fit import fit
from tfrobust.training.health import TRIES, Health, Snapshot
from tfrobust.training.state import TrainState

LABELS = np.arange(1000) % 10
LATE = {"part": 0.5, "steps": 1000, "count": 200}


def health_of(*clean):
    """A judge that has seen epochs of these clean accuracies, and a method to put back."""
    rows = [{"epoch": i + 1, "loss": 1.0, "select_clean": each} for i, each in enumerate(clean)]
    held = tf.Variable(1.0)
    state = TrainState(rows=rows)
    resets = []
    method = SimpleNamespace(
        reset_metrics=lambda: resets.append(1), loss_of_guessing=lambda entropy: 2 * entropy
    )
    return Health(state, Snapshot([held]), LABELS), method, held, state


def row_of(clean, loss=1.0):
    return {"epoch": 9, "loss": loss, "select_clean": clean}


def test_a_good_epoch_is_the_one_to_go_back_to():
    health, method, held, state = health_of(0.4)
    held.assign(2.0)
    assert health.judge(row_of(0.45), method, **LATE) == ""
    held.assign(3.0)
    assert "collapsed from 0.400 to 0.110" in health.judge(row_of(0.11), method, **LATE)
    # 22 of 200 is what guessing reaches: back to the weights after the good epoch.
    assert held.numpy() == 2.0
    assert (state.recoveries, state.rate_factor, state.eps_factor) == (1, 0.3, 1.0)
    assert health.judge(row_of(0.11), method, **LATE)
    assert (round(state.rate_factor, 3), state.eps_factor) == (0.09, 0.5)


@pytest.mark.parametrize(
    ("row", "when", "wrong"),
    [
        (row_of(0.12), {}, "not above that of the most frequent class (0.100)"),
        # Not yet: before a quarter of the training, or in its first steps.
        (row_of(0.12), {"part": 0.2}, ""),
        (row_of(0.12), {"steps": 20}, ""),
        (row_of(0.18, loss=2 * np.log(10) + 0.01), {}, "no better than that of guessing"),
        # The mean of an epoch that began at guessing, of a network that has learnt.
        (row_of(0.4, loss=2 * np.log(10) + 0.01), {}, ""),
        (row_of(0.4, loss=2 * np.log(10) - 0.01), {}, ""),
        (row_of(0.4, loss=float("nan")), {}, "not finite"),
        # An epoch that was not measured has only its loss.
        ({"epoch": 9, "loss": 9.0}, {"count": 0}, ""),
    ],
)
def test_what_is_wrong_with_an_epoch(row, when, wrong):
    health, method, *_ = health_of()
    found = health.judge(row, method, **{**LATE, **when})
    assert wrong in found and bool(found) == bool(wrong)


def test_it_waits_a_quarter_of_the_training_before_it_judges_again():
    health, method, _, state = health_of()
    assert health.judge(row_of(0.1), method, part=0.3, steps=999, count=200)
    assert not health.judge(row_of(0.1), method, part=0.5, steps=999, count=200)
    assert health.judge(row_of(0.1), method, part=0.56, steps=999, count=200)
    assert state.recoveries == 2 and not health.hopeless


CONFIG = RunConfig(
    threat=ThreatConfig(eps=0.05),
    training=TrainingConfig(
        method="standard", stages=(StageConfig(epochs=3, learning_rate=0.05),), batch_size=16,
        select_steps=2,
    ),
)  # fmt: skip


@pytest.fixture
def run(tmp_path):
    setup(seed=1)
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def poisoned(monkeypatch, times):
    """Makes the weights of a few steps infinite."""
    from tfrobust.training.standard import Standard

    poison = Standard.train_step
    left = tf.Variable(times, dtype=tf.int32)

    def train_step(self, batch):
        bad = tf.cast((left > 0) & (self.optimizer.iterations == 2), tf.float32)
        left.assign_sub(tf.cast(bad, tf.int32))
        bias = self.base_model.get_layer("logits").bias
        bias.assign(tf.where(bad > 0, float("nan"), bias))
        return poison(self, batch)

    monkeypatch.setattr(Standard, "train_step", train_step)


def test_a_loss_that_is_not_finite_is_undone_and_training_goes_on(
    small_cnn, run, monkeypatch, capfd
):
    poisoned(monkeypatch, 1)
    model = small_cnn()
    state = fit(model, SPLITS, CONFIG, run)
    assert state.epoch == 3 and state.recoveries == 1 and state.rate_factor == 0.3
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    rows = list(csv.DictReader(run.history.open()))
    assert [bool(row["event"]) for row in rows] == [True, False, False]
    # The epoch's mean is that of its finite steps.
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert "rolled back" in capfd.readouterr().err


def test_a_loss_that_is_never_finite_ends_training(small_cnn, run, monkeypatch):
    poisoned(monkeypatch, 1000)
    with pytest.raises(TFRobustError):
        fit(small_cnn(), SPLITS, CONFIG, run)


def test_what_recovery_puts_back(small_cnn):
    wrapped = make("standard", small_cnn(), optimizer=keras.optimizers.Adam(0.01), ema=0.9)
    held = [*wrapped.base_model.variables, *wrapped.optimizer.variables,
            *wrapped.averages.variables]  # fmt: skip
    health = Health(TrainState(), Snapshot(held), LABELS)
    before = [variable.numpy() for variable in held]
    wrapped.train_step(batch_of())
    health.recover(wrapped, "a test", "here")
    for value, variable in zip(before, held, strict=True):
        np.testing.assert_array_equal(value, variable)
    assert float(wrapped.metrics[0].result()) == 0.0 and TRIES == 3


FALLING = [{"loss": loss, "clean_accuracy": 0.12} for loss in (2.3, 2.25, 2.2)]
FLAT = [{"loss": 2.31, "clean_accuracy": 0.1} for _ in range(30)]


@pytest.mark.parametrize(
    ("rows", "labels", "reason"),
    [
        (FALLING, LABELS, "--epochs"),
        (FLAT, LABELS, "never rose"),
        ([{"loss": 2.3, "clean_accuracy": 0.14}] * 9, LABELS, "shuffled, or eps"),
        ([{"loss": 0.2, "clean_accuracy": 0.95}] * 9, LABELS, "labels look shuffled"),
        ([{"loss": 0.2, "clean_accuracy": 0.95}] * 9, LABELS[:80], "too few"),
        (FLAT, LABELS[:80], "are few"),
        ([{**FLAT[0], "event": "the loss is not finite"}], LABELS, "--learning-rate"),
    ],
)
def test_reasons_are_told_apart(rows, labels, reason):
    assert reason in diagnose(rows, labels)
    assert guessing_loss(LABELS) > 2.3
