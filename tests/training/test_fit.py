"""Training as a whole: stages, selection, history, resuming, and what stops it."""

from __future__ import annotations

import contextlib
import csv
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from training_cases import copy_after

from tfrobust.backbones.precision import is_mixed
from tfrobust.config import AugmentConfig, RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.data.pipeline import evaluation_batches
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.plugins import Choice
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, setup, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import fit as fit_module
from tfrobust.training.callbacks import EpochEnd
from tfrobust.training.elbow import Elbow
from tfrobust.training.fit import fit
from tfrobust.training.selection import Selection, rank
from tfrobust.training.state import Checkpoints, TrainState


def image_set(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count).astype("int32")
    images = rng.integers(0, 120, (count, 8, 8, 3)).astype("uint8")
    images[np.arange(count), labels * 2] += 120
    return ImageSet(images, labels, ("a", "b", "c", "d"))


SPLITS = Splits(image_set(50, 1), image_set(24, 2), image_set(10, 3), ReadLog())
STAGES = (
    StageConfig(blocks="head", epochs=2, learning_rate=0.05),
    StageConfig(blocks="all", epochs=3, learning_rate=0.05),
)
CONFIG = RunConfig(
    augment=AugmentConfig(flip=True, gaussian_noise=0.05),
    threat=ThreatConfig(eps=0.05),
    training=TrainingConfig(stages=STAGES, batch_size=16, select_steps=3),
)


def new_run(folder):
    run = RunFolder(folder)
    run.create()
    return run


@pytest.fixture(autouse=True)
def deterministic():
    setup(seed=1)


def test_history_stages_and_the_kept_model(small_cnn, tmp_path):
    run, model = new_run(tmp_path), small_cnn()
    first = [v.numpy() for v in model.layers[1].weights]
    seen = []
    keep = EpochEnd.on_epoch_end

    def spy(self, epoch, logs=None):
        seen.append([v.numpy() for v in model.layers[1].weights])
        keep(self, epoch, logs)

    EpochEnd.on_epoch_end = spy
    try:
        state = fit(model, SPLITS, CONFIG, run)
    finally:
        EpochEnd.on_epoch_end = keep
    rows = list(csv.DictReader(run.history.open()))
    assert [row["stage"] for row in rows] == ["1", "1", "2", "2", "2"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    # Head only: the first convolution stays; then it moves.
    for epoch, moved in ((0, False), (1, False), (2, True)):
        assert moved == any(np.any(a != b) for a, b in zip(first, seen[epoch], strict=True))
    best = max(state.rows, key=lambda r: (*rank(r), -r["epoch"]))
    assert state.best_epoch == best["epoch"]
    kept = keras.models.load_model(run.best_model, compile=False)
    threat = ThreatModel("linf", 0.05)
    batches = evaluation_batches(SPLITS.select, 16)
    again = Selection(kept, batches, threat, steps=3, seed=CONFIG.seed).measure()
    assert again["select_pgd"] == best["select_pgd"]
    assert list(run.tensorboard.iterdir())


def test_resumed_run_ends_with_the_same_weights(small_cnn, tmp_path, monkeypatch):
    whole_run, whole = new_run(tmp_path / "whole"), small_cnn()
    run = copy_after(monkeypatch, 3, whole_run, tmp_path / "killed")
    fit(whole, SPLITS, CONFIG, whole_run)
    resumed = small_cnn(seed=99)
    state = fit(resumed, SPLITS, CONFIG, run, resume=True)
    assert state.epoch == 5 and state.stage == 2
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # A finished run resumes to itself.
    again = fit(small_cnn(), SPLITS, CONFIG, run, resume=True)
    assert again.rows == state.rows


def test_dropout_repeats_after_resuming(tmp_path, monkeypatch):
    def network():
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3), name="image")
        x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(image))
        return keras.Model(image, keras.layers.Dense(4, name="logits")(x))

    one = StageConfig(epochs=1, learning_rate=0.05, schedule="constant")
    long = replace(CONFIG, training=replace(CONFIG.training, stages=(replace(one, epochs=2),)))
    whole_run, whole = new_run(tmp_path / "whole"), network()
    run = copy_after(monkeypatch, 1, whole_run, tmp_path / "killed")
    fit(whole, SPLITS, long, whole_run)
    resumed = network()
    fit(resumed, SPLITS, long, run, resume=True)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_plateau_ends_a_stage_early(small_cnn, tmp_path):
    stage = StageConfig(epochs=9, learning_rate=1e-9, patience=1, schedule="constant")
    config = replace(CONFIG, training=replace(CONFIG.training, stages=(stage, stage)))
    state = fit(small_cnn(), SPLITS, config, new_run(tmp_path))
    assert [row["stage"] for row in state.rows] == [1, 1, 2, 2]


def test_nan_loss_stops_with_the_last_good_checkpoint_intact(small_cnn, tmp_path):
    stages = (
        StageConfig(epochs=1, learning_rate=0.05),
        StageConfig(epochs=2, learning_rate=1e38, schedule="constant"),
    )
    config = replace(CONFIG, training=replace(CONFIG.training, stages=stages))
    run = new_run(tmp_path)
    # Whether some step of such a rate leaves a finite loss is a matter of rounding.
    with contextlib.suppress(TFRobustError):
        fit(small_cnn(), SPLITS, config, run)
    assert json.loads(run.state.read_text())["best_epoch"] == 1
    kept = keras.models.load_model(run.best_model, compile=False)
    assert all(np.all(np.isfinite(w)) for w in kept.get_weights())


def test_damaged_checkpoint_is_one_sentence(small_cnn, tmp_path):
    run = new_run(tmp_path)
    stage = (StageConfig(epochs=1, learning_rate=0.05),)
    config = replace(CONFIG, training=replace(CONFIG.training, stages=stage))
    fit(small_cnn(), SPLITS, config, run)
    for file in run.checkpoints.glob("epoch-*/*.data*"):
        file.write_bytes(b"damaged")
    with pytest.raises(TFRobustError, match="cannot be resumed from"):
        fit(small_cnn(), SPLITS, config, run, resume=True)
    run.state.write_text("{")
    with pytest.raises(TFRobustError, match="cannot be resumed from"):
        fit(small_cnn(), SPLITS, config, run, resume=True)


def test_stage_weights_override_the_runs(small_cnn, tmp_path):
    stages = (replace(STAGES[0], adv_weight=0.0, epochs=1), replace(STAGES[1], epochs=1))
    config = replace(CONFIG, training=replace(CONFIG.training, stages=stages))
    rows = fit(small_cnn(), SPLITS, config, new_run(tmp_path)).rows
    assert "adv_accuracy" not in rows[0] and rows[1]["adv_accuracy"] > 0


def test_a_wrong_later_stage_is_told_before_the_first_begins(small_cnn, tmp_path):
    stages = (STAGES[0], replace(STAGES[1], blocks="99"))
    config = replace(CONFIG, training=replace(CONFIG.training, stages=stages))
    run = new_run(tmp_path)
    with pytest.raises(UsageError, match="blocks below the head from 0 to 2, found '99'"):
        fit(small_cnn(), SPLITS, config, run)
    assert not run.state.exists() and not run.history.exists()


def test_a_norm_that_the_method_does_not_know_is_wrong_use(small_cnn, tmp_path):
    config = replace(CONFIG, threat=ThreatConfig("l0", 5.0))
    with pytest.raises(UsageError, match="nsl trains against linf, l2, l1, found 'l0'"):
        fit(small_cnn(), SPLITS, config, new_run(tmp_path))


def test_the_state_file_names_the_epoch_of_the_elbow(small_cnn, tmp_path, monkeypatch):
    run, seen = new_run(tmp_path), []

    def another_than_the_best(rows, first):
        seen.append(json.loads(run.state.read_text())["best_epoch"])
        return Elbow(2 if seen[-1] == 1 else 1, turned=True)

    monkeypatch.setattr(fit_module, "find_elbow", another_than_the_best)
    training = replace(
        CONFIG.training, stages=STAGES[:1], method="standard", keep_from=1, choose="elbow"
    )
    state = fit(small_cnn(), SPLITS, replace(CONFIG, training=training), run)
    written = json.loads(run.state.read_text())
    assert written["best_epoch"] == state.best_epoch != seen[0]
    # It is still one to resume from.
    again = fit(small_cnn(), SPLITS, replace(CONFIG, training=training), run, resume=True)
    assert seen[1] == written["best_epoch"] and again.rows == state.rows


@pytest.mark.parametrize("kind", ["adv", "clean"])
def test_an_epoch_without_a_kind_of_batch_has_no_accuracy_on_it(small_cnn, tmp_path, kind):
    fold_in = tf.random.experimental.stateless_fold_in
    seeds = [fold_in([CONFIG.seed, step], 2) for step in range(8)]
    draws = [float(tf.random.stateless_uniform([2], seed)[0]) for seed in seeds]
    # A batch is adversarial where its draw is below the probability: set so that one of the two
    # epochs of four steps has one, and the other none (for 'clean' the other way round).
    extreme = np.reshape(draws, (2, 4)).min(axis=1)
    if kind == "clean":
        extreme = np.reshape(draws, (2, 4)).max(axis=1)
    probability = float(extreme.mean())
    has = extreme < probability if kind == "adv" else extreme >= probability
    method = Choice("mixture", {"adv_probability": probability})
    training = replace(CONFIG.training, stages=STAGES[:1], method=method, steps=1)
    run = new_run(tmp_path)
    rows = fit(small_cnn(), SPLITS, replace(CONFIG, training=training), run).rows
    assert sorted(has) == [False, True]
    assert [f"{kind}_accuracy" in row for row in rows] == has.tolist()
    history = list(csv.DictReader(run.history.open()))
    assert [row[f"{kind}_accuracy"] != "" for row in history] == has.tolist()
    other = "clean" if kind == "adv" else "adv"
    assert all(f"{other}_accuracy" in row for row in rows)


def test_selection_counts_worst_cases(linear_model):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 2))
    model = linear_model(weights, -weights.sum(axis=0) / 2)
    images = rng.integers(0, 256, (30, 2, 2, 3)).astype("uint8")
    labels = rng.integers(0, 2, 30).astype("int32")
    data = ImageSet(images, labels, ("a", "b"))
    eps = 0.05
    found = Selection(
        model, evaluation_batches(data, 8), ThreatModel("linf", eps, (-9.0, 9.0)), steps=5, seed=0
    ).measure()
    w = weights[:, 1] - weights[:, 0]
    side = (images.reshape(30, -1) / 255 - 0.5) @ w * (2 * labels - 1)
    # A linear model is right where the side is positive, and stays so where it exceeds
    # eps * ||w||_1; one step already is the optimum.
    assert found["select_clean"] == pytest.approx(np.mean(side > 0))
    assert found["select_fgsm"] == pytest.approx(np.mean(side > eps * np.abs(w).sum()))
    assert found["select_pgd"] == found["select_fgsm"]


def test_a_network_trained_in_mixed_precision_is_kept_in_float32(small_cnn, tmp_path):
    run = new_run(tmp_path)
    config = replace(CONFIG, training=replace(CONFIG.training, stages=STAGES[1:]))
    try:
        setup(seed=1, precision="mixed_bfloat16")
        model = small_cnn()
        state = fit(model, SPLITS, config, run)
    finally:
        setup(seed=1)
    kept = keras.models.load_model(run.best_model, compile=False)
    assert is_mixed(model) and not is_mixed(kept)
    x = tf.constant(SPLITS.select.images, tf.float32) / 255
    clean = float(np.mean(np.argmax(kept(x), axis=1) == SPLITS.select.labels))
    # Measured in training in the rounded numbers: an image or two may differ.
    assert clean == pytest.approx(state.rows[state.best_epoch - 1]["select_clean"], abs=0.1)
    for mine, theirs in zip(kept.get_weights(), model.get_weights(), strict=True):
        assert mine.dtype == np.float32 and mine.shape == theirs.shape


def test_sample_is_random_and_repeats():
    data = ImageSet(SPLITS.train.images, np.arange(50, dtype="int32"), tuple(map(str, range(50))))
    one, two = (data.sample(10, 3).labels for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.tolist() != list(range(10)) and len(set(one.tolist())) == 10
    assert data.sample(99, 3) is data


def test_board_logs_both_batches(small_cnn, tmp_path):
    run = new_run(tmp_path)
    stage = (StageConfig(epochs=1, learning_rate=0.05),)
    fit(small_cnn(), SPLITS, replace(CONFIG, training=replace(CONFIG.training, stages=stage)), run)
    tags = set()
    for file in run.tensorboard.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags |= {value.tag for value in event.summary.value}
    assert {"clean", "adversarial", "loss", "select_pgd"} <= tags


def test_what_a_thread_keeps_is_a_keras_file_too(tmp_path, small_cnn):
    """One that has opened such a file before, as the workers of a cluster have."""
    model, run = small_cnn(), new_run(tmp_path / "run")
    model.save(tmp_path / "own.keras")

    def keep():
        keras.models.load_model(tmp_path / "own.keras", compile=False)
        Checkpoints(run, model, keras.optimizers.SGD()).save(TrainState(epoch=1), is_best=True)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(keep).result()
    assert zipfile.is_zipfile(run.best_model)
