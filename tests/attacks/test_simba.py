"""SimBA on linear models, in both bases."""

from __future__ import annotations

import numpy as np
import pytest
from linear_cases import attacked, case, compiled

from tfrobust.attacks.simba import SimBA, _order, _wave
from tfrobust.errors import UsageError
from tfrobust.runtime import tf
from tfrobust.threat_model import L2, Linf


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_breaks_all_whose_distance_is_within_the_radius(basis, linear_model):
    model, x, y, distances = case(linear_model, rows=24)
    away = distances["l2"]
    eps = float(np.median(away))
    attack = SimBA(queries=600, step_size=eps / 10, basis=basis, frequencies=1.0)
    call = compiled(attack, model, x.shape[1:], L2(eps))
    x_adv, success, asked = call(x, y)
    assert success[away < 0.93 * eps].all() and not success[away > eps].any()
    standing = int((~success).sum())
    assert standing * 600 < asked < standing * 600 + 0.5 * success.sum() * 600
    np.testing.assert_allclose(call(x[:1], y[:1])[0][0], x_adv[0], atol=1e-5)


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_directions_are_an_orthonormal_basis(basis):
    x = tf.zeros([1, 3, 4, 2])
    down, across = SimBA(basis=basis, frequencies=1.0)._waves(x)
    waves = _wave(tf.range(24), down, across, 2).numpy().reshape(24, -1)
    np.testing.assert_allclose(waves @ waves.T, np.eye(24), atol=1e-5)
    low = SimBA(basis="dct", frequencies=0.5)._waves(x)
    assert low[0].shape == (2, 3) and low[1].shape == (2, 4)


def test_each_example_goes_through_all_directions_in_an_order_of_its_own():
    order = _order(tf.zeros(3, tf.int32), 12, tf.constant([1, 2])).numpy()
    assert np.array_equal(np.sort(order, axis=1), np.tile(np.arange(12), (3, 1)))
    assert len(np.unique(order, axis=0)) == 3


def test_settings_and_norms_out_of_range_are_refused(linear_model):
    for wrong in (
        {"queries": 0}, {"step_size": 0.0}, {"basis": "wavelet"}, {"frequencies": 0.0},
        {"loss": "hinge"}, {"restarts": 0},
    ):  # fmt: skip
        with pytest.raises(UsageError, match=next(iter(wrong))):
            SimBA(**wrong)
    model, x, y, _ = case(linear_model)
    with pytest.raises(UsageError, match="l2"):
        attacked(SimBA(), model, x, y, Linf(0.1))
