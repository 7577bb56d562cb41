"""Decision-based attacks on linear models: the distance to the hyperplane, by argmax alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from linear_cases import attacked, case, compiled, exact

from tfrobust.attacks.boundary_walk import Boundary
from tfrobust.attacks.decisions import Decisions
from tfrobust.attacks.geoda import GeoDA
from tfrobust.attacks.hopskipjump import HopSkipJump
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import L2, Linf, ThreatModel

ALL = [
    pytest.param(Boundary(), "l2", id="boundary-l2"),
    pytest.param(HopSkipJump(), "l2", id="hopskipjump-l2"),
    pytest.param(HopSkipJump(), "linf", id="hopskipjump-linf"),
    pytest.param(GeoDA(frequencies=1.0), "l2", id="geoda-l2"),
    pytest.param(GeoDA(frequencies=1.0), "linf", id="geoda-linf"),
]
#: Each attack by default in one norm.
EACH = [
    pytest.param(*one.values, id=one.id, marks=pytest.mark.slow)
    if one.id in ("hopskipjump-linf", "geoda-l2")
    else one
    for one in ALL
]
SEED = tf.constant([1, 2])


@pytest.mark.parametrize(("attack", "norm"), ALL)
def test_comes_within_a_few_percent_of_the_distance_to_the_hyperplane(attack, norm, linear_model):
    model, x, y, distances = case(linear_model)
    attack = dataclasses.replace(attack, queries=3000, early_stop=False)
    ball = ThreatModel(norm, 0.01)
    x_adv, _, asked = attacked(attack, model, x, y, ball)
    assert (np.argmax(model(x_adv), axis=1) != y).all()
    ratio = ball.distance(x_adv, x).numpy() / distances[norm]
    assert ratio.min() > 0.999 and ratio.max() < 1.05
    # The budget is a limit, and it is used.
    assert 0.9 * 8 * 3000 < asked <= 8 * 3000


@pytest.mark.parametrize(("attack", "norm"), EACH)
def test_one_hot_labels_are_as_good_as_logits(attack, norm, linear_model):
    model, x, y, distances = case(linear_model)
    attack = dataclasses.replace(attack, queries=400)
    ball = ThreatModel(norm, 1.3 * float(distances[norm].max()))

    def labels(x):
        return tf.one_hot(tf.argmax(model(x), axis=1), 2)

    x_adv, success, asked = attacked(attack, model, x, y, ball)
    blind = attacked(attack, labels, x, y, ball)
    assert success.mean() > 0.8 and asked < 8 * 400
    np.testing.assert_array_equal(blind[0], x_adv)
    np.testing.assert_array_equal(blind[1], success)


@pytest.mark.parametrize(("attack", "norm"), EACH)
def test_examples_do_not_influence_each_other(attack, norm, linear_model):
    model, x, y, _ = case(linear_model)
    attack, ball = dataclasses.replace(attack, queries=100), ThreatModel(norm, 0.05)
    call = compiled(attack, exact(model), x.shape[1:], ball)
    together = call(x, y, seed=1)[0]
    for index in ([0], [0, 5, 6]):
        alone = call(x[index], y[index], seed=1)[0]
        np.testing.assert_allclose(alone[0], together[0], atol=1e-5)
    # Nor does rounding send one another way.
    np.testing.assert_allclose(call(x * np.float32(1 + 6e-8), y, seed=1)[0], together, atol=1e-5)
    assert (call(x, y, seed=7)[0] != together).any()


@pytest.mark.parametrize(("attack", "norm"), EACH)
def test_what_is_wrong_without_attack_costs_one_query_and_stays(attack, norm, linear_model):
    model, x, y, _ = case(linear_model)
    x_adv, success, asked = attacked(attack, model, x, 1 - y, ThreatModel(norm, 0.05))
    assert success.all() and asked == 8
    np.testing.assert_array_equal(x_adv, x)


@pytest.mark.parametrize(("attack", "norm"), EACH)
def test_where_nothing_is_misclassified_the_image_itself_is_returned(attack, norm):
    x, y = np.full((3, 2, 2, 3), 0.5, "float32"), np.zeros(3, "int32")
    attack = dataclasses.replace(attack, queries=30, tries=10)
    x_adv, success, asked = attacked(
        attack, lambda x: tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 2), x, y,
        ThreatModel(norm, 0.1),
    )  # fmt: skip
    assert not success.any() and asked == 3 * 11
    np.testing.assert_array_equal(x_adv, x)


def seen(model, ball, x, y, queries=1000):
    return Decisions(model, tf.constant(x), tf.constant(y), ball, queries, early_stop=False)


def test_a_model_that_names_one_class_for_noise_is_begun_with_from_a_flat_colour():
    """Class 1 is what is flat; noise is class 0, as x is."""

    def flat(x):
        spread = tf.math.reduce_std(x, axis=[1, 2, 3])
        return tf.stack([spread, tf.fill(tf.shape(spread), 0.2)], axis=1)

    rng = np.random.default_rng(0)
    x = rng.choice([0.0, 1.0], (2, 8, 8, 1)).astype("float32")
    found = seen(flat, L2(1.0), x, np.zeros(2, "int32")).begin(SEED, 10)
    assert np.isfinite(found.distance).all() and found.used.numpy().tolist() == [3, 3]


@pytest.mark.parametrize("ball", [L2(1.0), Linf(1.0)])
def test_a_way_is_halved_until_it_meets_the_boundary(ball, linear_model):
    model, x, y, _ = case(linear_model)
    one = seen(model, ball, x, y)
    found = one.begin(SEED, 100)
    way, used = one.toward(found.x_adv), found.used
    np.testing.assert_allclose(way(tf.zeros(8)), x, atol=1e-6)
    np.testing.assert_allclose(way(tf.ones(8)), found.x_adv, atol=1e-6)
    half = ball.distance(way(tf.fill([8], 0.5)), one.x)
    np.testing.assert_allclose(half, found.distance / 2, rtol=1e-4)
    met = one.bisect(found, way, one.open(found), 14)
    assert (met.used - used).numpy().tolist() == [14] * 8
    logits = model(met.x_adv).numpy()
    assert (np.argmax(logits, axis=1) != y).all() and np.abs(np.ptp(logits, axis=1)).max() < 1e-3


def test_votes_tell_the_normal(linear_model):
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(12, 2))
    model, x, y, _ = case(linear_model, weights=weights)
    one = seen(model, L2(1.0), x, y, queries=5000)
    found = one.begin(SEED, 100)
    found = one.bisect(found, one.toward(found.x_adv), one.open(found), 18)

    def draw(shape, seed):
        return tf.random.stateless_normal(shape, seed)

    size = tf.fill([8], 0.01)
    way = (weights[:, 1] - weights[:, 0]) * np.where(y == 0, 1, -1)[:, None]
    for centred in (True, False):
        normal, after = one.normal(found, size, tf.constant(1000), draw, SEED, centred=centred)
        assert (after.used - found.used).numpy().tolist() == [1000] * 8
        flat = normal.numpy().reshape(8, -1)
        lengths = np.linalg.norm(flat, axis=1) * np.linalg.norm(way, axis=1)
        assert ((flat * way).sum(axis=1) / lengths).min() > 0.97


def test_settings_and_norms_out_of_range_are_refused(linear_model):
    for kind, wrong in (
        (HopSkipJump, {"queries": 0}), (HopSkipJump, {"tries": 0}), (HopSkipJump, {"samples": 0}),
        (GeoDA, {"sigma": 0.0}), (GeoDA, {"frequencies": 1.5}), (Boundary, {"along": 0.0}),
        (Boundary, {"inwards": 1.0}), (Boundary, {"restarts": 0}),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=next(iter(wrong))):
            kind(**wrong)
    model, x, y, _ = case(linear_model)
    for attack, ball in ((Boundary(), Linf(0.1)), (GeoDA(), ThreatModel("l1", 1.0))):
        with pytest.raises(UsageError, match="norm"):
            attacked(attack, model, x, y, ball)
