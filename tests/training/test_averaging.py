"""Weight averages: their formula, and that they are what is measured and kept."""

from __future__ import annotations

import numpy as np
import pytest
from training_cases import FGSM_STEP, batch_of, make

from tfrobust.training.averaging import Averages


def test_averages_by_hand(linear_model):
    model = linear_model(np.zeros((12, 2)), np.zeros(2))
    bias = model.get_layer("logits").bias
    averages = Averages(model, 0.24)
    # After step 1 the decay is min(.24, 2/11) = .18182: 0 + .81818 * 1.
    bias.assign([1.0, 0.0])
    averages.update(1)
    # After step 2 it is min(.24, 3/12) = .24: .81818 + .76 * (2 - .81818) = 1.71636.
    bias.assign([2.0, 0.0])
    averages.update(2)
    with averages.in_place():
        np.testing.assert_allclose(bias, [1.71636, 0.0], atol=1e-5)
    np.testing.assert_array_equal(bias, [2.0, 0.0])
    with pytest.raises(RuntimeError), averages.in_place():
        raise RuntimeError
    np.testing.assert_array_equal(bias, [2.0, 0.0])


def test_a_step_averages_weights_and_statistics(small_cnn):
    model = small_cnn()
    wrapped, expected = make("pgd", model, attack=FGSM_STEP, ema=0.9), model.get_weights()
    for t in (1, 2, 3):
        wrapped.train_step(batch_of(seed=t))
        decay = (1 + t) / (10 + t)
        expected = [
            decay * e + (1 - decay) * w for e, w in zip(expected, model.get_weights(), strict=True)
        ]
    with wrapped.kept():
        found = model.get_weights()
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    # BatchNorm's statistics, which no gradient moves, are among them.
    assert any(np.any(a != b) for a, b in zip(found[3:5], model.get_weights()[3:5], strict=True))


def test_averaging_changes_nothing_in_training_itself(small_cnn):
    found = []
    for ema in (0.0, 0.9):
        model = small_cnn()
        wrapped = make("trades", model, attack=FGSM_STEP, ema=ema)
        for _ in range(2):
            wrapped.train_step(batch_of())
        found.append(model.get_weights())
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
