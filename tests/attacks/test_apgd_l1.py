"""Auto-PGD in l1: the optimum of a linear model in a box, its schedule, and a plain loop."""

from __future__ import annotations

import numpy as np

from tfrobust.attacks.apgd import APGD, TargetedAPGD
from tfrobust.attacks.apgd_l1 import L1Course, reconsider_sparsity, sparse_step, stages
from tfrobust.attacks.losses import LOSSES
from tfrobust.runtime import tf
from tfrobust.threat_model import L1

SEED = tf.constant([1, 2])


def problem(linear_model, batch=2):
    """Two classes and two that are never near, images, labels, and the least radius of each.

    Six of twelve slopes are the steepest, all alike: how sparse a step is does not matter, and
    no single value has the room to cross the boundary alone.
    """
    rng = np.random.default_rng(0)
    w = rng.choice([-1.0, 1.0], 12) * np.array([1.0] * 6 + [0.3, 0.25, 0.2, 0.15, 0.1, 0.05])
    x = rng.uniform(0.2, 0.8, (batch, 2, 2, 3)).astype("float32")
    flat, slope = x.reshape(batch, -1), np.tile(np.abs(w), (batch, 1))
    room = np.where(w > 0, 1 - flat, flat)
    bias = -(flat @ w).max() - 0.7 * (room[:, :6]).sum(axis=1).min()
    weights = np.stack([0 * w, w, 0 * w, 0 * w], axis=1)
    model = linear_model(weights, np.array([0, bias, -50, -50]))
    radii = [least(*each) for each in zip(-(flat @ w + bias), slope, room, strict=True)]
    return model, x, np.zeros(batch, "int32"), np.array(radii)


def least(gap, slope, room):
    """The l1 distance to the boundary in a box: the steepest values first, as far as they go."""
    spent = 0.0
    for k in np.argsort(-slope):
        length = min(room[k], gap / slope[k])
        gap, spent = gap - length * slope[k], spent + length
        if gap < 1e-9:
            return spent
    raise AssertionError("out of reach")


def test_succeeds_just_above_the_least_radius_in_the_box_and_not_below(linear_model):
    attack = TargetedAPGD(steps=40, n_targets=1, loss="margin")
    model, x, y, radii = problem(linear_model)
    assert (radii > 1).all()

    @tf.function(autograph=False)
    def attacked(x, y, eps):
        return attack(model, x, y, L1(eps), SEED)

    for row, radius in enumerate(radii):
        one = tf.constant(x[row : row + 1]), tf.constant(y[row : row + 1])
        for factor, broken in ((1.02, True), (0.98, False)):
            eps = tf.constant(radius * factor, tf.float32)
            x_adv = attacked(*one, eps)
            assert (np.argmax(model(x_adv)) != y[row]) == broken
            assert np.abs(x_adv - one[0]).sum() <= float(eps) + 1e-6


def test_the_steps_are_shared_out_among_three_balls():
    assert stages(100) == (30, 30, 40)
    assert [stages(n) for n in (1, 2, 3, 4, 20)] == [(1,), (2,), (1, 1, 1), (1, 1, 2), (6, 6, 8)]
    course = L1Course(L1(2.0), 100)
    assert course.length == 103
    # After 30 steps and a look the next ball begins; only in the last is there a success.
    radius, enters = course._radius.numpy(), np.flatnonzero(course._enters)
    assert enters.tolist() == [30, 61]
    assert radius[[0, 29, 30, 60, 61, 101]].tolist() == [6, 6, 4, 4, 2, 2]
    assert [bool(course.counts(n)) for n in (0, 61, 62, 102)] == [False, False, True, True]
    # int(.04 * 30) and int(.04 * 40): every step.
    assert np.flatnonzero(course._checked).tolist() == [*range(1, 30), *range(32, 61),
                                                        *range(63, 102)]  # fmt: skip
    assert np.flatnonzero(L1Course(L1(2.0), 200)._checked)[:3].tolist() == [2, 4, 6]


def test_a_step_goes_to_the_largest_slopes_in_equal_parts():
    grad = tf.reshape(tf.constant([3.0, -2.0, 0.5, 0.0, 1.0, -4.0]), [1, 1, 2, 3])
    step = sparse_step(grad, tf.constant([0.6]), tf.constant([4.0]))
    # Two thirds of 4, rounded up: three.
    np.testing.assert_allclose(np.ravel(step), [0.2, -0.2, 0, 0, 0, -0.2], atol=1e-6)
    all_of_it = sparse_step(grad, tf.constant([0.5]), tf.constant([99.0]))
    np.testing.assert_allclose(np.ravel(all_of_it), [0.1, -0.1, 0.1, 0, 0.1, -0.1], atol=1e-6)
    assert not np.any(sparse_step(grad * 0, tf.constant([0.5]), tf.constant([0.0])))


def test_the_sparsity_of_the_best_point_decides_at_a_checkpoint():
    ball, x = L1(1.0), tf.zeros([3, 1, 4, 1])
    best = tf.reshape(tf.constant([[1.0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]), x.shape)
    course = L1Course(ball, 10)
    rows = course.first_rows(x, tf.zeros(3, tf.int32), tf.zeros(3, tf.int32), best)
    rows = rows._replace(
        x_best=best, x_adv=best + 1, grad_best=best, changed=tf.constant([4.0, 4.0, 4.0]),
        step_size=tf.constant([0.2, 0.9, 0.12]),
    )  # fmt: skip
    now = reconsider_sparsity(rows, ball)
    np.testing.assert_array_equal(now.changed, [1, 4, 4])
    np.testing.assert_allclose(now.step_size, [1.0, 0.6, 0.1])
    back = np.array([True, False, False])[:, None, None, None]
    np.testing.assert_array_equal(now.x_adv, np.where(back, best, best + 1))
    np.testing.assert_array_equal(now.grad, np.where(back, best, 0.0))


def plain_run(grad_and_loss, x, start, eps, steps):
    """One example, step by step as in the paper, in one ball after another."""
    seen, point = [], start
    for factor, count in zip((3, 2, 1), stages(steps), strict=True):
        ball = L1(factor * eps)
        now = ball.project(point[None], x[None]).numpy()[0] if seen else point
        best, best_grad, best_loss = now, None, -np.inf
        size, changed = factor * eps, np.count_nonzero(now - x)
        for step in range(count + 1):
            grad, loss = grad_and_loss(now)
            seen.append(now)
            if loss > best_loss:
                best, best_grad, best_loss = now, grad, loss
            if step and step % max(int(0.04 * count), 1) == 0:
                count_now = np.count_nonzero(best - x)
                if count_now < 0.95 * changed:
                    size, now, grad = factor * eps, best, best_grad
                else:
                    size = max(size / 1.5, factor * eps / 10)
                changed = count_now
            most = max(int(np.ceil(changed / 1.5)), 1)
            chosen = np.abs(grad) >= np.sort(np.abs(grad).ravel())[-most]
            way = np.sign(grad) * chosen
            moved = now + size * way / np.abs(way).sum()
            now = ball.project(moved[None].astype("float32"), x[None]).numpy()[0]
        point = best
    return seen


def test_takes_the_steps_of_the_paper(small_cnn):
    model, ball, steps = small_cnn(), L1(1.5), 12
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")
    y, asked = np.argmax(model(x), axis=1).astype("int32"), []

    def recorded(z):
        asked.append(z.numpy())
        return model(z)

    # A margin that stays far below 0: nothing leaves.
    attack = APGD(steps=steps, loss="margin", early_stop=False)
    attack(recorded, x, y, ball, SEED)
    start = L1Course(ball, steps).start(tf.constant(x), SEED).numpy()
    assert len(asked) == steps + 3
    for i in range(len(x)):

        def grad_and_loss(z, i=i):
            z = tf.constant(z[None])
            with tf.GradientTape() as tape:
                tape.watch(z)
                loss = LOSSES["margin"](model(z), y[i : i + 1])
            return tape.gradient(loss, z)[0].numpy(), float(loss[0])

        seen = plain_run(grad_and_loss, x[i], start[i], ball.eps, steps)
        np.testing.assert_allclose([z[i] for z in asked[:5]], seen[:5], atol=1e-4)
        assert np.abs(asked[-1][i] - x[i]).sum() <= 1.5 + 1e-6
