"""PGD-L0 and Sparse-RS: the optimum of a linear model, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.pgd_l0 import PGDL0
from tfrobust.attacks.sparse_rs import SparseRS
from tfrobust.attacks.sparse_rs_patch import SparseRSPatch
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

SEED = tf.constant([1, 2])
SIDE = 4


def problem(linear_model, batch=8):
    """Two classes, images, the label 0, and how many pixels each needs, at least."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(SIDE * SIDE * 3, 2))
    w = weights[:, 1] - weights[:, 0]
    x = rng.uniform(0.3, 0.7, (batch, SIDE, SIDE, 3)).astype("float32")
    flat = x.reshape(batch, -1)
    bias = -(flat @ w).max() - 8.0
    room = np.where(w > 0, 1 - flat, flat) * np.abs(w)
    gain = np.sort(room.reshape(batch, -1, 3).sum(axis=2), axis=1)[:, ::-1].cumsum(axis=1)
    fewest = 1 + np.sum(gain <= -(flat @ w + bias)[:, None], axis=1)
    model = linear_model(weights, np.array([0.0, bias]), SIDE)
    return model, tf.constant(x), np.zeros(batch, "int32"), fewest


def compiled(attack, model):
    """The attack in a graph that knows neither the batch size nor the number of pixels."""
    spec = (tf.TensorSpec([None, SIDE, SIDE, 3]), tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([]))  # fmt: skip
    return tf.function(
        lambda x, y, eps: attack(model, x, y, ThreatModel("l0", eps), SEED),
        input_signature=spec, autograph=False,
    )  # fmt: skip


@pytest.mark.parametrize("attack", [PGDL0(steps=40), SparseRS(queries=3000)], ids=["pgd", "rs"])
def test_succeeds_with_the_fewest_pixels_and_with_no_fewer(attack, linear_model):
    model, x, y, fewest = problem(linear_model)
    assert fewest.min() > 2 and fewest.max() < SIDE * SIDE - 2
    run = compiled(attack, model)
    for row in range(3):
        for pixels, expected in ((fewest[row], True), (fewest[row] - 1, False)):
            x_adv = run(x[row : row + 1], y[row : row + 1], float(pixels))
            assert (np.argmax(model(x_adv), axis=1) == 1).all() == expected
            assert ThreatModel("l0", float(pixels)).contains(x_adv, x[row : row + 1]).numpy().all()
    assert run.experimental_get_tracing_count() == 1


def test_random_search_with_all_pixels_stays_in_the_ball(linear_model):
    model, x, y, _ = problem(linear_model)
    ball = ThreatModel("l0", SIDE * SIDE)
    x_adv = SparseRS(queries=30)(model, x, y, ball, SEED)
    assert ball.contains(x_adv, x).numpy().all()


def test_a_query_moves_as_many_pixels_as_the_schedule_says():
    counts = SparseRS(queries=10_000)._counts(tf.constant(100)).numpy()
    # 100 at the start; then 30, a half of it after 50, a quarter after 200, ..., a 15th at the end.
    assert counts[[0, 1, 49, 50, 199, 200, 500, 9999]].tolist() == [100, 30, 30, 15, 15, 7, 6, 2]
    assert SparseRS(queries=5)._counts(tf.constant(1)).numpy().tolist() == [1] * 5


def test_broken_examples_leave_the_search(linear_model):
    model, x, y, fewest = problem(linear_model)
    rows = []

    def counted(z):
        rows.append(len(z))
        return model(z)

    SparseRS(queries=60)(counted, x, y, ThreatModel("l0", float(fewest.max() + 3)), SEED)
    assert rows[0] == len(x) and rows[-1] < len(x) and sorted(rows, reverse=True) == rows


def test_a_patch_s_content_is_the_best_at_its_place_in_a_linear_model():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(SIDE, SIDE, 3))
    x = rng.uniform(0.3, 0.7, (3, SIDE, SIDE, 3)).astype("float32")
    slopes = tf.constant(w.ravel(), tf.float32)

    def model(z):
        value = tf.linalg.matvec(tf.reshape(z, [-1, w.size]), slopes)
        return tf.stack([tf.fill(tf.shape(value), 1000.0), value], axis=1)

    # The budget of 5 pixels holds a square of 2 x 2.
    x_adv = compiled(SparseRSPatch(queries=300), model)(x, np.zeros(3, "int32"), 5.0).numpy()
    gain = np.where(w > 0, 1 - x, x) * np.abs(w)
    for row, changed in enumerate((x_adv != x).any(axis=3)):
        assert changed.sum() == 4 and all(np.ptp(each) < 2 for each in np.nonzero(changed))
        found = ((x_adv[row] - x[row]) * w).sum()
        np.testing.assert_allclose(found, gain[row][changed].sum(), rtol=1e-4)


def test_the_patch_s_side_and_the_squares_inside_it():
    attack, ball = SparseRSPatch(queries=10_000), ThreatModel("l0", 26)
    assert "5 x 5" in attack.remark((9, 9, 3), ball) and "3 x 3" in attack.remark((3, 9, 3), ball)
    inner = [int(attack._inner(tf.constant(i), tf.constant(40))) for i in (0, 10, 11, 60, 9999)]
    # 40 times the root of .4, of .2, of .1, and of .4 / 128.
    assert inner == [25, 25, 17, 12, 2]


@pytest.mark.parametrize("attack", [PGDL0, SparseRS, SparseRSPatch])
def test_other_norms_and_wrong_settings_are_refused(attack, linear_model):
    model, x, y, _ = problem(linear_model, batch=1)
    with pytest.raises(UsageError, match="l2"):
        attack()(model, x, y, ThreatModel("l2", 1.0), SEED)
    for wrong in ({"loss": "none"}, {"restarts": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            attack(**wrong)
