"""NES and SPSA on linear models: they break what can be broken, within their queries."""

from __future__ import annotations

import numpy as np
import pytest
from linear_cases import attacked, case, compiled

from tfrobust.attacks.estimated import NES, SPSA
from tfrobust.errors import UsageError
from tfrobust.threat_model import ThreatModel

CASES = [(NES(queries=800), "linf"), (NES(queries=800), "l2"), (SPSA(queries=1500), "linf")]


@pytest.mark.parametrize(("attack", "norm"), CASES, ids=["nes-linf", "nes-l2", "spsa-linf"])
def test_breaks_all_whose_distance_is_within_the_radius(attack, norm, linear_model):
    model, x, y, distances = case(linear_model, rows=24)
    away = distances[norm]
    eps = float(np.median(away))
    call = compiled(attack, model, x.shape[1:], ThreatModel(norm, eps))
    x_adv, success, asked = call(x, y)
    assert success[away < 0.93 * eps].all() and not success[away > eps].any()
    # Whoever falls is asked no more, and no one more often than the budget says.
    standing = int((~success).sum())
    assert asked <= len(x) * attack.queries
    assert asked < standing * attack.queries + 0.5 * success.sum() * attack.queries
    # An example's course does not depend on the others.
    np.testing.assert_allclose(call(x[:1], y[:1])[0][0], x_adv[0], atol=1e-5)


@pytest.mark.parametrize("attack", [NES(queries=9), SPSA(queries=9)])
def test_few_queries_are_enough_for_a_step_and_no_more_are_taken(attack, linear_model):
    model, x, y, _ = case(linear_model)
    # Out of reach, so that no one leaves.
    x_adv, success, asked = attacked(attack, model, x, y, ThreatModel("linf", 1e-4))
    assert asked == 8 * 8 and not success.any() and (x_adv != x).any(axis=(1, 2, 3)).all()


def test_a_step_that_gains_nothing_is_halved():
    attack = NES(momentum=0.0, patience=2, step_size=0.1)
    ball, x = ThreatModel("linf", 1.0), np.ones((2, 1, 1, 3), "float32")
    memory, sizes = attack._memory(x), []
    for loss in ([1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [4.0, 1.0], [5.0, 1.0]):
        step, memory = attack._move(0, x, np.array(loss, "float32"), memory, ball)
        sizes.append(step[:, 0, 0, 0].numpy())
    np.testing.assert_allclose(np.transpose(sizes)[0], 0.1)
    np.testing.assert_allclose(np.transpose(sizes)[1], [0.1, 0.1, 0.05, 0.05, 0.025])


def test_settings_and_norms_out_of_range_are_refused(linear_model):
    for wrong in (
        {"queries": 3}, {"samples": 1}, {"sigma": 0.0}, {"step_size": -1.0}, {"restarts": 0},
        {"loss": "hinge"}, {"momentum": 1.0}, {"patience": 0},
    ):  # fmt: skip
        with pytest.raises(UsageError, match=next(iter(wrong))):
            NES(**wrong)
    model, x, y, _ = case(linear_model)
    with pytest.raises(UsageError, match="linf"):
        attacked(SPSA(), model, x, y, ThreatModel("l2", 0.1))
