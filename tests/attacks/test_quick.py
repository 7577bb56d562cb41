"""The default suite: what it is in each norm, and how near AutoAttack on a real model."""

import numpy as np
import pytest

from tfrobust.attacks.autoattack import autoattack
from tfrobust.attacks.named import make_attacks
from tfrobust.attacks.quick import quick
from tfrobust.config import EvaluationConfig
from tfrobust.errors import UsageError
from tfrobust.evaluation.evaluate import cascade
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.threat_model import ThreatModel


def test_what_it_is_in_each_norm():
    for norm in ("linf", "l2", "l1"):
        assert list(quick(norm)) == ["fgsm", "pgd", "apgd-ce", "apgd-t"]
    assert list(quick("l0")) == ["fgsm", "pgd", "pgd-margin"]
    assert quick("linf", 10)["apgd-t"].loss == "dlr"
    assert quick("linf", 2)["apgd-t"].loss == quick("linf", 3)["apgd-t"].loss == "margin"


def test_it_is_the_default_and_takes_the_budget_of_its_pgd():
    default = make_attacks(EvaluationConfig())
    assert default == quick("linf")
    given = make_attacks(EvaluationConfig(steps=7, restarts=1), 10, "l0")
    assert (given["pgd"].steps, given["pgd"].restarts, given["pgd-margin"].steps) == (7, 1, 7)
    with pytest.raises(UsageError):
        make_attacks(EvaluationConfig(attacks=("quick:steps=3",)))


@pytest.mark.slow
@pytest.mark.parametrize("eps", [2 / 255, 8 / 255])
def test_it_is_near_autoattack_on_the_reference_model(eps, shared_data):
    from tfrobust.data import load_all
    from tfrobust.models.opening import load_any

    images = load_all(str(shared_data / "reference/cifar10_test_500.npz"))
    images = images.subset(np.arange(0, 500, 12))
    evaluator = Evaluator(load_any(shared_data / "reference/resnet2b.h5"), images)
    ball = ThreatModel("linf", eps)
    # FAB and Square find nothing more on this model: the two first take its worst case.
    published = dict(list(autoattack("standard", 10).items())[:2])
    ours, full = (cascade(evaluator, suite, ball) for suite in (quick("linf", 10), published))
    assert int((ours[-1].outcome.correct & ~full[-1].outcome.correct).sum()) <= 1
    cost = [sum(result.gradient_evaluations for result in one) for one in (ours, full)]
    assert cost[0] <= cost[1] / 4
