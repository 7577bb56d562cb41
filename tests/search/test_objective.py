"""How one trial is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tfrobust.config import RunConfig, ThreatConfig, TrainingConfig
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.run import RunFolder
from tfrobust.search import objective as objective_module
from tfrobust.search.objective import Training, robust_accuracy

EPS = 0.1
CONFIG = RunConfig(
    threat=ThreatConfig(eps=EPS),
    training=TrainingConfig(select_limit=200, select_steps=10, batch_size=16),
)
# Of two classes the linear model's margin is the mean pixel's distance from 1/2 times 2 * 12.
WEIGHTS = np.stack([-np.ones(12), np.ones(12)], axis=1)
BIAS = np.array([6.0, -6.0])


def images(count):
    """Images of one grey each, of the class 'bright' or 'dark', most of them away from 1/2."""
    grey = np.random.default_rng(0).integers(51, 205, count)
    pixels = np.broadcast_to(grey[:, None, None, None], (count, 2, 2, 3)).astype("uint8")
    return ImageSet(pixels, (grey > 127).astype("int32"), ("dark", "bright"))


def closed_form(data):
    """What no attack of linf radius EPS can change: it moves the mean by EPS, no further."""
    return float(np.mean(np.abs(data.images[:, 0, 0, 0] / 255 - 0.5) > EPS))


@pytest.fixture
def measured(monkeypatch, tmp_path, linear_model):
    """'robust' of a trial whose history says 0.9, of a model with a known answer."""

    from tfrobust.backbones.precision import in_float32

    def fitted(model, splits, config, run, report):
        in_float32(model).save(run.best_model, save_format="keras")
        return {"select_pgd": 0.9, "epoch": 3}

    monkeypatch.setattr(objective_module, "_fit", fitted)
    data = images(60)
    splits = Splits(data, data, data, ReadLog())
    run = RunFolder(tmp_path / "0000")
    run.create()

    def measure(search, trial):
        training = Training(
            search, load=lambda *_: splits, build=lambda *_: linear_model(WEIGHTS, BIAS)
        )
        return training(trial, run, lambda *_: False)["robust"]

    return measure


def with_precision(precision):
    return replace(CONFIG, training=replace(CONFIG.training, precision=precision))


def test_the_history_tells_the_robust_accuracy_of_a_float32_trial(measured):
    assert measured(CONFIG, CONFIG) == 0.9
    # Also where the recipe's other trials are mixed: its epochs were measured in float32.
    assert measured(with_precision("mixed_bfloat16"), CONFIG) == 0.9


@pytest.mark.parametrize("recipe", ["mixed_bfloat16", "float32"])
def test_with_mixed_precision_the_kept_float32_model_is_measured(recipe, measured):
    expected = closed_form(images(60))
    assert 0.3 < expected < 0.8
    found = measured(with_precision(recipe), with_precision("mixed_bfloat16"))
    assert found == pytest.approx(expected)


def test_another_ball_than_the_searchs_is_measured_anew_in_the_searchs(measured):
    trial = replace(CONFIG, threat=ThreatConfig(eps=0.001))
    assert measured(CONFIG, trial) == pytest.approx(closed_form(images(60)))


@pytest.mark.parametrize("limit", [20, 60, 500])
def test_the_images_and_their_order_are_those_of_fit(limit, monkeypatch, linear_model):
    from tfrobust.data import pipeline

    seen, batches = [], pipeline.evaluation_batches

    def spy(data, size):
        seen.append((data, size))
        return batches(data, size)

    monkeypatch.setattr(pipeline, "evaluation_batches", spy)
    data = images(60)
    config = replace(CONFIG, training=replace(CONFIG.training, select_limit=limit))
    found = robust_accuracy(linear_model(WEIGHTS, BIAS), data, config)
    ((chosen, size),) = seen
    expected = data.sample(limit, config.seed)
    np.testing.assert_array_equal(chosen.images, expected.images)
    np.testing.assert_array_equal(chosen.labels, expected.labels)
    assert size == 16 and found == pytest.approx(closed_form(expected))
