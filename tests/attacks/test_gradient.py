"""Every attack of the table on linear models, where the optimum is known in closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfrobust.attacks import ATTACKS
from tfrobust.attacks.gradient import FGSM, PGD, input_gradient
from tfrobust.attacks.losses import cross_entropy, margin
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def binary_problem(linear_model, seed=0, batch=16):
    """A two-class linear model, images near the middle, and their right labels."""
    rng = np.random.default_rng(seed)
    model = linear_model(rng.normal(size=(12, 2)), rng.normal(size=2) * 0.1)
    x = rng.uniform(0.45, 0.55, (batch, 2, 2, 3)).astype("float32")
    return model, x, np.argmax(model(x), axis=1).astype("int32")


def minimal_radius(model, x, y, norm):
    """|difference of logits| / dual norm of the difference of weights."""
    weights, bias = model.get_layer("logits").get_weights()
    w, b = weights[:, 1] - weights[:, 0], bias[1] - bias[0]
    return np.abs(x.reshape(len(x), -1) @ w + b) / np.linalg.norm(w, DUAL[norm])


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_succeeds_just_above_the_minimal_radius_and_not_below(name, norm, linear_model):
    model, x, y = binary_problem(linear_model)
    radius = minimal_radius(model, x, y, norm)
    for i in range(len(x)):
        for factor, expected in ((1.01, True), (0.99, False)):
            threat = ThreatModel(norm, float(radius[i] * factor), bounds=(-9.0, 9.0))
            x_adv = ATTACKS[name]()(model, tf.constant(x[i : i + 1]), y[i : i + 1], threat, SEED)
            assert (np.argmax(model(x_adv)) != y[i]) == expected


def test_pgd_crosses_the_l1_boundary_with_a_few_coordinates(linear_model):
    model, x, y = binary_problem(linear_model)
    radius = float(minimal_radius(model, x, y, "l1").max())
    threat = ThreatModel("l1", radius * 1.01, bounds=(-99.0, 99.0))
    x_adv = PGD(steps=40)(model, tf.constant(x), y, threat, SEED)
    assert np.all(np.argmax(model(x_adv), axis=1) != y)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("batch", [1, 5])
def test_stays_in_the_ball_for_any_batch_size_and_is_seeded(name, batch, small_cnn):
    model, threat = small_cnn(), ThreatModel("linf", 0.1)
    x = np.random.default_rng(0).uniform(0, 1, (batch, 8, 8, 3)).astype("float32")
    y = np.zeros(batch, "int32")
    spec = [tf.TensorSpec([None, 8, 8, 3]), tf.TensorSpec([None], tf.int32)]
    attack = tf.function(
        lambda x, y: ATTACKS[name]()(model, x, y, threat, SEED), input_signature=spec
    )
    x_adv = attack(x, y)
    assert np.all(threat.contains(x_adv, x))
    assert np.array_equal(x_adv, attack(x, y))
    assert np.any(x_adv.numpy() != x)


def test_step_does_not_depend_on_the_batch_size(small_cnn):
    model, threat = small_cnn(), ThreatModel("l2", 0.5)
    x = np.random.default_rng(0).uniform(0, 1, (64, 8, 8, 3)).astype("float32")
    y = np.zeros(64, "int32")
    whole = FGSM()(model, tf.constant(x), y, threat, SEED)
    alone = FGSM()(model, tf.constant(x[:1]), y[:1], threat, SEED)
    np.testing.assert_allclose(whole[:1], alone, atol=1e-5)


def test_early_stop_leaves_misclassified_examples_where_they_are(linear_model):
    model, x, y = binary_problem(linear_model)
    wrong = 1 - y
    attack = PGD(steps=3, random_start=False)
    x_adv = attack(model, tf.constant(x), wrong, ThreatModel("linf", 0.1), SEED)
    assert np.array_equal(x_adv, x)
    climbing = dataclasses.replace(attack, early_stop=False)
    x_adv = climbing(model, tf.constant(x), wrong, ThreatModel("linf", 0.1), SEED)
    assert np.all(np.any(x_adv.numpy() != x, axis=(1, 2, 3)))


def test_losses_by_hand():
    # softmax of (0, log 3) is (1/4, 3/4): -log(1/4) = log 4 for class 0.
    logits = np.array([[0.0, np.log(3.0)]], "float32")
    np.testing.assert_allclose(cross_entropy(logits, [0]), [np.log(4.0)], rtol=1e-6)
    # (2, 5, 3): best wrong minus right is 3 - 5 for class 1, 5 - 2 for class 0.
    logits = np.array([[2.0, 5.0, 3.0], [2.0, 5.0, 3.0]], "float32")
    np.testing.assert_allclose(margin(logits, np.array([1, 0])), [-2.0, 3.0])


def test_gradients_that_are_not_finite_count_as_zero():
    x = tf.zeros([2, 1, 1, 1])
    grad, _ = input_gradient(
        lambda x: tf.concat([tf.sqrt(x[:, 0, 0]), x[:, 0, 0]], axis=1),
        x,
        np.array([0, 0]),
        "cross_entropy",
    )
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"restarts": 0}, {"loss": "hinge"}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PGD(**wrong)
