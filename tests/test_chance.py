"""What guessing reaches, by hand."""

import math

import numpy as np
import pytest

from tfrobust.chance import above_chance, guessing_loss, majority_rate


def test_guessing_by_hand():
    labels = np.array([0, 0, 0, 1], np.int32)
    assert majority_rate(labels) == 0.75
    assert guessing_loss(labels) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert guessing_loss(range(10)) == pytest.approx(math.log(10))
    # A class without images changes nothing; no labels at all are no majority.
    assert majority_rate([0, 2, 2, 0]) == 0.5 and majority_rate([]) == 0.0


@pytest.mark.parametrize(
    ("correct", "total", "rate", "above"),
    [
        # 100 coin flips of 1 in 10: P(at least 18) = .010, P(at least 19) = .0046.
        (17, 100, 0.1, False),
        (19, 100, 0.1, True),
        (2, 2, 0.5, False),
        (100, 100, 1.0, False),
        (0, 0, 0.1, False),
    ],
)
def test_above_chance_is_a_binomial_test(correct, total, rate, above):
    assert above_chance(correct, total, rate) is above
