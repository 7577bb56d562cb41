"""Random models in expectation, and steps without a gradient passed by a substitute."""

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.attacks.gradient import input_gradient
from tfrobust.errors import UsageError
from tfrobust.models import expectation, smoothed, straight_through
from tfrobust.runtime import tf

W = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


def linear(x):
    return tf.reshape(x, [-1, 12]) @ W


def images(count=40):
    return np.random.default_rng(1).uniform(size=(count, 2, 2, 3)).astype(np.float32)


def test_the_expectation_is_the_mean_of_the_probabilities():
    signs = tf.Variable(1.0)

    def alternating(x):
        signs.assign(-signs)
        return linear(x) * signs

    x = tf.constant(images())
    found = tf.exp(tf.function(expectation(alternating, 4))(x))
    mean = (tf.nn.softmax(linear(x)) + tf.nn.softmax(-linear(x))) / 2
    np.testing.assert_allclose(found, mean, atol=1e-6)


def test_a_model_that_hides_in_noise_is_broken_in_expectation():
    """Random logits blind single gradients; their mean does not."""
    y = np.asarray(tf.argmax(linear(images()), 1))

    def noisy(x):
        flip = tf.where(tf.random.uniform([tf.shape(x)[0], 1]) < 0.45, -1.0, 1.0)
        return flip * linear(x)

    tf.random.set_seed(3)
    seen = expectation(noisy, 32)
    grads = [tf.function(lambda x, m=m: input_gradient(m, x, y, "cross_entropy")[0])(images())
             for m in (noisy, seen, linear)]  # fmt: skip
    single, mean, exact = (np.sign(g).reshape(len(y), -1) for g in grads)
    assert (mean == exact).mean() > (single == exact).mean() + 0.1
    assert (mean == exact).mean() > 0.8


def test_a_quantised_input_is_broken_through_a_substitute():
    def quantise(x):
        return tf.round(x * 15) / 15

    x, model = images(), lambda x: linear(quantise(x))
    y = np.asarray(tf.argmax(model(x), 1))
    ball, attack = tr.Linf(0.15), "pgd"
    masked = tr.evaluate(model, (x, y), ball, attacks=attack)
    passed = tr.evaluate(straight_through(linear, quantise), (x, y), ball, attacks=attack)
    exact = tr.evaluate(linear, (x, y), ball, attacks=attack)
    assert passed.robust_accuracy < masked.robust_accuracy - 0.1
    assert abs(passed.robust_accuracy - exact.robust_accuracy) < 0.15


def test_the_substitutes_gradient_is_taken_where_one_is_given():
    model = straight_through(linear, tf.round, lambda x: 3 * x)
    x = tf.constant(images(4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(model(x)[:, 0])
    np.testing.assert_allclose(
        tf.reshape(tape.gradient(total, x), [4, 12]), np.tile(3 * W[:, 0], (4, 1)), rtol=1e-5
    )
    np.testing.assert_allclose(model(x), linear(tf.round(x)), atol=1e-5)


def test_smoothing_blurs_a_boundary_by_its_sigma():
    """Of a hard step at distance d the smoothed probability is the normal's at d / sigma."""
    step = lambda x: tf.stack([tf.zeros_like(x[:, 0, 0, 0]),  # noqa: E731
                               tf.where(x[:, 0, 0, 0] > 0.5, 40.0, -40.0)], axis=1)  # fmt: skip
    tf.random.set_seed(0)
    x = tf.constant(np.full((1, 2, 2, 3), 0.6, np.float32))
    p = tf.exp(tf.function(smoothed(step, 0.1, 4000))(x))[0, 1]
    assert float(p) == pytest.approx(0.8413, abs=0.02)


def test_settings_out_of_range_are_refused():
    with pytest.raises(UsageError):
        expectation(linear, 0)
    with pytest.raises(UsageError):
        smoothed(linear, 0.0, 4)
