"""Curves of accuracy, against closed forms on linear models."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from tfrobust.attacks.gradient import FGSM, PGD
from tfrobust.chance import wilson
from tfrobust.errors import UsageError
from tfrobust.evaluation.curves import (
    Curve,
    accuracy_against_eps,
    accuracy_against_steps,
    sample_index,
    sweep_curve,
)
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.threat_model import ThreatModel

EPS = 8 / 255
BALL = ThreatModel("linf", EPS)


@dataclass(frozen=True)
class Deaf:
    """An attack that never succeeds."""

    restarts: int = 1

    def __call__(self, model, x, y, threat_model, seed):
        return x


def standing(radii, eps):
    return int((radii > eps).sum())


def test_accuracy_against_eps_is_the_closed_form_down_to_zero(linear):
    evaluator, radii = linear
    curve = accuracy_against_eps(evaluator, PGD(steps=5), BALL)
    expected = [0, EPS / 4, EPS / 2, EPS]
    while standing(radii, expected[-1]):
        expected.append(2 * expected[-1])
    np.testing.assert_allclose(curve.values, expected)
    assert curve.correct == tuple(standing(radii, eps) for eps in expected)
    assert curve.correct[0] == 54 and curve.correct[-1] == 0 and len(set(curve.correct)) > 3
    assert curve.total == 60 and curve.chance == 0.5
    point = json.loads(json.dumps(curve.as_dict()))["points"][3]
    assert point["eps"] == pytest.approx(EPS)
    assert point["accuracy"] == pytest.approx(curve.correct[3] / 60, abs=1e-6)
    low, high = wilson(curve.correct[3], 60)
    assert point["accuracy_interval"] == [round(low, 4), round(high, 4)]


def test_radii_are_measured_as_asked_in_one_trace_on_the_sample(linear):
    evaluator, radii = linear
    asked = (0.03, 0.01, 0.0)
    curve = accuracy_against_eps(evaluator, PGD(steps=5), BALL, asked, limit=20, seed=3)
    index = sample_index(60, 20, 3)
    assert curve.values == (0.0, 0.01, 0.03) and curve.total == len(set(index)) == 20
    assert curve.correct == tuple(standing(radii[index], eps) for eps in curve.values)
    traced = [graph for key, graph in evaluator._judge._graphs.items() if key != "clean"]
    assert [graph.experimental_get_tracing_count() for graph in traced] == [1]


def test_accuracy_against_steps_is_the_reach_of_the_steps(linear):
    evaluator, radii = linear
    attack = PGD(random_start=False, step_size=EPS / 4)
    curve = accuracy_against_steps(evaluator, attack, BALL, (4, 1, 2, 8), name="quarter steps")
    assert curve.values == (0, 1, 2, 4, 8) and curve.attack == "quarter steps"
    reach = (0, EPS / 4, EPS / 2, EPS, EPS)
    assert curve.correct == tuple(standing(radii, eps) for eps in reach)


def test_a_curve_ends_where_the_ball_holds_every_image(linear):
    curve = accuracy_against_eps(linear[0], Deaf(), ThreatModel("linf", 0.3))
    np.testing.assert_allclose(curve.values, (0, 0.075, 0.15, 0.3, 0.6, 1.0))
    assert set(curve.correct) == {54}


def test_radii_in_pixels_are_whole(linear):
    curve = accuracy_against_eps(linear[0], PGD(steps=2), ThreatModel("l0", 1), limit=4)
    assert all(value == int(value) for value in curve.values) and curve.values[-1] <= 4


def test_wrong_use_is_refused(linear):
    evaluator, _ = linear
    with pytest.raises(UsageError, match="steps can be set, such as PGD, found FGSM"):
        accuracy_against_steps(evaluator, FGSM(), BALL)
    for radii in ((-0.1, 0.1), ()):
        with pytest.raises(UsageError, match="radii: expected"):
            accuracy_against_eps(evaluator, PGD(), BALL, radii)
    with pytest.raises(UsageError, match="limit: expected 1 image or more, found 0"):
        accuracy_against_eps(evaluator, PGD(), BALL, limit=0)
    with pytest.raises(UsageError, match="eps: expected more than 0"):
        accuracy_against_eps(evaluator, PGD(), ThreatModel("linf", 0.0))
    with pytest.raises(UsageError, match="rising"):
        Curve("eps", (0.1, 0.0), (1, 2), 5, "PGD", BALL, 0.5)


def test_a_sweep_attacks_only_what_other_radii_leave_open(linear):
    """In any order of radii the scores are exact, and they never rise with the radius."""
    evaluator, radii = linear
    attacks = {"fgsm": FGSM(), "pgd": PGD(steps=3)}
    further = (2 * EPS, EPS / 4, 3 * EPS, EPS / 2)
    report = evaluate(evaluator.logits, evaluator.data, BALL, attacks, sweep=further)
    swept = [result for result in report.sweep if result.name == "pgd"]
    assert [float(result.threat_model.eps) for result in swept] == list(further)
    for result in swept:
        assert result.outcome.correct.sum() == standing(radii, float(result.threat_model.eps))
    first = {float(r.threat_model.eps): r for r in report.sweep if r.name == "fgsm"}
    right = int(report.clean.correct.sum())
    at = {eps: standing(radii, eps) for eps in (EPS / 4, EPS / 2, EPS, 2 * EPS)}
    # Larger balls: what fell in a smaller one is not attacked again.
    assert first[2 * EPS].attacked == at[EPS] and first[3 * EPS].attacked == at[2 * EPS]
    # Smaller ones: what withstood a larger one is spared, and counts as standing.
    assert (first[EPS / 2].attacked, first[EPS / 2].spared) == (right - at[EPS], at[EPS])
    assert (first[EPS / 4].attacked, first[EPS / 4].spared) == (right - at[EPS / 2], at[EPS / 2])
    for result in first.values():
        assert 0 <= result.success_rate <= 1


def test_a_sweep_is_a_curve_of_the_worst_case(linear):
    evaluator, radii = linear
    attacks = {"fgsm": FGSM(), "pgd": PGD(steps=3)}
    further = (EPS / 2, 2 * EPS)
    report = evaluate(evaluator.logits, evaluator.data, BALL, attacks, sweep=further)
    curve = sweep_curve(report, 2)
    assert curve.values == (0.0, EPS / 2, EPS, 2 * EPS) and curve.total == 60
    assert curve.correct == tuple(standing(radii, eps) for eps in curve.values)
    assert sweep_curve(evaluate(evaluator.logits, evaluator.data, BALL, attacks), 2) is None
