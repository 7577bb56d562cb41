"""Closed forms of what a gradient may hide: each is named, and honest models are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.results import Outcome
from tfrobust.checks.gradients import misleading, no_gradient, overfitted
from tfrobust.checks.large_ball import never_falls
from tfrobust.checks.outputs import randomised
from tfrobust.checks.protocol import SAMPLE, sample_rows
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.runtime import tf
from tfrobust.threat_model import L2, Linf

BALL = Linf(0.1)
WEIGHTS = np.random.default_rng(0).normal(size=48).astype("float32")
X = np.random.default_rng(1).uniform(0.3, 0.7, (60, 4, 4, 3)).astype("float32")


def score(x):
    """Below 0 for class 0; 1 is the change of a step of eps along the gradient."""
    flat = tf.reshape(x, [-1, 48]) - 0.5
    return tf.linalg.matvec(flat, WEIGHTS / np.abs(WEIGHTS).sum()) / BALL.eps


def two_classes(score_of):
    def logits(x):
        value = score_of(x)
        return tf.stack([tf.zeros_like(value), value], axis=1)

    return logits


def evaluator(score_of, x=X):
    logits = two_classes(score_of)
    labels = np.argmax(logits(tf.constant(x)), axis=1).astype("int32")
    return Evaluator(logits, ImageSet(x, labels, ("a", "b")), batch_size=64)


def outcome(made, correct):
    return Outcome(made.clean.predictions, made.clean.confidences, correct, made.clean.in_top5)


def name(flag):
    return flag and flag["name"]


def _of_another(x, size):
    """The score, with the gradient of another model."""
    other = np.random.default_rng(2).normal(size=48).astype("float32")
    elsewhere = tf.linalg.matvec(tf.reshape(x, [-1, 48]), size * other)
    return tf.stop_gradient(score(x) - elsewhere) + elsewhere


DISHONEST = {
    "jumps": lambda x: score(x) + tf.stop_gradient(4 * tf.math.floormod(213 * score(x), 1.0)),
    "waves": lambda x: score(x) + 0.05 * tf.sin(1000 * score(x)),
    "the gradient of another model": lambda x: _of_another(x, 1.0),
    "the same, and small": lambda x: _of_another(x, 0.02),
}
HONEST = {
    "linear": score,
    "scaled": lambda x: 1000 * score(x),
    "curved": lambda x: tf.tanh(score(x)),
    "rounded": lambda x: tf.cast(tf.cast(score(x), tf.bfloat16), tf.float32),
}


@pytest.mark.parametrize("kind", DISHONEST)
def test_a_gradient_that_does_not_tell_what_a_step_does_is_named(kind):
    made = evaluator(DISHONEST[kind])
    flag = misleading(made, BALL, made.clean)
    assert name(flag) == "misleading_gradients"
    assert "straight_through" in flag["meaning"]


@pytest.mark.parametrize("kind", HONEST)
def test_an_honest_gradient_is_not_doubted(kind):
    made = evaluator(HONEST[kind])
    assert misleading(made, BALL, made.clean) is None
    assert misleading(made, L2(0.5), made.clean) is None


def test_only_images_that_withstood_the_attack_are_asked():
    made = evaluator(DISHONEST["waves"])
    assert misleading(made, BALL, outcome(made, np.zeros(len(X), bool))) is None


START = float(score(X[:1])[0])


def there_and_back(x):
    """Over the boundary a quarter step up the gradient, and back after the whole: a wave."""
    return tf.sin(2 * np.pi * (score(x) - START)) - 0.5


def bent(x):
    """Curved, and honest: a whole step crosses the boundary as several do."""
    return tf.square(score(x) - START + 0.25) - 1.0


@pytest.mark.parametrize(
    "kind, full_step, expected",
    [(there_and_back, 1.0, "catastrophic_overfitting"), (there_and_back, 0.25, None),
     (bent, 1.0, None)],
)  # fmt: skip
def test_a_model_that_withstands_full_single_steps_alone_is_named(kind, full_step, expected):
    made = evaluator(kind, np.repeat(X[:1], 40, axis=0))
    fell = outcome(made, np.zeros(40, bool))
    ball = Linf(full_step * BALL.eps)
    assert name(overfitted(made, ball, PGD(steps=10), fell)) == expected
    # Nothing fell to several steps: the single one has nothing to be compared with.
    assert overfitted(made, ball, PGD(steps=10), made.clean) is None


@pytest.mark.parametrize("hidden, expected", [(0.0, None), (0.03, None), (0.3, "zero_gradients")])
def test_more_than_a_few_images_without_gradient_are_named(hidden, expected):
    order = np.argsort(np.asarray(score(X)))[::-1]
    edge = float(score(X[order[round(hidden * len(X))]][None])[0]) if hidden else np.inf

    def partly(x):
        return tf.where(score(x) > edge, tf.stop_gradient(score(x)), score(x))

    assert name(no_gradient(evaluator(partly))) == expected


def test_the_images_looked_at_are_of_all_classes():
    index = sample_rows(np.arange(1000), 0)
    assert len(index) == SAMPLE and index.max() > 900 and len(set(index)) == SAMPLE
    np.testing.assert_array_equal(index, sample_rows(np.arange(1000), 0))
    assert len(sample_rows(np.arange(7), 0)) == 7


def test_a_model_of_two_states_is_random():
    def coin(x):
        return score(x) + tf.floor(2 * tf.random.uniform([], seed=1))

    tf.random.set_seed(0)
    flag = randomised(evaluator(coin))
    assert name(flag) == "randomised_outputs" and "tr.models.expectation" in flag["meaning"]
    assert randomised(evaluator(score)) is None


def test_an_image_is_only_bound_to_fall_where_the_grey_one_is_misclassified():
    # Far from the boundary, where no random start crosses it; grey is of class 0.
    side = np.where(np.arange(40) % 2, 0.2, -0.2)[:, None].astype("float32")
    x = (0.5 + side * np.sign(WEIGHTS)).reshape(-1, 4, 4, 3)
    masked = evaluator(lambda x: tf.stop_gradient(score(x) - 0.1), x)
    flag = never_falls(masked, {}, BALL)
    assert name(flag) == "never_falls_to_zero" and "100%" in flag["meaning"]
    assert never_falls(evaluator(lambda x: score(x) - 0.1, x), {}, BALL) is None
    alone = evaluator(lambda x: tf.stop_gradient(score(x) - 0.1), x[::2])
    assert never_falls(alone, {}, BALL) is None
