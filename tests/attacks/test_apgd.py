"""Auto-PGD against closed forms, the paper's schedule, and a plain loop of the paper's steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfrobust.attacks.apgd import APGD, TargetedAPGD, _wrong_classes
from tfrobust.attacks.apgd_rows import Rows, boundary_start, checkpoints, reconsider
from tfrobust.attacks.losses import LOSSES
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
DUAL = {"linf": 1, "l2": 2}
BOTH = pytest.mark.parametrize("norm", DUAL)


def images(batch=4, side=2, seed=0):
    return np.random.default_rng(seed).uniform(0.4, 0.6, (batch, side, side, 3)).astype("float32")


def labels_of(model, x):
    return np.argmax(model(x), axis=1).astype("int32")


def radii(model, x, y, norm):
    """The distance to the nearest of all decision boundaries of a linear model."""
    weights, bias = model.get_layer("logits").get_weights()
    logits = x.reshape(len(x), -1) @ weights + bias
    found = []
    for row, own in zip(logits, y, strict=True):
        slopes = np.linalg.norm(weights - weights[:, [own]], DUAL[norm], axis=0)
        gaps = (row[own] - row) / np.maximum(slopes, 1e-9)
        found.append(np.delete(gaps, own).min())
    return np.array(found)


class Recorder:
    """A model that keeps what it was asked; for eager runs."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def __call__(self, x):
        self.seen.append(x.numpy())
        return self.model(x)


@pytest.mark.diagonal
@BOTH
@pytest.mark.parametrize("attack", [
    APGD(), APGD(loss="dlr"), APGD(loss="margin"), TargetedAPGD(n_targets=3),
    TargetedAPGD(loss="margin"), TargetedAPGD(loss="cross_entropy", early_stop=False),
], ids=["ce", "dlr", "margin", "t-dlr", "t-margin", "t-ce"])  # fmt: skip
def test_succeeds_just_above_the_minimal_radius_and_not_below(norm, attack, linear_model):
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(12, 4)), np.zeros(4)
    if not isinstance(attack, TargetedAPGD):
        # Two classes and two that are never near: a sum over classes has one way up.
        weights[:, 2:], bias[2:] = 0, -50
    model, x = linear_model(weights, bias), images()
    y = labels_of(model, x)

    @tf.function(autograph=False)
    def attacked(x, y, eps):
        return attack(model, x, y, ThreatModel(norm, eps, bounds=(-9.0, 9.0)), SEED)

    for i, radius in enumerate(radii(model, x, y, norm)):
        row = tf.constant(x[i : i + 1]), tf.constant(y[i : i + 1])
        above = attacked(*row, tf.constant(radius * 1.01, tf.float32))
        below = attacked(*row, tf.constant(radius * 0.99, tf.float32))
        assert labels_of(model, above) != y[i]
        assert labels_of(model, below) == y[i]


def test_checkpoints_by_hand():
    # p: 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of the steps.
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    # Of 20: intervals 4, then 1 shorter each time, no less than 1.
    assert checkpoints(20) == (4, 7, 9, *range(10, 21))
    assert checkpoints(1) == (1,)


def test_step_size_is_halved_by_either_condition():
    # 22 steps, rho 0.75: up to 16.5 rises are too few.
    first, other = tf.zeros([5, 1]), tf.ones([5, 1])
    rows = Rows(
        x=first, y=None, target=None, x_adv=first, x_before=first, grad=first,
        step_size=tf.fill([5], 4.0), loss=None,
        rises=tf.constant([16.0, 17.0, 17.0, 17.0, 0.0]),
        x_best=other, grad_best=other,
        loss_best=tf.constant([3.0, 3.0, 2.0, 2.0, 2.0]),
        loss_best_then=tf.fill([5], 2.0),
        halved=tf.constant([False, False, False, True, True]), broken=None, changed=None,
    )  # fmt: skip
    now = reconsider(rows, 0.75 * 22)
    # Few rises; enough; best stood still; stood still right after a halving; few again.
    halved = np.array([True, False, True, False, True])
    np.testing.assert_array_equal(now.halved, halved)
    np.testing.assert_array_equal(now.step_size, np.where(halved, 2.0, 4.0))
    np.testing.assert_array_equal(now.x_adv[:, 0], halved)
    np.testing.assert_array_equal(now.grad[:, 0], halved)
    np.testing.assert_array_equal(now.rises, np.zeros(5))
    np.testing.assert_array_equal(now.loss_best_then, rows.loss_best)


def plain_run(grad_and_loss, x, start, norm, eps, steps):
    """One example, step by step as in the paper's algorithm 1; the points looked at, the best
    of them and the last step size."""

    def project(z):
        delta = z - x
        if norm == "linf":
            return np.clip(x + np.clip(delta, -eps, eps), 0, 1)
        return np.clip(x + delta * min(1, eps / max(np.linalg.norm(delta), 1e-12)), 0, 1)

    now = before = start
    grad, loss = grad_and_loss(now)
    best, best_grad, best_loss, best_then = now, grad, loss, loss
    seen, losses, size, halved, last = [now], [loss], 2 * eps, True, 0
    for step in range(1, steps + 1):
        way = np.sign(grad) if norm == "linf" else grad / np.linalg.norm(grad)
        goal, a = project(now + size * way), 1 if step == 1 else 0.75
        now, before = project(now + a * (goal - now) + (1 - a) * (now - before)), now
        grad, loss = grad_and_loss(now)
        seen.append(now)
        losses.append(loss)
        if loss > best_loss:
            best, best_grad, best_loss = now, grad, loss
        if step in checkpoints(steps):
            rises = sum(losses[i] > losses[i - 1] for i in range(last + 1, step + 1))
            halve = rises <= 0.75 * (step - last) or (not halved and best_loss <= best_then)
            if halve:
                size, now, grad = size / 2, best, best_grad
            halved, best_then, last = halve, best_loss, step
    return seen, best, size


@BOTH
def test_takes_the_steps_of_the_paper(norm, small_cnn):
    model, x, steps = small_cnn(), images(2, 8), 30
    y, threat = labels_of(model, x), ThreatModel(norm, {"linf": 0.2, "l2": 2.0}[norm])
    start = boundary_start(threat, x, SEED).numpy()
    record = Recorder(model)
    x_adv = APGD(steps=steps, early_stop=False)(record, x, y, threat, SEED).numpy()
    assert len(record.seen) == steps + 1

    for i in range(len(x)):

        def grad_and_loss(z, i=i):
            z = tf.constant(z[None].astype("float32"))
            with tf.GradientTape() as tape:
                tape.watch(z)
                loss = LOSSES["cross_entropy"](model(z), y[i : i + 1])
            return tape.gradient(loss, z)[0].numpy(), float(loss[0])

        seen, best, size = plain_run(grad_and_loss, x[i], start[i], norm, threat.eps, steps)
        np.testing.assert_allclose([s[i] for s in record.seen], seen, atol=2e-4)
        assert size < 2 * threat.eps
        if labels_of(model, best[None]) == y[i]:
            np.testing.assert_allclose(x_adv[i], best, atol=2e-4)


@BOTH
def test_starts_on_the_boundary_of_the_ball(norm):
    x, threat = tf.fill([50, 4, 4, 3], 0.5), ThreatModel(norm, 0.1)
    start = boundary_start(threat, x, SEED)
    np.testing.assert_allclose(threat.distance(start, x), np.full(50, 0.1), rtol=1e-4)
    # A cube has a boundary in every coordinate: no side or direction is preferred.
    assert abs(float(tf.reduce_mean(start - x))) < 0.01
    assert np.all(threat.contains(boundary_start(threat, x * 0, SEED), x * 0))


@pytest.mark.diagonal
@BOTH
@pytest.mark.parametrize("attack", [APGD(steps=12), TargetedAPGD(steps=12)], ids=["ce", "t"])
def test_stays_in_the_ball_for_any_batch_size_and_is_seeded(attack, norm, small_cnn):
    model, threat = small_cnn(), ThreatModel(norm, 0.05)
    spec = [tf.TensorSpec([None, 8, 8, 3]), tf.TensorSpec([None], tf.int32)]
    traced = tf.function(
        lambda x, y: attack(model, x, y, threat, SEED), input_signature=spec, autograph=False
    )
    for batch in (1, 5):
        x = np.random.default_rng(0).uniform(0, 1, (batch, 8, 8, 3)).astype("float32")
        y = labels_of(model, x)
        x_adv = traced(x, y)
        assert x_adv.dtype == tf.float32 and np.all(threat.contains(x_adv, x))
        assert np.array_equal(x_adv, traced(x, y))


def test_keeps_the_best_point_of_those_that_stand(small_cnn):
    model, x, threat = small_cnn(), images(4, 8), ThreatModel("linf", 0.004)
    y = labels_of(model, x)
    record = Recorder(model)
    x_adv = APGD(steps=20)(record, x, y, threat, SEED)
    assert np.all(labels_of(model, x_adv) == y)
    *losses, found = [LOSSES["cross_entropy"](model(z), y) for z in (*record.seen, x_adv)]
    np.testing.assert_allclose(found, np.max(losses, axis=0), rtol=1e-5)


def test_the_broken_leave_and_the_others_do_not_notice(linear_model):
    rng = np.random.default_rng(0)
    model, x = linear_model(rng.normal(size=(12, 2)), np.zeros(2)), images(4)
    y = labels_of(model, x)
    eps = float(radii(model, x, y, "linf").min() * 0.9)
    threat, attack = ThreatModel("linf", eps), APGD(steps=10)
    start = boundary_start(threat, x, SEED).numpy()
    record = Recorder(model)
    mixed = np.array([1 - y[0], y[1], 1 - y[2], y[3]])
    x_adv = attack(record, x, mixed, threat, SEED).numpy()
    assert [len(z) for z in record.seen] == [4] + [2] * 10
    # Those misclassified at the start stay there.
    assert np.array_equal(x_adv[[0, 2]], start[[0, 2]])
    whole = attack(model, x, y, threat, SEED).numpy()
    np.testing.assert_allclose(x_adv[[1, 3]], whole[[1, 3]], atol=1e-6)
    record.seen.clear()
    attack(record, x, 1 - y, threat, SEED)
    assert len(record.seen) == 1


def test_without_early_stop_the_last_misclassified_point_is_returned(linear_model):
    rng = np.random.default_rng(0)
    model, x = linear_model(rng.normal(size=(12, 2)), np.zeros(2)), images(4)
    y = 1 - labels_of(model, x)
    record = Recorder(model)
    attack = APGD(steps=10, early_stop=False)
    x_adv = attack(record, x, y, ThreatModel("l2", 0.01), SEED)
    assert [len(z) for z in record.seen] == [4] * 11
    assert np.array_equal(x_adv, record.seen[-1])


def test_goals_are_the_wrong_classes_from_the_likeliest_down():
    logits = tf.constant([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0]])
    y = tf.constant([0, 2])
    np.testing.assert_array_equal(_wrong_classes(logits, y, 9), [[2, 1, 3], [0, 1, 3]])
    np.testing.assert_array_equal(_wrong_classes(logits, y, 1), [[2], [0]])


def test_targeted_spends_steps_on_each_goal_and_none_on_what_is_misclassified(linear_model):
    rng = np.random.default_rng(0)
    model, x = linear_model(rng.normal(size=(12, 4)), np.zeros(4)), images(4)
    y = labels_of(model, x)
    y[2] = (y[2] + 1) % 4
    record = Recorder(model)
    attack = TargetedAPGD(steps=5)
    x_adv = attack(record, x, y, ThreatModel("linf", 1e-4), SEED)
    # One look at the clean images, then three goals, each with a gradient at its start.
    assert [len(z) for z in record.seen] == [4] + [3] * 3 * 6
    assert np.array_equal(x_adv[2], x[2])
    assert not np.array_equal(record.seen[1], record.seen[1 + 6])
    record.seen.clear()
    dataclasses.replace(attack, n_targets=2)(record, x, y, ThreatModel("linf", 1e-4), SEED)
    assert [len(z) for z in record.seen] == [4] + [3] * 2 * 6


def test_gradients_of_a_randomised_model_are_averaged(linear_model):
    rng = np.random.default_rng(0)
    weights = [np.stack([-w, w], axis=1) for w in rng.normal(size=(2, 12)).astype("float32")]
    asked = []

    def model(x):
        asked.append(x.numpy())
        return tf.reshape(x, [len(x), -1]) @ weights[len(asked) % 2]

    x, threat = images(1), ThreatModel("l2", 0.01, bounds=(-9.0, 9.0))
    APGD(steps=1, eot_iter=2, loss="margin", early_stop=False)(model, x, [0], threat, SEED)
    assert len(asked) == 2 * 2
    up = np.mean([w[:, 1] - w[:, 0] for w in weights], axis=0).reshape(x.shape[1:])
    step = asked[0] + 2 * 0.01 * up / np.linalg.norm(up)
    np.testing.assert_allclose(asked[2], threat.project(step, x), atol=1e-6)
    assert np.array_equal(asked[0], asked[1])


@pytest.mark.parametrize(("attack", "classes"), [
    (APGD(loss="dlr", steps=2), 3), (TargetedAPGD(steps=2), 4),
])  # fmt: skip
def test_too_few_classes_for_the_dlr_loss_are_refused(attack, classes, linear_model):
    x, threat = images(2), ThreatModel("linf", 0.1)
    few = linear_model(np.ones((12, classes - 1)), np.zeros(classes - 1))
    with pytest.raises(UsageError, match=f"{classes} classes"):
        attack(few, x, np.zeros(2, "int32"), threat, SEED)
    margin = dataclasses.replace(attack, loss="margin")
    assert np.all(threat.contains(margin(few, x, np.zeros(2, "int32"), threat, SEED), x))


def test_other_norms_are_refused(linear_model):
    model = linear_model(np.ones((12, 2)), np.zeros(2))
    for attack in (APGD(loss="margin"), TargetedAPGD(loss="margin")):
        with pytest.raises(UsageError, match="l0"):
            attack(model, images(1), np.zeros(1, "int32"), ThreatModel("l0", 1), SEED)


@pytest.mark.parametrize("wrong", [
    {"steps": 0}, {"rho": 0.0}, {"loss": "hinge"}, {"eot_iter": 0}, {"restarts": 0},
    {"n_targets": 0},
])  # fmt: skip
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TargetedAPGD(**wrong)
