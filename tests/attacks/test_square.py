"""Square: closed-form optima on linear models, and its guarantees one by one."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.square import Square
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
WIDE = (-9.0, 9.0)
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def problem(linear_model, side=2, batch=8, seed=0):
    """A two-class linear model, images of mild contrast, and their right labels."""
    rng = np.random.default_rng(seed)
    size = side * side * 3
    model = linear_model(rng.normal(size=(size, 2)), rng.normal(size=2) * 0.1, side)
    x = rng.uniform(0.3, 0.7, (batch, side, side, 3)).astype("float32")
    return model, tf.constant(x), tf.argmax(model(x), axis=1, output_type=tf.int32)


def minimal_radius(model, x, norm):
    """|difference of logits| / dual norm of the difference of weights."""
    weights, bias = model.get_layer("logits").get_weights()
    w, b = weights[:, 1] - weights[:, 0], bias[1] - bias[0]
    return np.abs(np.reshape(x, (len(x), -1)) @ w + b) / np.linalg.norm(w, DUAL[norm])


def broken(model, x_adv, y):
    return np.argmax(model(x_adv), axis=1) != y.numpy()


class Recorder:
    """A model that remembers what it was asked, also inside a traced loop."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def __call__(self, x):
        with tf.control_dependencies([tf.py_function(self.asked.append, [x], [])]):
            return self.model(tf.identity(x))


def compiled(attack, model, x, norm, bounds):
    """The attack as a function (x, y, eps, seed) of any batch size, traced once."""
    images = tf.TensorSpec([None, *x.shape[1:]])
    labels, scalar = tf.TensorSpec([None], tf.int32), tf.TensorSpec([])

    @tf.function(
        input_signature=[images, labels, scalar, tf.TensorSpec([2], tf.int32)], autograph=False
    )
    def run(x, y, eps, seed):
        return attack(model, x, y, ThreatModel(norm, eps, bounds), seed)

    return run


def record(attack, model, x, y, threat, seed=SEED):
    """x_adv and the points that the attack asked the model about."""
    recorder = Recorder(model)
    run = compiled(attack, recorder, x, threat.norm, threat.bounds)
    x_adv = run(x, y, tf.constant(threat.eps), seed).numpy()
    return x_adv, [asked.numpy() for asked in recorder.asked]


def attacked_at(factors, model, x, y, norm, attack):
    """Each example attacked alone at multiples of its own minimal radius: broken or not."""
    run, outcome = compiled(attack, model, x, norm, WIDE), []
    for factor in factors:
        for i, radius in enumerate(minimal_radius(model, x, norm)):
            one = slice(i, i + 1)
            x_adv = run(x[one], y[one], tf.constant(radius * factor, tf.float32), SEED)
            outcome.append(broken(model, x_adv, y[one])[0])
    return np.reshape(outcome, (len(factors), -1))


@pytest.mark.parametrize("side", [2, 4])
def test_linf_succeeds_just_above_the_minimal_radius_and_not_below(side, linear_model):
    model, x, y = problem(linear_model, side)
    above, below = attacked_at((1.01, 0.99), model, x, y, "linf", Square(queries=1000))
    assert above.all()
    assert not below.any()


def test_l2_comes_as_far_as_the_published_algorithm_and_never_below_the_minimal_radius(
    linear_model,
):
    # A plain rewriting of the paper's algorithm 3 reaches a cosine of 0.35 to 0.38 to the
    # gradient in 600 queries on such a model: it needs up to 3 times the minimal radius.
    model, x, y = problem(linear_model, side=16, batch=4)
    above, below = attacked_at((3.2, 0.99), model, x, y, "l2", Square(queries=600))
    assert above.all()
    assert not below.any()


@pytest.mark.diagonal
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5), ("l1", 4.0)])
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_every_query_is_in_the_ball_and_the_bounds(norm, eps, batch):
    x = np.random.default_rng(0).uniform(0, 1, (batch, 8, 8, 3)).astype("float32")
    y = tf.zeros(batch, tf.int32)

    def stubborn(x):
        return 0.1 * x[:, 0, 0] + tf.constant([9.0, 0.0, 0.0])

    threat = ThreatModel(norm, eps)
    x_adv, asked = record(Square(queries=60), stubborn, tf.constant(x), y, threat)
    for point in (x_adv, *asked):
        assert np.all(threat.contains(point, x))
    # The whole radius is used, but where the bounds cut it.
    loose = ThreatModel(norm, eps, bounds=WIDE)
    _, asked = record(Square(queries=60), stubborn, tf.constant(x), y, loose)
    for point in asked:
        np.testing.assert_allclose(loose.distance(point, x), eps, rtol=1e-4)


@pytest.mark.diagonal
@pytest.mark.parametrize("queries", [1, 2, 57])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budget_is_spent_exactly_on_what_never_breaks(norm, queries, linear_model):
    model, x, y = problem(linear_model)
    _, asked = record(Square(queries=queries), model, x, y, ThreatModel(norm, 1e-4))
    assert [len(points) for points in asked] == [8] * queries


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_broken_examples_leave_with_the_point_that_was_misclassified(norm, linear_model):
    model, x, y = problem(linear_model, side=4)
    radius = minimal_radius(model, x, norm)
    reached = {"linf": 1.05, "l2": 1.6}[norm]
    threat = ThreatModel(norm, float(np.median(radius) * reached), bounds=WIDE)
    x_adv, asked = record(Square(queries=300), model, x, y, threat)
    sizes = [len(points) for points in asked]
    wrong = broken(model, x_adv, y)
    assert 0 < wrong.sum() < 8
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 8
    assert sizes[-1] == 8 - wrong.sum()
    everything = np.concatenate(asked)
    for point in x_adv:
        assert np.any(np.all(everything == point, axis=(1, 2, 3)))


def test_loop_ends_once_nothing_stands(linear_model):
    model, x, y = problem(linear_model)
    x_adv, asked = record(Square(queries=1000), model, x, 1 - y, ThreatModel("linf", 1e-3))
    assert [len(points) for points in asked] == [8]
    assert np.array_equal(x_adv, asked[0])


@pytest.mark.diagonal
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_more_queries_never_lower_the_loss(norm, loss, small_cnn):
    model = small_cnn()
    x = tf.constant(np.random.default_rng(3).uniform(0, 1, (3, 8, 8, 3)).astype("float32"))
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    x_adv, asked = record(Square(queries=60, loss=loss), model, x, y, ThreatModel(norm, 1e-3))
    assert [len(points) for points in asked] == [3] * 60

    def losses(x):
        logits = tf.cast(model(x), tf.float64)
        own = tf.gather(logits, y, batch_dims=1)
        if loss == "cross_entropy":
            return tf.reduce_logsumexp(logits, axis=1) - own
        other = logits - 1e9 * tf.one_hot(y, 4, dtype=tf.float64)
        return tf.reduce_max(other, axis=1) - own

    # The point returned is the best of all that were asked about, and better than the first.
    seen = np.array([losses(points) for points in asked])
    np.testing.assert_allclose(losses(x_adv), seen.max(axis=0), atol=1e-6)
    assert np.all(seen.max(axis=0) > seen[0])


def test_l1_reaches_what_random_windows_can_and_never_below_the_minimal_radius(linear_model):
    # Two values decide. The optimum is the whole radius in one; a window has 3 x 3 pixels at least.
    weights = np.zeros((36 * 3, 2))
    weights[[40, 77], 1] = 1.0, -0.9
    model = linear_model(weights, np.array([0.3, 0.0]), 6)
    x = tf.constant(np.random.default_rng(0).uniform(0.4, 0.6, (2, 6, 6, 3)), tf.float32)
    y = tf.argmax(model(x), axis=1, output_type=tf.int32)
    above, below = attacked_at((4.0, 0.99), model, x, y, "l1", Square(queries=200))
    assert above.all()
    assert not below.any()


def test_l1_uses_the_radius_that_the_bounds_cut_off_elsewhere(linear_model):
    # Black and white images: half of all changes have no room at all.
    model, _, y = problem(linear_model, side=8, batch=4)
    x = tf.constant(np.random.default_rng(0).integers(0, 2, (4, 8, 8, 3)), tf.float32)
    _, asked = record(Square(queries=20), model, x, y * 0, ThreatModel("l1", 5.0))
    for point in asked[1:]:
        if len(point) == 4:
            distance = np.abs(point - x.numpy()).sum(axis=(1, 2, 3))
            assert np.all(distance <= 5.0 + 1e-6)


def test_linf_queries_are_stripes_and_then_one_square_each(linear_model):
    model, x, y = problem(linear_model, side=8, batch=4)
    threat = ThreatModel("linf", 1e-3, WIDE)
    _, asked = record(Square(queries=100, p_init=0.25), model, x, y, threat)
    assert {points.shape for points in asked} == {(4, 8, 8, 3)}
    signs = np.round((np.array(asked) - x.numpy()) / 1e-3)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.all(signs[0] == signs[0][:, :1])
    # The paper's schedule: sides 4, then (after 0.1 % and 0.5 % of the queries) 3 and 2, ...
    loss = [model(points).numpy() for points in asked]
    loss = [logits[range(4), 1 - y] - logits[range(4), y] for logits in loss]
    best, best_loss = signs[0], loss[0]
    for step in range(1, 100):
        changed = np.any(signs[step] != best, axis=3)
        p = 0.25 / 2 ** sum(
            (step - 1) * 100 > n for n in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
        )
        side = max(round((p * 64) ** 0.5), 1)
        for example in changed:
            rows, columns = np.flatnonzero(example.any(1)), np.flatnonzero(example.any(0))
            assert len(rows) <= side
            assert len(columns) <= side
            assert not len(rows) or np.ptp(rows) < side
            assert not len(columns) or np.ptp(columns) < side
        better = loss[step] > best_loss
        best = np.where(better[:, None, None, None], signs[step], best)
        best_loss = np.where(better, loss[step], best_loss)


def test_squares_reach_every_pixel(linear_model):
    model, x, y = problem(linear_model, side=4, batch=1)
    _, asked = record(Square(queries=400), model, x, y, ThreatModel("linf", 1e-3, WIDE))
    signs = np.round((np.array(asked)[:, 0] - x.numpy()) / 1e-3)
    assert np.all(np.ptp(signs, axis=0) == 2)


def test_l2_start_is_the_grid_of_pyramids(linear_model):
    # 20 x 20: five by five windows of 4 x 4, each a positive and a negative half.
    model, x, y = problem(linear_model, side=20, batch=2)
    _, asked = record(Square(queries=1), model, x, y, ThreatModel("l2", 1.0, WIDE))
    delta = (asked[0] - x.numpy()).reshape(2, 5, 4, 5, 4, 3)
    windows = delta.transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4, 4)
    # Each has an equal part of the squared norm, 1 / (25 windows x 3 channels).
    np.testing.assert_allclose((windows**2).sum(axis=(1, 2)), 1 / 75, rtol=1e-3)
    # By hand: half of 2 rows and 4 columns, its middle at (1, 2), distances 0, 1 and 2:
    # 1 + 1/4 + 1/9, 1/4 + 1/9 and 1/9.
    a, b, c = 1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9
    half = np.array([[c, b, b, b], [c, b, a, b]])
    pyramid = np.concatenate([half, -half]) / np.sqrt(2 * (half**2).sum()) / np.sqrt(75)
    for window in windows:
        forms = [s * p for s in (1, -1) for p in (pyramid, pyramid.T)]
        assert min(np.abs(window - form).max() for form in forms) < 1e-5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_seeded_and_gives_no_gradient(norm, linear_model):
    model, x, y = problem(linear_model)
    attack, threat = Square(queries=5), ThreatModel(norm, 0.01)
    with tf.GradientTape() as tape:
        tape.watch(x)
        x_adv = attack(model, x, y, threat, SEED)
    assert tape.gradient(x_adv, x) is None
    assert np.array_equal(x_adv, attack(model, x, y, threat, SEED))
    assert np.any(x_adv != attack(model, x, y, threat, SEED + 1))


def test_an_empty_batch_asks_nothing(linear_model):
    model, x, y = problem(linear_model)
    recorder = Recorder(model)
    x_adv = Square(queries=5)(recorder, x[:0], y[:0], ThreatModel("linf", 0.1), SEED)
    assert x_adv.shape == (0, 2, 2, 3)
    assert recorder.asked == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"queries": 0}, "queries"), ({"restarts": 0}, "restarts"), ({"loss": "hinge"}, "loss"),
     ({"p_init": 0.0}, "p_init"), ({"p_init": 1.5}, "p_init")],
)  # fmt: skip
def test_wrong_arguments_are_named(wrong, named):
    with pytest.raises(UsageError, match=named):
        Square(**wrong)


def test_other_norms_are_refused(linear_model):
    model, x, y = problem(linear_model)
    with pytest.raises(UsageError, match="l0"):
        Square(queries=1)(model, x, y, ThreatModel("l0", 1), SEED)
