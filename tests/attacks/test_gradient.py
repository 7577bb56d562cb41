"""FGSM, BIM and PGD on linear models, where the optimum is known in closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfrobust.attacks.gradient import BIM, FGSM, PGD, choose_target, filling_step, input_gradient
from tfrobust.attacks.losses import cross_entropy, kl_divergence, margin
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
WIDE = (-99.0, 99.0)
ATTACKS = {
    "fgsm": FGSM(),
    "bim": BIM(),
    "pgd": PGD(),
    "pgd, margin": PGD(loss="margin"),
    "pgd, momentum": PGD(momentum=1.0),
    "pgd, targeted": PGD(targeted=True, loss="margin"),
}


def binary_problem(linear_model, side=2, batch=6, gap=0.05):
    """A two-class linear model, and images all at logit distance `gap` from its boundary."""
    rng = np.random.default_rng(side)
    weights, bias = rng.normal(size=(side * side * 3, 2)), rng.normal(size=2) * 0.1
    w, b = weights[:, 1] - weights[:, 0], bias[1] - bias[0]
    x = rng.uniform(0.45, 0.55, (batch, len(w)))
    y = (np.arange(batch) % 2).astype("int32")
    # Along w, each image is put where the difference of its logits is the gap.
    x -= ((x @ w + b - gap * (2 * y - 1)) / (w @ w))[:, None] * w
    x = x.reshape(batch, side, side, 3).astype("float32")
    return linear_model(weights, bias, side), tf.constant(x), tf.constant(y), w


def random_images(batch, side=8):
    rng = np.random.default_rng(0)
    return tf.constant(rng.uniform(0, 1, (batch, side, side, 3)).astype("float32"))


class Calls:
    """A model that notes how many images it is given; to be run eagerly."""

    def __init__(self, model):
        self.model, self.rows = model, []

    def __call__(self, x):
        self.rows.append(int(x.shape[0]))
        return self.model(x)


@pytest.mark.diagonal
@pytest.mark.parametrize(
    ("name", "side"), [*((name, 2) for name in ATTACKS if name != "bim"), ("bim", 16), ("pgd", 16)]
)
@pytest.mark.parametrize("norm", DUAL)
def test_succeeds_just_above_the_minimal_radius_and_not_below(name, norm, side, linear_model):
    model, x, y, w = binary_problem(linear_model, side)
    # The difference of the logits over the dual norm of the difference of the weights.
    radius = 0.05 / np.linalg.norm(w, DUAL[norm])
    for factor, expected in ((1.01, True), (0.99, False)):
        threat = ThreatModel(norm, float(radius * factor), bounds=WIDE)
        x_adv = ATTACKS[name](model, x, y, threat, SEED)
        assert np.all((np.argmax(model(x_adv), axis=1) != y) == expected)
        assert np.all(threat.contains(x_adv, x))


def test_filling_step_goes_as_far_as_the_bounds_let_it():
    # By hand: of the length 0.5, the steepest value (-3) takes the 0.2 above its bound, the
    # next (2) has 0.1 left to 1, and the third takes what remains: 0.2 of its 0.5.
    grad = tf.constant([[1.0, -3.0, 2.0, 0.0]])
    x = tf.constant([[0.5, 0.2, 0.9, 0.5]])
    step = filling_step(grad, x, 0.5, (0.0, 1.0))
    np.testing.assert_allclose(step, [[0.2, -0.2, 0.1, 0.0]], atol=1e-6)
    # All the room there is: 0.5 + 0.2 + 0.1, and none where the gradient is 0.
    step = filling_step(grad, x, 9.0, (0.0, 1.0))
    np.testing.assert_allclose(step, [[0.5, -0.2, 0.1, 0.0]], atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_two_steps_with_momentum_by_hand(momentum):
    slope = np.array([1.0, 2.0, 4.0], "float32").reshape(1, 1, 1, 3)

    def model(x):
        # Logits (0, sum of slope * x^2 / 2): the margin's gradient is slope * x.
        total = tf.reduce_sum(slope * x**2 / 2, axis=[1, 2, 3])
        return tf.stack([tf.zeros_like(total), total], axis=1)

    x0 = np.array([0.3, -0.2, 0.1], "float32").reshape(1, 1, 1, 3)
    g1 = slope * x0 / np.abs(slope * x0).sum()
    x1 = x0 + 0.1 * g1 / np.linalg.norm(g1)
    g2 = momentum * g1 + slope * x1 / np.abs(slope * x1).sum()
    x2 = x1 + 0.1 * g2 / np.linalg.norm(g2)
    attack = PGD(steps=2, step_size=0.1, random_start=False, loss="margin", early_stop=False,
                 momentum=momentum)  # fmt: skip
    threat = ThreatModel("l2", 9.0, bounds=WIDE)
    x_adv = attack(model, tf.constant(x0), np.array([0]), threat, SEED)
    np.testing.assert_allclose(x_adv, x2, rtol=1e-5)


def test_divergence_and_one_step_of_its_ascent_by_hand(linear_model):
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2) = .13081.
    p, q = tf.math.log([[3.0, 1.0]]), tf.zeros([1, 2])
    np.testing.assert_allclose(kl_divergence(p, q), [0.13081], atol=1e-5)
    assert kl_divergence(p, p + 5.0).numpy() == pytest.approx(0.0, abs=1e-6)
    # Of softmax(w x + b) the divergence's gradient by x_adv is W (q - p), whatever the label.
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 3))
    model = linear_model(weights, np.zeros(3))
    x = rng.uniform(0.3, 0.7, (4, 2, 2, 3)).astype("float32")
    start = x + rng.uniform(-0.05, 0.05, x.shape).astype("float32")
    p, q = (tf.nn.softmax(model(each)).numpy() for each in (x, start))
    moved = start.reshape(4, 12) + 0.08 * np.sign((q - p) @ weights.T)
    expected = np.clip(moved, x.reshape(4, 12) - 0.1, x.reshape(4, 12) + 0.1)
    attack, threat = PGD(steps=1, step_size=0.08), ThreatModel("linf", 0.1, bounds=WIDE)
    for y in (np.zeros(4, "int32"), np.ones(4, "int32")):
        found = attack.diverge(model, tf.constant(x), y, tf.constant(start), threat)
        np.testing.assert_allclose(found.numpy().reshape(4, 12), expected, atol=1e-5)


def test_targets_are_chosen_from_the_clean_logits():
    logits = tf.constant([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    y = tf.constant([0, 0])
    assert choose_target("least_likely", logits, y, SEED).numpy().tolist() == [3, 1]
    assert choose_target("second", logits, y, SEED).numpy().tolist() == [2, 3]
    drawn = choose_target("random", tf.zeros([300, 4]), tf.fill([300], 2), SEED)
    assert set(drawn.numpy()) == {0, 1, 3}


def test_reaches_the_least_likely_class_where_asked_to(linear_model):
    # Logits k * z - k^2 / 2 with z the sum of x - 1/2: the class is z, rounded, so that the
    # way from 0 to the least likely class, 4, leads past all others.
    k = np.arange(5.0)
    model = linear_model(np.tile(k, (12, 1)), -6 * k - k**2 / 2)
    x = 0.5 + 0.02 * (random_images(3, side=2) - 0.5)
    y, threat = np.zeros(3, "int32"), ThreatModel("linf", 0.35)
    by_misclassification = PGD(steps=60, step_size=0.01, random_start=False, targeted=True)
    to_goal = dataclasses.replace(by_misclassification, reach_target=True)
    for attack, expected in ((by_misclassification, 1), (to_goal, 4)):
        x_adv = attack(model, x, y, threat, SEED)
        assert np.argmax(model(x_adv), axis=1).tolist() == [expected] * 3


def test_broken_examples_leave_the_computation(linear_model):
    model, _, _, w = binary_problem(linear_model)
    sign = np.sign(w).reshape(2, 2, 3)
    # At distances of 0.5, 1.5, 2.5, 3.5 steps and out of reach: one leaves after each step.
    away = 0.01 * np.array([0.5, 1.5, 2.5, 3.5, 99.0]).reshape(-1, 1, 1, 1)
    middle = binary_problem(linear_model, gap=0.0)[1].numpy()[0]
    x = tf.constant((middle + away * sign).astype("float32"))
    y, threat = np.ones(5, "int32"), ThreatModel("linf", 0.05, bounds=WIDE)
    attack = PGD(steps=5, step_size=0.01, random_start=False)
    seen = Calls(model)
    x_adv = attack(seen, x, y, threat, SEED)
    # The first evaluation is of the clean images, on which all five stand.
    assert seen.rows == [5, 5, 4, 3, 2]
    assert (np.argmax(model(x_adv), axis=1) != y).tolist() == [True] * 4 + [False]
    # Each stays where it crossed the boundary.
    moved = np.abs(x_adv.numpy() - x.numpy()).max(axis=(1, 2, 3))
    np.testing.assert_allclose(moved, [0.01, 0.02, 0.03, 0.04, 0.05], rtol=1e-3)
    every = Calls(model)
    dataclasses.replace(attack, early_stop=False)(every, x, y, threat, SEED)
    assert every.rows == [5] * 5


def test_ends_when_nothing_stands(linear_model):
    model, x, y, _ = binary_problem(linear_model)
    seen = Calls(model)
    x_adv = PGD(random_start=False)(seen, x, 1 - y, ThreatModel("linf", 0.1), SEED)
    assert seen.rows == [6] and np.array_equal(x_adv, x)


@pytest.mark.parametrize("norm", DUAL)
def test_examples_do_not_influence_each_other(norm, small_cnn):
    model, threat = small_cnn(), ThreatModel(norm, {"linf": 0.02, "l2": 0.3, "l1": 3.0}[norm])
    x = random_images(5)
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    attack = PGD(steps=4, random_start=False, momentum=0.5)
    whole = attack(model, x, y, threat, SEED)
    for i in (0, 4):
        alone = attack(model, x[i : i + 1], y[i : i + 1], threat, SEED)
        np.testing.assert_allclose(whole[i : i + 1], alone, atol=1e-5)


@pytest.mark.parametrize("attack", [FGSM(), BIM(), PGD(momentum=1.0, targeted=True)])
def test_one_trace_serves_all_batch_sizes_and_radii(attack, small_cnn):
    model, x = small_cnn(), random_images(5)
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 8, 8, 3]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([])
        ], autograph=False,
    )  # fmt: skip
    def run(x, y, eps):
        traces.append(1)
        return attack(model, x, y, ThreatModel("linf", eps), SEED)

    for batch, eps in ((1, 0.1), (5, 0.1), (5, 0.02)):
        y = tf.argmax(model(x[:batch]), axis=1, output_type=tf.int32)
        x_adv = run(x[:batch], y, eps)
        assert np.all(ThreatModel("linf", eps).contains(x_adv, x[:batch]))
        assert np.array_equal(x_adv, run(x[:batch], y, eps))
        assert np.any(x_adv.numpy() != x[:batch].numpy())
    assert len(traces) == 1


def test_without_early_stop_misclassified_examples_go_on(linear_model):
    model, x, y, _ = binary_problem(linear_model)
    climbing = PGD(steps=3, random_start=False, early_stop=False)
    x_adv = climbing(model, x, 1 - y, ThreatModel("linf", 0.1), SEED)
    assert np.all(np.any(x_adv.numpy() != x, axis=(1, 2, 3)))


def test_dlr_is_blind_to_the_scale_of_the_logits(linear_model):
    rng = np.random.default_rng(1)
    model = linear_model(rng.normal(size=(12, 4)), np.zeros(4))
    x = random_images(4, side=2)
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    attack = PGD(steps=3, loss="dlr", early_stop=False)
    threat = ThreatModel("l2", 0.1)
    plain = attack(model, x, y, threat, SEED)
    np.testing.assert_allclose(
        plain, attack(lambda x: 1e4 * model(x), x, y, threat, SEED), atol=1e-5
    )
    assert np.all(margin(model(plain), y) > margin(model(x), y))


def test_dlr_asks_for_enough_classes(linear_model):
    x, y, threat = random_images(1, side=2), tf.constant([0]), ThreatModel()
    two, three = (linear_model(np.zeros((12, k)), np.zeros(k)) for k in (2, 3))
    with pytest.raises(UsageError, match="at least 3 classes"):
        PGD(loss="dlr")(two, x, y, threat, SEED)
    with pytest.raises(UsageError, match="at least 4 classes"):
        PGD(loss="dlr", targeted=True)(three, x, y, threat, SEED)


def test_losses_by_hand():
    # softmax of (0, log 3) is (1/4, 3/4): -log(1/4) = log 4 for class 0.
    logits = np.array([[0.0, np.log(3.0)]], "float32")
    np.testing.assert_allclose(cross_entropy(logits, [0]), [np.log(4.0)], rtol=1e-6)
    # (2, 5, 3): best wrong minus right is 3 - 5 for class 1, 5 - 2 for class 0.
    logits = np.array([[2.0, 5.0, 3.0], [2.0, 5.0, 3.0]], "float32")
    np.testing.assert_allclose(margin(logits, np.array([1, 0])), [-2.0, 3.0])


def test_gradients_that_are_not_finite_count_as_zero():
    def model(x):
        return tf.concat([tf.sqrt(x[:, 0, 0]), x[:, 0, 0]], axis=1)

    y = np.array([0, 0])
    grad, _ = input_gradient(model, tf.zeros([2, 1, 1, 1]), y, "cross_entropy")
    assert np.all(np.isfinite(grad))


def test_input_gradient_takes_a_loss_of_ones_own(linear_model):
    weights = np.arange(24.0).reshape(12, 2)
    x = tf.zeros([1, 2, 2, 3])
    grad, _ = input_gradient(
        linear_model(weights, np.zeros(2)), x, tf.constant([1]), lambda logits, y: 2 * logits[:, 0]
    )
    np.testing.assert_allclose(grad.numpy().ravel(), 2 * weights[:, 0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"restarts": 0}, {"loss": "hinge"}, {"step_size": 0.0}, {"momentum": -1.0},
        {"target": "best"}, {"reach_target": True},
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PGD(**wrong)
