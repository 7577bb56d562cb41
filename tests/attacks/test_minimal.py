"""Minimal-norm attacks on linear models, where the distance is known, and what all promise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from linear_cases import exact

from tfrobust.attacks.carlini_wagner import CarliniWagner
from tfrobust.attacks.ddn import DDN
from tfrobust.attacks.deepfool import DeepFool
from tfrobust.attacks.ead import EAD
from tfrobust.attacks.fmn import FMN
from tfrobust.attacks.minimal import annealed
from tfrobust.attacks.sigma_zero import SigmaZero
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
WIDE = (-1.0, 2.0)
CW = CarliniWagner(steps=200, searches=8, initial=0.1, learning_rate=0.02, final_search=0)
SPARSE = EAD(steps=200, searches=8, initial=0.1, beta=0.03, final_search=0)
#: Attack, norm, and how much farther than the nearest point it may end, as a share.
EXACT = [
    (DeepFool(steps=1, final_search=0), "l2", 0.021),
    (DeepFool(steps=1, final_search=0), "linf", 0.021),
    (DeepFool(steps=1), "l2", 0.001),
    (DeepFool(steps=1), "linf", 0.001),
    (DDN(loss="margin", final_search=0), "l2", 0.03),
    (FMN(final_search=0), "l2", 0.03),
    (FMN(final_search=0), "linf", 0.05),
    (FMN(final_search=0), "l1", 0.05),
    (CW, "l2", 0.05),
    (SPARSE, "l1", 0.05),
]
#: Each attack by default in one norm: what is common to the norms is in what they share.
ALL = [
    (DeepFool(steps=1), "linf"), (DDN(loss="margin", final_search=0), "l2"), (CW, "l2"),
    (SPARSE, "l1"), (FMN(), "l0"), (SigmaZero(), "l0"),
    *(pytest.param(attack, norm, marks=pytest.mark.slow) for attack, norm in (
        (DeepFool(steps=1), "l2"), (FMN(final_search=0), "l2"), (FMN(final_search=0), "linf"),
        (FMN(final_search=0), "l1"))),
]  # fmt: skip
CLIMBING = [pair for pair in ALL if not isinstance(getattr(pair, "values", pair)[0], DeepFool)]


def named(value):
    return type(value).__name__ if dataclasses.is_dataclass(value) else str(value)


def problem(linear_model, batch=10, classes=4, side=2, spread=0.3):
    """A linear model, images near the middle and the labels that it gives them."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(side * side * 3, classes))
    # The classes are about as likely in the middle.
    model = linear_model(
        weights, spread * rng.normal(size=classes) - 0.5 * weights.sum(axis=0), side
    )
    x = rng.uniform(0.3, 0.7, (batch, side, side, 3)).astype("float32")
    return model, tf.constant(x), np.argmax(model(x), axis=1).astype("int32")


def others(model, x, y):
    """(row, gap of the logits, difference of the weights) for each wrong class of each row."""
    weights, _ = model.get_layer("logits").get_weights()
    logits = model(x).numpy()
    for row, label in enumerate(y):
        for k in set(range(logits.shape[1])) - {int(label)}:
            yield row, logits[row, label] - logits[row, k], weights[:, k] - weights[:, label]


def least(pairs, count):
    found = np.full(count, np.inf)
    for row, value in pairs:
        found[row] = min(found[row], value)
    return found


def minimal_radius(model, x, y, norm):
    """The least distance to any other class: the gap over the dual norm."""
    pairs = ((row, gap / np.linalg.norm(w, DUAL[norm])) for row, gap, w in others(model, x, y))
    return least(pairs, len(y))


def fewest_pixels(model, x, y):
    """How many pixels in [0, 1] have to change: those that can do most are taken first."""

    def count(row, gap, w):
        flat = x[row].numpy().reshape(-1)
        room = np.where(w > 0, 1 - flat, flat) * np.abs(w)
        gain = np.sort(room.reshape(-1, 3).sum(axis=1))[::-1].cumsum()
        return 1 + int(np.sum(gain <= gap))

    return least(((row, count(row, gap, w)) for row, gap, w in others(model, x, y)), len(y))


def wrong(model, x_adv, y):
    return np.argmax(model(x_adv), axis=1) != y


def compiled(attack, model, ball, side=2):
    """The attack in a graph that does not know the batch size."""
    spec = (tf.TensorSpec([None, side, side, 3]), tf.TensorSpec([None], tf.int32))
    return tf.function(
        lambda x, y: attack(model, x, y, ball, SEED), input_signature=spec, autograph=False
    )


@pytest.mark.parametrize(("attack", "norm", "more"), EXACT, ids=named)
def test_finds_the_minimal_distance_of_a_linear_model(attack, norm, more, linear_model):
    model, x, y = problem(linear_model)
    ball = ThreatModel(norm, 1e-3, WIDE)
    x_adv = compiled(attack, model, ball)(x, y)
    assert wrong(model, x_adv, y).all()
    share = ball.distance(x_adv, x) / minimal_radius(model, x, y, norm)
    assert np.all(share > 0.9999) and np.all(share < 1 + more), share


@pytest.mark.parametrize("attack", [FMN(steps=200), SigmaZero(steps=200)], ids=named)
def test_finds_the_fewest_pixels_of_a_linear_model(attack, linear_model):
    model, x, y = problem(linear_model, side=4, spread=8.0)
    ball = ThreatModel("l0", 1.0)
    x_adv = compiled(attack, model, ball, side=4)(x, y)
    assert wrong(model, x_adv, y).all()
    fewest = fewest_pixels(model, x, y)
    assert fewest.max() > 1
    found = ball.distance(x_adv, x).numpy()
    assert np.all(found >= fewest) and np.mean(found == fewest) >= 0.8, (found, fewest)
    assert np.all(found <= fewest + 1)


@pytest.mark.parametrize(("attack", "norm"), ALL, ids=named)
def test_examples_do_not_influence_each_other_and_what_is_wrong_is_left(attack, norm, linear_model):
    model, x, y = problem(linear_model)
    y[3] = (y[3] + 1) % 4
    short = {"steps": min(attack.steps, 40)}
    run = compiled(dataclasses.replace(attack, **short), exact(model), ThreatModel(norm, 1.0))
    whole = run(x, y).numpy()
    np.testing.assert_array_equal(whole[3], x[3])
    alone = np.concatenate([run(x[i : i + 1], y[i : i + 1]) for i in (0, 5)])
    np.testing.assert_allclose(whole[[0, 5]], alone, atol=1e-5)
    np.testing.assert_array_equal(run(x[3:4], y[3:4]), x[3:4])
    assert run.experimental_get_tracing_count() == 1
    assert whole.min() >= 0 and whole.max() <= 1


@pytest.mark.parametrize(("attack", "norm"), CLIMBING, ids=named)
def test_early_stop_ends_with_an_adversarial_image_in_the_ball(attack, norm, linear_model):
    model, x, y = problem(linear_model)
    rows = []

    def counted(z):
        rows.append(tf.shape(z)[0].numpy())
        return model(z)

    radius = fewest_pixels(model, x, y) if norm == "l0" else minimal_radius(model, x, y, norm)
    ball = ThreatModel(norm, float(np.ceil(radius.max()) if norm == "l0" else 1.3 * radius.max()))
    quick = dataclasses.replace(attack, early_stop=True, steps=40, final_search=0)
    if "initial" in {item.name for item in dataclasses.fields(quick)}:
        quick = dataclasses.replace(quick, initial=1.0)
    x_adv = quick(counted, x, y, ball, SEED)
    inside = ball.contains(x_adv, x).numpy() & wrong(model, x_adv, y)
    assert inside.all() and len(rows) < 41 and rows[-1] <= len(y)


@pytest.mark.parametrize(("attack", "norm"), ALL, ids=named)
def test_models_without_gradients_are_survived(attack, norm, linear_model):
    model, x, y = problem(linear_model, batch=2)
    short = {"steps": 3} | ({"searches": 2} if hasattr(attack, "searches") else {})
    blocked = lambda z: tf.stop_gradient(model(z))  # noqa: E731
    attack = dataclasses.replace(attack, **short)
    x_adv = compiled(attack, blocked, ThreatModel(norm, 1.0))(x, y)
    assert np.isfinite(x_adv).all() and not wrong(model, x_adv, y).any()


@pytest.mark.parametrize(
    ("attack", "norm"), [(DDN, "linf"), (CarliniWagner, "l1"), (EAD, "l2"), (SigmaZero, "l2"),
                         (DeepFool, "l0")],
)  # fmt: skip
def test_norms_that_an_attack_does_not_have_are_refused(attack, norm, linear_model):
    model, x, y = problem(linear_model, batch=1)
    with pytest.raises(UsageError, match=norm):
        attack()(model, x, y, ThreatModel(norm, 1), SEED)


@pytest.mark.parametrize(
    ("attack", "setting"),
    [
        (DeepFool, {"candidates": 0}), (DeepFool, {"overshoot": -0.1}), (DDN, {"steps": 0}),
        (DDN, {"gamma": 1.0}), (DDN, {"loss": "none"}), (FMN, {"step_size": 0.0}),
        (FMN, {"gamma": 1.5}), (FMN, {"final_search": -1}), (SigmaZero, {"sigma": 0.0}),
        (CarliniWagner, {"searches": 0}), (CarliniWagner, {"confidence": -1.0}),
        (EAD, {"beta": -1.0}),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(attack, setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        attack(**setting)


def test_annealing_by_hand():
    # 1 at the start, the mean in the middle, .01 at the end.
    found = [float(annealed(1.0, 0.01, tf.constant(i), 10)) for i in (0, 5, 10)]
    np.testing.assert_allclose(found, [1.0, 0.505, 0.01], atol=1e-6)
