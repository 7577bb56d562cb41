"""Which settings go together in training, told before anything is read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from training_cases import Linear

from tfrobust.attacks.gradient import PGD
from tfrobust.config import NORMS, RunConfig, ThreatConfig, TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.runtime import keras
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.from_config import check_trainable, recipe_from

EPS = {"linf": 0.1, "l2": 0.5, "l1": 1.0, "l0": 2.0}


def config_of(method, norm):
    return RunConfig(threat=ThreatConfig(norm, EPS[norm]), training=TrainingConfig(method=method))


def test_nsl_and_l0_do_not_go_together():
    with pytest.raises(UsageError) as caught:
        check_trainable(config_of("nsl", "l0"))
    assert str(caught.value) == (
        "norm: the method nsl trains against linf, l2, l1, found 'l0': choose one of these, or "
        "another method, such as --method pgd."
    )


def test_the_single_step_of_fast_is_not_one_of_many():
    short = TrainingConfig(method="fast", step_size=0.02)
    with pytest.raises(UsageError, match=r"as eps \(0.1\), found 0.02: give"):
        check_trainable(RunConfig(threat=ThreatConfig(eps=0.1), training=short))
    for good in (replace(short, step_size=0.1), replace(short, step_size=None)):
        check_trainable(RunConfig(threat=ThreatConfig(eps=0.1), training=good))
    check_trainable(RunConfig(threat=ThreatConfig(eps=0.1), training=replace(short, method="pgd")))


OTHERS = [(m, n) for m in METHODS for n in NORMS if (m, n) != ("nsl", "l0")]


@pytest.mark.parametrize(("method", "norm"), OTHERS)
def test_what_is_not_refused_trains(linear_model, method, norm):
    config = config_of(method, norm)
    check_trainable(config)
    linear = Linear(linear_model)
    recipe = recipe_from(config.training, ThreatModel(norm, EPS[norm]), seed=0)
    recipe = replace(recipe, attack=PGD(steps=1, early_stop=False))
    wrapped = METHODS[method].step()(linear.model, recipe)
    wrapped.compile(keras.optimizers.SGD(0.1))
    assert np.isfinite(float(wrapped.train_step(linear.batch)["loss"]))
    assert np.any(linear.updated() != linear.weights.astype("float32"))


def test_the_check_needs_no_tensorflow():
    code = (
        "import sys\n"
        "from tfrobust.config import RunConfig\n"
        "from tfrobust.training.from_config import check_trainable\n"
        "check_trainable(RunConfig())\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
