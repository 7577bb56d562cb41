"""Schedules, plateaus, optimisers and what survives from stage to stage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfrobust.backbones import set_trainable
from tfrobust.config import StageConfig, TrainingConfig, parse_stages
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.training.selection import overfits_to_fgsm, rank
from tfrobust.training.stages import learning_rate, make_optimizer, plateaued


def test_learning_rates_by_hand():
    cosine = StageConfig(epochs=10, learning_rate=0.1, final_learning_rate=0.02)
    # Half way: .02 + .08 * (1 + cos(pi / 2)) / 2 = .06.
    assert learning_rate(cosine, 0) == pytest.approx(0.1)
    assert learning_rate(cosine, 5) == pytest.approx(0.06)
    assert learning_rate(cosine, 10) == pytest.approx(0.02)
    step = StageConfig(epochs=8, learning_rate=0.1, schedule="step", final_learning_rate=0.005)
    assert [learning_rate(step, e) for e in (3.9, 4, 6)] == pytest.approx([0.1, 0.01, 0.005])
    assert learning_rate(StageConfig(learning_rate=0.3, schedule="constant"), 7) == 0.3
    linear = StageConfig(epochs=8, learning_rate=0.1, schedule="linear", warmup_epochs=4)
    # Up to 4, then down: a quarter of the way down is .075.
    assert [learning_rate(linear, e) for e in (2, 4, 5, 8)] == pytest.approx(
        [0.05, 0.1, 0.075, 0], abs=1e-4
    )
    # From .25 of 8 epochs on a half, from .5 on a tenth.
    pieces = StageConfig(
        epochs=8, learning_rate=0.1, schedule="piecewise", milestones="0.25:0.5,0.5:0.1"
    )
    found = [learning_rate(pieces, e) for e in (0, 1.9, 2, 4, 7.9)]
    assert found == pytest.approx([0.1, 0.1, 0.05, 0.01, 0.01])
    warm = StageConfig(epochs=10, learning_rate=0.1, warmup_epochs=2, schedule="constant")
    assert learning_rate(warm, 1) == pytest.approx(0.05, rel=0.01)
    assert learning_rate(warm, 0) > 0 and learning_rate(warm, 2) == 0.1


def test_a_stage_ends_on_a_plateau_only():
    stage = StageConfig(patience=2, min_delta=0.1)
    assert not plateaued(stage, [1.0, 0.8, 0.6, 0.4])
    assert not plateaued(stage, [1.0, 0.95])
    # The best before is 1.0; neither .95 nor .91 is below it by .1.
    assert plateaued(stage, [1.0, 0.95, 0.91])
    assert not plateaued(stage, [1.0, 0.95, 0.89])
    assert not plateaued(StageConfig(patience=None), [1.0] * 50)


def test_stages_as_the_command_line_writes_them():
    stages = parse_stages("head:2:0.05, 3:4:0.01,all:6:1e-3")
    assert [(s.blocks, s.epochs, s.learning_rate) for s in stages] == [
        ("head", 2, 0.05), ("3", 4, 0.01), ("all", 6, 0.001)
    ]  # fmt: skip
    for wrong in ("head", "head:x:1", "head:1:2:3", "all:0:0.1"):
        with pytest.raises(UsageError):
            parse_stages(wrong)


@pytest.mark.parametrize("wrong", ["", "0.5", "0.5:x", "0.5:0.1,0.5:0.2", "0.7:1,0.5:1", "2:1"])
def test_milestones_that_make_no_sense_are_named(wrong):
    with pytest.raises(UsageError, match="PART:FACTOR"):
        StageConfig(schedule="piecewise", milestones=wrong)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimiser_state_survives_where_variables_stay_trainable(small_cnn, name):
    model = small_cnn()
    optimizer = make_optimizer(TrainingConfig(optimizer=name))
    set_trainable(model, "all")
    optimizer.build(model.trainable_variables)

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(tf.ones([2, 8, 8, 3]), training=True) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def slots(kernel):
        at = [v.ref() for v in variables].index(kernel.ref())
        return [v.numpy() for v in optimizer.variables if v.shape == kernel.shape], at

    variables = model.trainable_variables
    kernel = model.get_layer("logits").kernel
    set_trainable(model, "head")
    step()
    after_head, _ = slots(kernel)
    assert any(np.any(value) for value in after_head)
    set_trainable(model, "all")
    kept, _ = slots(kernel)
    for old, new in zip(after_head, kept, strict=True):
        np.testing.assert_array_equal(old, new)
    step()  # the same optimiser goes on with more variables
    assert int(optimizer.iterations.numpy()) == 2


def test_weight_decay_leaves_biases_and_batch_norm_alone(small_cnn):
    model = small_cnn()
    optimizer = make_optimizer(
        TrainingConfig(
            weight_decay=0.5, stages=(StageConfig(learning_rate=0.1, schedule="constant"),)
        )
    )
    before = [v.numpy() + 1 for v in model.trainable_variables]
    for variable, value in zip(model.trainable_variables, before, strict=True):
        variable.assign(value)
    zeros = [tf.zeros_like(v) for v in model.trainable_variables]
    optimizer.apply_gradients(zip(zeros, model.trainable_variables, strict=True))
    for variable, value in zip(model.trainable_variables, before, strict=True):
        # Decoupled: w - lr * decay * w = .95 w.
        factor = 0.95 if "kernel" in variable.name else 1.0
        np.testing.assert_allclose(variable.numpy(), factor * value, rtol=1e-5)


def row(fgsm, pgd, clean=1.0, classes=10):
    columns = {"select_clean": clean, "select_fgsm": fgsm, "select_pgd": pgd}
    return columns | {"select_classes": classes}


def test_catastrophic_overfitting_is_seen_and_a_bad_epoch_is_not():
    assert overfits_to_fgsm([row(0.4, 0.35), row(0.6, 0.05)])
    assert not overfits_to_fgsm([row(0.4, 0.35), row(0.15, 0.05)])  # both fell
    assert not overfits_to_fgsm([row(0.4, 0.35), row(0.5, 0.3)])
    assert not overfits_to_fgsm([row(0.4, 0.02), row(0.5, 0.0)])  # never was robust
    assert not overfits_to_fgsm([row(0.9, 0.0)])
    # Few images: 6 % may be chance.
    assert not overfits_to_fgsm([row(0.4, 0.06), row(0.6, 0.0)], 0.15)
    assert overfits_to_fgsm([row(0.4, 0.15), row(0.6, 0.0)], 0.15)
    # The untrained network predicts one class of ten, whatever the attack.
    assert not overfits_to_fgsm([row(0.1, 0.1, clean=0.1, classes=1), row(0.3, 0.01)])


def test_the_most_robust_epoch_is_kept_and_a_constant_classifier_is_not():
    constant = row(0.1, 0.1, clean=0.1, classes=1)
    rows = [constant, row(0.2, 0.0, clean=0.6), row(0.2, 0.0, clean=0.9)]
    assert max(rows, key=rank) == rows[2]
    robust = row(0.2, 0.05, clean=0.5)
    assert max([*rows, robust], key=rank) == robust
    # Standard training is selected by what it aims at.
    assert max([*rows, robust], key=lambda r: rank(r, "select_clean")) == rows[2]


def test_of_epochs_within_a_point_the_better_one_clean_is_kept():
    rows = [
        row(0.468, 0.444, clean=0.688),
        row(0.476, 0.442, clean=0.73),
        row(0.5, 0.43, clean=0.8),
    ]
    assert max(rows, key=rank) == rows[1]


def test_a_network_that_no_attack_moves_is_not_a_constant_one():
    assert rank(row(0.97, 0.97, clean=0.97)) > rank(row(0.5, 0.49, clean=0.5))
    assert overfits_to_fgsm([row(0.9, 0.9, clean=0.9), row(0.8, 0.1)])


def test_cosine_is_the_formula_at_every_point():
    stage = StageConfig(epochs=4, learning_rate=1.0)
    for epoch in np.linspace(0, 4, 9):
        expected = (1 + math.cos(math.pi * epoch / 4)) / 2
        assert learning_rate(stage, epoch) == pytest.approx(expected)
