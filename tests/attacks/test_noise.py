"""Random noise as the baseline, and the noise that gradient ascent optimises."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import FGSM
from tfrobust.attacks.losses import margin
from tfrobust.attacks.noise import (
    GaussianNoise,
    OptimisedNoise,
    UniformNoise,
    fitting_std,
    wrong_probability,
)
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
NORMS = {"linf": 0.05, "l2": 0.5, "l1": 3.0, "l0": 4.0}
WIDE = (-99.0, 99.0)


def images(batch, side=8):
    rng = np.random.default_rng(0)
    return tf.constant(rng.uniform(0, 1, (batch, side, side, 3)).astype("float32"))


def boundary(linear_model, gap, side=2, batch=5):
    """A two-class linear model, images of class 1 at logit distance `gap`, and w."""
    w = np.random.default_rng(side).normal(size=side * side * 3)
    x = np.random.default_rng(1).uniform(0.45, 0.55, (batch, len(w)))
    x -= ((x @ w - gap) / (w @ w))[:, None] * w
    x = x.reshape(batch, side, side, 3).astype("float32")
    model = linear_model(np.stack([0 * w, w], axis=1), np.zeros(2), side)
    return model, tf.constant(x), tf.ones(batch, tf.int32), w


class Calls:
    """A model that keeps what it is given; to be run eagerly."""

    def __init__(self, model):
        self.model, self.given = model, []

    def __call__(self, x):
        self.given.append(x.numpy())
        return self.model(x)


@pytest.mark.diagonal
@pytest.mark.parametrize("attack", [UniformNoise(tries=2), GaussianNoise(tries=2),
                                    OptimisedNoise(steps=2)])  # fmt: skip
@pytest.mark.parametrize("norm", NORMS)
def test_stays_in_the_ball(attack, norm, small_cnn):
    model, threat, x = small_cnn(), ThreatModel(norm, NORMS[norm]), images(3)
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    x_adv = attack(model, x, y, threat, SEED)
    assert np.all(threat.contains(x_adv, x))
    assert np.all(np.any(x_adv.numpy() != x.numpy(), axis=(1, 2, 3)))


@pytest.mark.parametrize("attack", [UniformNoise(tries=2), GaussianNoise(tries=2),
                                    OptimisedNoise(steps=2)])  # fmt: skip
def test_one_trace_serves_all_batch_sizes_and_radii(attack, small_cnn):
    model, traces = small_cnn(), []
    spec = [tf.TensorSpec([None, 8, 8, 3]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([])]

    @tf.function(input_signature=spec, autograph=False)
    def run(x, y, eps):
        traces.append(1)
        return attack(model, x, y, ThreatModel("l2", eps), SEED)

    for batch, eps in ((1, 0.1), (3, 0.1), (3, 0.02)):
        x = images(batch)
        y = tf.argmax(model(x), axis=1, output_type=tf.int32)
        x_adv = run(x, y, eps)
        assert np.all(ThreatModel("l2", eps).contains(x_adv, x))
        assert np.array_equal(x_adv, run(x, y, eps))
    assert len(traces) == 1


@pytest.mark.parametrize("attack", [UniformNoise(tries=4), GaussianNoise(tries=4)])
def test_keeps_the_worst_draw_where_none_is_misclassified(attack, linear_model):
    model, x, y, _ = boundary(linear_model, gap=5.0)
    seen = Calls(model)
    x_adv = attack(seen, x, y, ThreatModel("linf", 0.1), SEED)
    margins = np.stack([margin(model(drawn), y).numpy() for drawn in seen.given])
    assert margins.shape == (4, 5)
    np.testing.assert_array_equal(margin(model(x_adv), y), margins.max(axis=0))


@pytest.mark.parametrize("attack", [UniformNoise(tries=30), GaussianNoise(tries=30)])
def test_keeps_the_first_misclassified_draw_and_draws_no_more_for_it(attack, linear_model):
    # At a thousandth of the radius from the boundary about half of the draws cross it.
    model, x, y, w = boundary(linear_model, gap=1e-4, batch=9)
    seen = Calls(model)
    x_adv = attack(seen, x, y, ThreatModel("linf", 0.1), SEED)
    rows, standing = [len(drawn) for drawn in seen.given], np.arange(9)
    for drawn in seen.given:
        crossed = np.argmax(model(drawn), axis=1) == 0
        np.testing.assert_array_equal(x_adv.numpy()[standing[crossed]], drawn[crossed])
        standing = standing[~crossed]
    assert len(standing) == 0 and rows[0] == 9 and len(rows) < 30 and rows[-1] < 9


def test_is_a_baseline_that_gradients_beat(linear_model):
    # At twice the minimal radius, in 768 dimensions: the random share of it is far less.
    model, x, y, w = boundary(linear_model, gap=1.0, side=16)
    threat = ThreatModel("linf", float(2.0 / np.abs(w).sum()))
    for noise in (UniformNoise(), GaussianNoise()):
        assert np.all(np.argmax(model(noise(model, x, y, threat, SEED)), axis=1) == y)
    assert np.all(np.argmax(model(FGSM()(model, x, y, threat, SEED)), axis=1) != y)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_fitting_deviation_fills_the_ball(norm):
    x, threat = tf.zeros([40, 16, 16, 3]), ThreatModel(norm, 2.0, bounds=WIDE)
    noise = fitting_std(threat, x) * tf.random.stateless_normal(x.shape, SEED)
    assert float(tf.reduce_mean(threat.distance(x + noise, x))) == pytest.approx(2.0, rel=0.02)


def test_optimised_noise_takes_plain_gradient_steps(linear_model):
    model, x, y, w = boundary(linear_model, gap=0.5)
    attack = OptimisedNoise(steps=1, learning_rate=0.01, std=0.02, penalty=2.0)
    x_adv, loss, p_true, size = (
        v.numpy() for v in attack.path(model, x, y, ThreatModel("l2", 9.0, WIDE), SEED)
    )
    delta = (x_adv[0] - x.numpy()).reshape(5, -1)
    p = 1 / (1 + np.exp(-x_adv[0].reshape(5, -1) @ w))
    # The gradient of 1 - p is -p (1 - p) w, that of 2 |delta|^2 is 4 delta.
    moved = delta + 0.01 * (-(p * (1 - p))[:, None] * w - 4 * delta)
    np.testing.assert_allclose((x_adv[1] - x.numpy()).reshape(5, -1), moved, atol=1e-6)
    np.testing.assert_allclose(p_true[0], p, rtol=1e-5)
    np.testing.assert_allclose(size[0], np.linalg.norm(delta, axis=1), rtol=1e-5)
    np.testing.assert_allclose(loss[0], 1 - p - 2 * (delta**2).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_optimised_noise_succeeds_just_above_the_minimal_radius(norm, linear_model):
    model, x, y, w = boundary(linear_model, gap=0.2)
    radius = 0.2 / np.linalg.norm(w, {"linf": 1, "l2": 2}[norm])
    attack = OptimisedNoise(penalty=0.0, learning_rate=0.5, steps=30)
    for factor, expected in ((1.01, True), (0.99, False)):
        threat = ThreatModel(norm, float(radius * factor), WIDE)
        x_adv = attack(model, x, y, threat, SEED)
        assert np.all((np.argmax(model(x_adv), axis=1) != y) == expected)


def test_the_penalty_bounds_the_noise(linear_model):
    # At rest p (1 - p) w = 2 penalty delta, so |delta| is at most |w| / (8 penalty).
    model, x, y, w = boundary(linear_model, gap=9.0)
    for penalty in (5.0, 50.0):
        attack = OptimisedNoise(penalty=penalty, learning_rate=0.2 / penalty, steps=12, std=0.1)
        size = attack.path(model, x, y, ThreatModel("l2", 9.0, WIDE), SEED).size.numpy()
        assert np.all(size[-1] <= np.linalg.norm(w) / (8 * penalty) + 0.002)
        assert np.all(size[-1] < size[0])


def test_the_path_ends_where_the_attack_does(linear_model):
    model, x, y, _ = boundary(linear_model, gap=0.3, batch=4)
    x = x * tf.reshape(tf.constant([1.0, 0.97, 1.03, 0.9]), [4, 1, 1, 1])
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    attack, threat = OptimisedNoise(steps=6, learning_rate=0.03), ThreatModel("l2", 1.0)
    path = attack.path(model, x, y, threat, SEED)
    np.testing.assert_allclose(path.x_adv[-1], attack(model, x, y, threat, SEED), atol=1e-6)
    assert path.x_adv.shape == (7, 4, 2, 2, 3) and path.loss.shape == (7, 4)
    # Once misclassified, p(y) below 1/2, an image stays as it is.
    for i in range(4):
        broken = np.flatnonzero(path.p_true.numpy()[:, i] < 0.5)
        if len(broken):
            assert len(np.unique(path.x_adv.numpy()[broken[0] :, i], axis=0)) == 1


def test_the_wrong_probability_keeps_its_gradient_where_the_model_is_sure():
    logits = tf.constant([[40.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = wrong_probability(logits, tf.constant([0]))
    np.testing.assert_allclose(value, [np.exp(-40.0)], rtol=1e-4)
    np.testing.assert_allclose(tape.gradient(value, logits)[0, 1], np.exp(-40.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [
        (UniformNoise, {"tries": 0}), (UniformNoise, {"restarts": 0}), (GaussianNoise, {"std": 0}),
        (GaussianNoise, {"tries": 0}), (OptimisedNoise, {"steps": 0}),
        (OptimisedNoise, {"learning_rate": 0.0}), (OptimisedNoise, {"std": -1.0}),
        (OptimisedNoise, {"penalty": -1.0}), (OptimisedNoise, {"penalty": 5.0}),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(attack, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        attack(**wrong)
