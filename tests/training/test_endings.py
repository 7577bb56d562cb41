"""What ends training, and which epoch's model is kept: time, early stopping, the elbow."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from training_cases import SPLITS, copy_after

from tfrobust.config import RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.data.pipeline import evaluation_batches
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, setup, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import budget as budget_module
from tfrobust.training import callbacks as callbacks_module
from tfrobust.training.budget import Budget
from tfrobust.training.callbacks import Schedule
from tfrobust.training.elbow import Elbow, find_elbow
from tfrobust.training.fit import fit
from tfrobust.training.selection import Selection
from tfrobust.training.state import Checkpoints

STAGE = StageConfig(epochs=3, learning_rate=0.05)


def config_of(*stages, **settings):
    training = TrainingConfig(
        stages=stages, batch_size=16, select_steps=2, **{"method": "standard", **settings}
    )
    return RunConfig(threat=ThreatConfig(eps=0.05), training=training)


@pytest.fixture
def run(tmp_path):
    setup(seed=1)
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, but for 10 seconds in each training step."""
    now = SimpleNamespace(seconds=1000.0, rates=[])
    monkeypatch.setattr(budget_module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    begin = Schedule.on_train_batch_begin

    def step(self, batch, logs=None):
        begin(self, batch, logs)
        now.seconds += 10.0
        now.rates.append(float(self.model.optimizer.learning_rate.numpy()))

    monkeypatch.setattr(Schedule, "on_train_batch_begin", step)
    return now


def test_budget_by_hand(clock):
    stages = (StageConfig(epochs=1), StageConfig(epochs=3))
    budget = Budget(2.0, spent=20.0)
    clock.seconds += 10.0
    # 30 of 120 seconds: a quarter, the share of the first of four epochs.
    assert (budget.elapsed, budget.part, budget.used_up) == (30.0, 0.25, False)
    assert budget.note == ", 30 s of 2 min 00 s used"
    assert (budget.left, Budget(None).left) == (90.0, None)
    assert [budget.epochs_into(stages, i, began) for i, began in ((0, 0), (1, 30))] == [1.0, 0.0]
    assert [budget.is_over(stages, i, began) for i, began in ((0, 0), (1, 30))] == [True, False]
    # A stage that begins early has what is left: 110 seconds for 3 epochs, of which 20 are gone.
    assert budget.epochs_into(stages, 1, 10.0) == pytest.approx(3 * 20 / 110)
    clock.seconds += 90.0
    assert budget.used_up and budget.is_over(stages, 1, 30.0)
    endless = Budget(None)
    clock.seconds += 1e9
    assert endless.part == 0.0 and endless.note == ""
    assert not endless.used_up and not endless.is_over(stages, 0, 0.0)


def test_time_ends_training_at_the_step_in_which_it_is_used_up(
    small_cnn, run, clock, capfd, tmp_path, monkeypatch
):
    killed = copy_after(monkeypatch, 1, run, tmp_path / "killed")
    config = config_of(STAGE, time_limit=1.0)
    whole = small_cnn()
    state = fit(whole, SPLITS, config, run)
    # 60 seconds are 6 steps of 10: an epoch of 4, and 2 of the next.
    assert len(clock.rates) == 6 and [row["epoch"] for row in state.rows] == [1, 2]
    # The cosine runs over the time: after k of 6 steps it is at k / 6.
    expected = [0.025 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]
    np.testing.assert_allclose(clock.rates, expected, rtol=1e-5)
    assert state.elapsed == 60.0 and state.stage == 1
    assert "limit of 1 min" in capfd.readouterr().out
    # What was measured and written is the model as the last step left it.
    rows = list(csv.DictReader(run.history.open()))
    assert [float(row["elapsed"]) for row in rows] == [40.0, 60.0]
    again = fit(small_cnn(), SPLITS, config, run, resume=True)
    assert again.rows == state.rows and len(clock.rates) == 6
    # Killed after 40 seconds, there are 20 left; the time until it resumes does not count.
    clock.seconds += 3600.0
    resumed = small_cnn(seed=99)
    assert fit(resumed, SPLITS, config, killed, resume=True).elapsed == 60.0
    np.testing.assert_allclose(clock.rates[6:], expected[4:], rtol=1e-5)
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_stages_share_the_time_and_epochs_are_no_cap(small_cnn, run, clock):
    short = replace(STAGE, epochs=1, schedule="constant")
    # Of 200 seconds the first of two epochs has 100, 10 steps of 4 an epoch; so has the second.
    config = config_of(short, short, time_limit=200 / 60)
    state = fit(small_cnn(), SPLITS, config, run)
    assert [row["stage"] for row in state.rows] == [1, 1, 1, 2, 2, 2]
    assert len(clock.rates) == 20 and state.elapsed == 200.0


def test_not_every_epoch_is_measured_but_the_last_of_each_stage_is(small_cnn, run):
    stages = (replace(STAGE, epochs=3), replace(STAGE, epochs=4))
    state = fit(small_cnn(), SPLITS, config_of(*stages, select_every=2), run)
    measured = [row["epoch"] for row in state.rows if "select_pgd" in row]
    assert measured == [2, 3, 4, 6, 7] and state.best_epoch in measured
    rows = list(csv.DictReader(run.history.open()))
    assert [bool(row["select_pgd"]) for row in rows] == [k in measured for k in range(1, 8)]
    # The elbow is found among kept epochs, so each of these is measured.
    kept = config_of(*stages, select_every=3, keep_from=1)
    assert all("select_loss" in row for row in fit(small_cnn(), SPLITS, kept, run).rows)


def test_it_says_how_long_it_takes(small_cnn, run, monkeypatch, capfd):
    monkeypatch.setattr(callbacks_module, "_TIMED_STEPS", 4)
    fit(small_cnn(), SPLITS, config_of(STAGE), run)
    assert "3 epochs of 4 steps take" in capfd.readouterr().out


def test_early_stopping_counts_epochs_over_all_stages(small_cnn, run, capfd):
    # Nothing moves: the first epoch stays the best, and the third ends training.
    still = StageConfig(epochs=2, learning_rate=1e-12, schedule="constant")
    settings = {"early_stopping": 2, "batch_norm": "none", "keep_from": 4, "choose": "elbow"}
    config = config_of(still, replace(still, epochs=5), **settings)
    state = fit(small_cnn(), SPLITS, config, run)
    assert [row["stage"] for row in state.rows] == [1, 1, 2]
    assert state.best_epoch == 1 and state.stage == 2
    said = capfd.readouterr().out
    assert "2 epochs brought no improvement" in said
    # No epoch was kept to choose the elbow from: it says so, and the best stays.
    assert "No elbow" in said and state.elbow is None and run.best_model.is_file()


def rows_of(*pairs):
    return [
        {"epoch": i + 1, "loss": loss, "select_loss": select}
        for i, (loss, select) in enumerate(pairs)
    ]


def test_the_elbow_is_where_validation_turns_while_training_improves():
    turned = rows_of((2.0, 2.0), (1.5, 1.6), (1.0, 1.4), (0.8, 1.5), (0.5, 1.9))
    assert find_elbow(turned, 1) == Elbow(3, turned=True)
    # Only kept epochs can be taken; that it turned before them is told.
    assert find_elbow(turned, 4) == Elbow(4, turned=False, earlier=3)
    assert find_elbow(turned, 6) is None
    # Both still improve; or both got worse, as with a learning rate that is too high.
    assert find_elbow(turned[:3], 1) == Elbow(3, turned=False)
    assert find_elbow(rows_of((1.0, 1.0), (1.2, 1.1)), 1) == Elbow(1, turned=False)
    assert find_elbow(rows_of((1.0, 1.0), (0.9, 1.0)), 1) == Elbow(1, turned=True)


def test_the_elbow_needs_kept_epochs():
    with pytest.raises(UsageError, match="keep_from"):
        config_of(STAGE, choose="elbow")
    with pytest.raises(UsageError, match="expected one of the 3 epochs, found 4"):
        config_of(STAGE, keep_from=4)


def test_kept_epochs_and_the_elbow_of_an_averaged_run_that_was_killed(
    small_cnn, run, tmp_path, monkeypatch
):
    config = config_of(STAGE, method="pgd:awp=0.01", keep_from=2, choose="elbow", ema=0.5, steps=1)
    whole, killed = small_cnn(), copy_after(monkeypatch, 2, run, tmp_path / "killed")
    state = fit(whole, SPLITS, config, run)
    models = run.checkpoints / "models"
    assert sorted(f.name for f in models.iterdir()) == ["epoch-0002.keras", "epoch-0003.keras"]
    chosen = min(state.rows[1:], key=lambda row: row["select_loss"])
    assert state.best_epoch == chosen["epoch"]
    # The kept model, an average of weights, is what 'select' measured.
    kept = keras.models.load_model(run.best_model, compile=False)
    assert any(np.any(a != b) for a, b in zip(kept.get_weights(), whole.get_weights(), strict=True))
    batches = evaluation_batches(SPLITS.select, 16)
    ball = ThreatModel("linf", 0.05)
    again = Selection(kept, batches, ball, steps=2, seed=config.seed, loss_on="pgd").measure()
    for name, value in again.items():
        assert value == pytest.approx(chosen[name], abs=1e-5)

    resumed = small_cnn(seed=99)
    fit(resumed, SPLITS, config, killed, resume=True)
    found = keras.models.load_model(killed.best_model, compile=False)
    for one, two in ((whole, resumed), (kept, found)):
        for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_missing_epoch_cannot_be_chosen(small_cnn, run):
    model = small_cnn()
    with pytest.raises(TFRobustError, match="model of epoch 9 cannot be made the best"):
        Checkpoints(run, model, keras.optimizers.SGD(), keep_from=1).choose(9)


def test_accuracy_on_an_attack_alone_counts_what_the_attack_mends():
    # Logits (0, sum of 100 (x - 1/2)^2 - 1/2) at x = .51: 12 * .01 - .5 < 0, class 0; the
    # label is 1. FGSM steps against the gradient, past the middle to .41, where
    # 12 * .81 - .5 > 0: right, though the clean image is not.
    image = keras.Input((2, 2, 3), name="image")
    score = keras.layers.Lambda(
        lambda x: tf.reduce_sum(100 * (x - 0.5) ** 2, axis=[1, 2, 3]) - 0.5
    )(image)
    logits = keras.layers.Lambda(lambda s: tf.stack([tf.zeros_like(s), s], axis=1))(score)
    model = keras.Model(image, logits)
    data = ImageSet(np.full((2, 2, 2, 3), 0.51, "float32"), np.ones(2, "int32"), ("a", "b"))
    for worst_case, expected in ((True, 0.0), (False, 1.0)):
        found = Selection(
            model, evaluation_batches(data, 2), ThreatModel("linf", 0.1), steps=2, seed=0,
            worst_case=worst_case,
        ).measure()  # fmt: skip
        assert found["select_clean"] == 0.0 and found["select_fgsm"] == expected


def test_a_network_that_predicts_one_class_is_told_from_one_that_no_attack_moves(linear_model):
    # Logits (0, sum of x - 6): two bright images and a dark one, each far from the border.
    weights = np.stack([np.zeros(12), np.ones(12)], axis=1)
    model = linear_model(weights, np.array([0.0, -6.0]))
    images = np.stack([np.full((2, 2, 3), value, "uint8") for value in (255, 255, 0)])
    ball = ThreatModel("linf", 0.01)
    for count, classes in ((3, 2), (2, 1)):
        data = ImageSet(images[:count], np.array([1, 1, 0], "int32")[:count], ("a", "b"))
        found = Selection(model, evaluation_batches(data, 2), ball, steps=2, seed=0).measure()
        assert found["select_clean"] == found["select_pgd"] == 1.0
        assert found["select_classes"] == classes


def test_a_smaller_last_batch_is_not_traced_anew(linear_model):
    model, traces = linear_model(np.zeros((12, 2)), np.zeros(2)), []
    called = model.call
    model.call = lambda *args, **kwargs: (traces.append(args), called(*args, **kwargs))[1]
    data = ImageSet(np.zeros((5, 2, 2, 3), "uint8"), np.zeros(5, "int32"), ("a", "b"))
    counts = []
    for size in (5, 2):
        batches = evaluation_batches(data, size)
        selection = Selection(model, batches, ThreatModel("linf", 0.1), steps=2, seed=0)
        before = len(traces)
        selection.measure()
        counts.append(len(traces) - before)
    assert counts[0] == counts[1] > 0


def test_select_loss_by_hand(linear_model):
    # p = (3/4, 1/4) whatever the image: -ln .75 = .28768, -ln .25 = 1.38629, clean or not.
    model = linear_model(np.zeros((12, 2)), np.log([3.0, 1.0]))
    data = ImageSet(np.zeros((3, 2, 2, 3), "uint8"), np.array([0, 0, 1], "int32"), ("a", "b"))
    for loss_on in ("clean", "pgd"):
        found = Selection(
            model, evaluation_batches(data, 2), ThreatModel("linf", 0.1), steps=2, seed=0,
            loss_on=loss_on,
        ).measure()  # fmt: skip
        assert found["select_loss"] == pytest.approx((2 * 0.28768 + 1.38629) / 3, abs=1e-5)
        assert found["select_clean"] == pytest.approx(2 / 3)
