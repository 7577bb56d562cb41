"""FAB on linear models, where the nearest boundary is known in closed form, and its promises."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.boundary import boundary_with, nearest_boundary, search_segment
from tfrobust.attacks.fab import FAB
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
NORMS = list(DUAL)
WIDE = (-99.0, 99.0)


def problem(linear_model, batch=12, classes=4):
    """A linear model, images near the middle and the labels that it gives them."""
    rng = np.random.default_rng(0)
    model = linear_model(rng.normal(size=(12, classes)), rng.normal(size=classes) * 0.1)
    x = rng.uniform(0.45, 0.55, (batch, 2, 2, 3)).astype("float32")
    return model, tf.constant(x), np.argmax(model(x), axis=1).astype("int32")


def minimal_radius(model, x, y, norm):
    """The least distance to any other class: min over k of |f_k - f_y| / |w_k - w_y|*."""
    weights, _ = model.get_layer("logits").get_weights()
    logits, radius = model(x).numpy(), []
    for row, label in enumerate(y):
        gaps = [
            (logits[row, label] - logits[row, k])
            / np.linalg.norm(weights[:, k] - weights[:, label], DUAL[norm])
            for k in range(logits.shape[1])
            if k != label
        ]
        radius.append(min(gaps))
    return np.array(radius, "float32")


def wrong(model, x_adv, y):
    return np.argmax(model(x_adv), axis=1) != y


def compiled(attack, model, threat, side=2):
    """The attack in a graph that knows neither the batch size nor the radius."""
    spec = [
        tf.TensorSpec([None, side, side, 3]),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([]),
    ]

    @tf.function(input_signature=spec, autograph=False)
    def run(x, y, eps):
        return attack(model, x, y, ThreatModel(threat.norm, eps, threat.bounds), SEED)

    return run


@pytest.mark.diagonal
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_succeeds_just_above_the_minimal_radius_and_not_below(norm, targeted, linear_model):
    model, x, y = problem(linear_model, batch=4)
    radius = minimal_radius(model, x, y, norm)
    # Without the final search, which the linear model would make trivially exact.
    attack = FAB(steps=20, targeted=targeted, final_search=0)
    run = compiled(attack, model, ThreatModel(norm, 1.0, WIDE))
    for row in range(len(y)):
        for factor, expected in ((1.01, True), (0.99, False)):
            eps = tf.constant(radius[row] * factor)
            x_adv = run(x[row : row + 1], y[row : row + 1], eps)
            assert wrong(model, x_adv, y[row]).all() == expected
            assert ThreatModel(norm, float(eps), WIDE).contains(x_adv, x[row : row + 1])


@pytest.mark.diagonal
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_minimal_attack_finds_the_minimal_distance(norm, targeted, linear_model):
    model, x, y = problem(linear_model)
    radius, threat = minimal_radius(model, x, y, norm), ThreatModel(norm, 0.0, WIDE)
    attack = FAB(steps=20, targeted=targeted, early_stop=False)
    x_adv = compiled(attack, model, threat)(x, y, 0.0)
    assert wrong(model, x_adv, y).all()
    share = threat.distance(x_adv, x) / radius
    assert np.all(share > 0.9999) and np.all(share < 1.01)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_minimal_attack_keeps_to_the_bounds(norm, linear_model):
    model, x, y = problem(linear_model)
    low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
    # The box ends right at the images: the boundary has to be met along its faces.
    threat = ThreatModel(norm, 0.0, (low - 0.1, high + 0.1))
    x_adv = compiled(FAB(steps=10, early_stop=False), model, threat)(x, y, 0.0).numpy()
    assert x_adv.min() >= low - 0.1 - 1e-6 and x_adv.max() <= high + 0.1 + 1e-6
    assert wrong(model, x_adv, y).any()


def test_returns_x_where_nothing_is_found_and_where_nothing_is_needed(linear_model):
    model, x, y = problem(linear_model)
    narrow = ThreatModel("linf", 1.0, (0.449, 0.551))
    near = minimal_radius(model, x, y, "linf").argmax()
    y[0] = (y[0] + 1) % 4
    for early_stop in (True, False):
        attack = FAB(steps=5, early_stop=early_stop, final_search=0)
        x_adv = attack(model, x, y, narrow, SEED).numpy()
        np.testing.assert_array_equal(x_adv[0], x[0])
        assert not wrong(model, x_adv, y)[near]
    np.testing.assert_array_equal(x_adv[near], x[near])


@pytest.mark.parametrize(
    "norm, eps, targeted", [("linf", 0.03, True), ("l2", 0.2, False), ("l1", 2.0, True)]
)
def test_stays_in_the_ball_for_any_batch_size(norm, eps, targeted, small_cnn):
    model, threat = small_cnn(), ThreatModel(norm, eps)
    run = compiled(FAB(steps=5, targeted=targeted, starts=2), model, threat, side=8)
    for batch in (1, 5):
        x = np.random.default_rng(0).uniform(0, 1, (batch, 8, 8, 3)).astype("float32")
        y = np.argmax(model(x), axis=1).astype("int32")
        x_adv = run(x, y, eps)
        assert np.all(threat.contains(x_adv, x))
        assert np.array_equal(x_adv, run(x, y, eps))


def test_examples_do_not_influence_each_other(small_cnn):
    model, threat = small_cnn(), ThreatModel("linf", 0.02)
    x = tf.constant(np.random.default_rng(0).uniform(0, 1, (8, 8, 8, 3)).astype("float32"))
    y = np.argmax(model(x), axis=1).astype("int32")
    run = compiled(FAB(steps=5, early_stop=False), model, threat, side=8)
    whole = run(x, y, 0.02)
    alone = tf.concat([run(x[i : i + 1], y[i : i + 1], 0.02) for i in (0, 5)], 0)
    np.testing.assert_allclose(tf.gather(whole, [0, 5]), alone, atol=1e-4)


def test_broken_examples_leave_the_computation(linear_model):
    model, x, y = problem(linear_model)
    radius = np.sort(minimal_radius(model, x, y, "linf"))
    easy = int(np.argmax(radius[1:-1] / radius[:-2])) + 1
    hardest = np.argmax(minimal_radius(model, x, y, "linf"))
    y[hardest] = (y[hardest] + 1) % 4
    rows = []

    def counted(x):
        rows.append(len(x))
        return model(x)

    # One call for the clean images, then two a step. One image is wrong to begin with, the
    # easy ones break on the way, and the others go all of it.
    attack = FAB(steps=15, final_search=0)
    threat = ThreatModel("linf", float(np.sqrt(radius[easy - 1] * radius[easy])), WIDE)
    attack(counted, x, y, threat, SEED)
    assert len(rows) == 31 and rows[:3] == [12, 11, 11] and rows[-1] == 11 - easy
    rows.clear()
    everything = ThreatModel("linf", float(radius[-1]) * 2, WIDE)
    attack(counted, x, y, everything, SEED)
    assert rows == [12, 11, 11]


def test_starts_are_x_first_and_then_random_at_half_the_radius(linear_model):
    model, x, y = problem(linear_model, batch=1)
    threat = ThreatModel("linf", 1e-3, WIDE)
    seen = []

    def watched(x):
        seen.append(x)
        return model(x)

    FAB(steps=1, starts=3, final_search=0)(watched, x, y, threat, SEED)
    # One call for the clean images; then each run calls at its start and after its step.
    first, second, third = seen[1], seen[3], seen[5]
    np.testing.assert_array_equal(first, x)
    for start in (second, third):
        np.testing.assert_allclose(threat.distance(start, x), [5e-4], rtol=1e-3)
    assert not np.array_equal(second, third)
    seen.clear()
    FAB(steps=1, random_start=True)(watched, x, y, threat, SEED)
    np.testing.assert_allclose(threat.distance(seen[1], x), [5e-4], rtol=1e-3)


def test_one_step_by_hand(linear_model):
    # f(x) = x_1 of class 1 less class 0; from x_1 = -1 the projection is at 0. Both
    # projections are the same from x itself: the step overshoots to 0.05, whatever alpha.
    model = linear_model(np.eye(12)[:, :1] * [[0.0, 1.0]], np.zeros(2))
    x = tf.reshape(tf.constant([-1.0] + [0.0] * 11), [1, 2, 2, 3])
    attack = FAB(steps=1, final_search=0, early_stop=False)
    threat = ThreatModel("l2", 1.0, WIDE)
    x_adv = attack(model, x, np.array([0], "int32"), threat, SEED)
    np.testing.assert_allclose(tf.reshape(x_adv, [-1])[:2], [0.05, 0.0], atol=1e-6)
    # Drawn back to x_1 = -1 + 0.9 * 1.05 = -0.055: near 0.055, far 1, alpha 0.052.
    seen = []

    def watched(x):
        seen.append(float(x[0, 0, 0, 0]))
        return model(x)

    FAB(steps=2, final_search=0, early_stop=False)(watched, x, np.array([0], "int32"), threat, SEED)
    alpha = 0.055 / 1.055
    second = (1 - alpha) * (-0.055 + 1.05 * 0.055) + alpha * 0.05
    np.testing.assert_allclose(seen, [-1, -1, 0.05, -0.055, second], atol=1e-6)


def test_boundaries_by_hand(linear_model):
    weights = np.zeros((12, 3))
    weights[0], weights[1] = [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]
    model = linear_model(weights, np.array([0.0, -1.0, -2.0]))
    x, y = tf.zeros([1, 2, 2, 3]), np.array([0], "int32")
    value, slope = boundary_with(model, x, y, np.array([1], "int32"))
    assert value[0] == -1 and slope[0, 0, 0, 0] == 1 and np.count_nonzero(slope) == 1
    # Class 2 is 2 below, but 4 times as steep: nearer.
    value, slope = nearest_boundary(model, x, y, "l2")
    assert value[0] == -2 and slope[0, 0, 0, 1] == 4 and np.count_nonzero(slope) == 1


def test_models_in_a_function_of_their_own_give_all_class_gradients(small_cnn):
    network = small_cnn()
    x = tf.constant(np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 3)).astype("float32"))
    y = np.array([0, 1, 2], "int32")
    plain = nearest_boundary(network, x, y, "l2")
    inner = tf.function(network)
    wrapped = tf.function(lambda x, y: nearest_boundary(inner, x, y, "l2"))(x, y)
    for a, b in zip(plain, wrapped, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_final_search_nears_the_boundary_and_stays_beyond_it():
    # Class 1 above sum(x) = 1 with a curved margin, which false position nears.
    def model(x):
        total = tf.reduce_sum(x, axis=[1, 2, 3])
        return tf.stack([tf.zeros_like(total), total**3 - 1], axis=1)

    x, x_adv = tf.zeros([2, 1, 1, 1]), tf.reshape(tf.constant([2.0, 1.2]), [2, 1, 1, 1])
    y = np.array([0, 0], "int32")
    found = [search_segment(model, x, x_adv, y, steps) for steps in (0, 3, 12)]
    np.testing.assert_array_equal(found[0], x_adv)
    assert all(wrong(model, points, y).all() for points in found)
    assert np.all(found[1] < found[0])
    np.testing.assert_allclose(tf.reshape(found[2], [-1]), [1, 1], atol=0.01)


def test_models_without_gradients_are_survived(linear_model):
    model, x, y = problem(linear_model, batch=2)
    blocked = lambda x: tf.stop_gradient(model(x))  # noqa: E731
    for targeted in (True, False):
        x_adv = FAB(steps=2, targeted=targeted)(blocked, x, y, ThreatModel("l2", 1.0), SEED)
        np.testing.assert_allclose(x_adv, x)


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 0},
        {"starts": 0},
        {"n_targets": 0},
        {"restarts": 2},
        {"alpha_max": 1.5},
        {"eta": 0.9},
        {"beta": 1.0},
        {"final_search": -1},
    ],
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(UsageError, match=next(iter(arguments))):
        FAB(**arguments)


def test_norms_without_a_projection_are_refused(linear_model):
    model, x, y = problem(linear_model)
    with pytest.raises(UsageError, match="l0"):
        FAB()(model, x, y, ThreatModel("l0", 1), SEED)
