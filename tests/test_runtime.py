"""TensorFlow is settled in each of the three ways that a program can meet it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfrobust.errors import TFRobustError
from tfrobust.runtime import environment, setup

ROOT = Path(__file__).resolve().parents[1]


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        env={**clean, "PYTHONPATH": str(ROOT), **env}, check=False,
    )  # fmt: skip


USE = (
    "from tfrobust.runtime import keras, nsl, tf; "
    "assert keras.layers.Dense is tf.keras.layers.Dense; "
    "print(keras.__name__, nsl.keras.AdversarialRegularization.__name__)"
)


@pytest.mark.slow
def test_works_when_tensorflow_was_not_yet_imported():
    done = run(USE)
    assert done.stdout.split() == ["tf_keras", "AdversarialRegularization"], done.stderr


def test_works_when_tensorflow_was_imported_with_legacy_keras():
    done = run(f"import tensorflow as first; {USE}; assert first is tf", TF_USE_LEGACY_KERAS="1")
    assert done.stdout.split() == ["tf_keras", "AdversarialRegularization"], done.stderr


NOTEBOOK = """
import tensorflow as tf, keras
import numpy as np
import tfrobust
from tfrobust.config import RunConfig
from tfrobust.explain import EXPLAINERS
from tfrobust.models.classifier import as_classifier, as_graph
from tfrobust.runtime import keras as legacy, nsl
from tfrobust.training.recipe import Recipe

assert tf.keras.layers.Dense is keras.layers.Dense  # TensorFlow stays what it was
layers = keras.layers
model = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(4, 3, activation="relu"),
                          layers.Flatten(), layers.Dense(3, activation="softmax")])
x = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype("float32")
graph = as_graph(as_classifier(model, x), x.shape[1:])
for name in EXPLAINERS:
    found = EXPLAINERS[name](graph, x, np.array([0, 1]))
    assert found.shape[:3] == (2, 16, 16) and np.isfinite(found).all(), name
assert issubclass(nsl.keras.AdversarialRegularization, legacy.Model)
assert "tf_keras" in legacy.__name__ and tf.keras.layers.Dense is keras.layers.Dense
print("done")
"""


def test_works_in_a_notebook_that_began_with_keras_3():
    done = run(NOTEBOOK)
    assert done.stdout.split() == ["done"], done.stderr


def test_importing_the_tables_does_not_import_tensorflow():
    done = run(
        "import sys, tfrobust; tfrobust.ATTACKS, tfrobust.METHODS, tfrobust.BACKBONES, "
        "tfrobust.DATASETS; print('tensorflow' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr


def test_other_minor_version_of_tf_keras_is_named(monkeypatch):
    from tfrobust import runtime

    found = {"tensorflow": "2.21.0", "tf_keras": "2.20.1"}
    monkeypatch.setattr(runtime, "_version", found.get)
    with pytest.raises(TFRobustError, match=r"tf_keras 2.20.1 does not match tensorflow 2.21.0"):
        runtime._check_versions()
    monkeypatch.setattr(runtime, "_version", lambda name: None)
    with pytest.raises(TFRobustError, match="not installed"):
        runtime._check_versions()


def test_setup_seeds_and_environment_tells_versions():
    from tfrobust.runtime import tf

    setup(seed=3)
    one = tf.random.uniform([4]).numpy()
    setup(seed=3)
    assert (one == tf.random.uniform([4]).numpy()).all()
    with pytest.raises(TFRobustError, match="float64"):
        setup(precision="float64")
    here = environment()
    assert here["packages"]["tensorflow"] == tf.__version__
    assert here["cpus"] == os.cpu_count()


def test_retracing_is_told_of_others_alone(caplog):
    from tfrobust.runtime import tf

    # TensorFlow counts by source, so each has its own.
    code = """
def trace_often(tf):
    for size in range(6):
        tf.function(lambda x: x + {number}, autograph=False)(tf.zeros([size]))
"""
    # A command that ran before in this process lets errors through alone.
    caplog.set_level("WARNING", logger="tensorflow")
    told = {}
    for number, name in enumerate(("tfrobust.attacks.mine", "mine")):
        module = {"__name__": name}
        exec(code.format(number=number), module)
        caplog.clear()
        module["trace_often"](tf)
        told[name] = [one for one in caplog.records if "retracing" in one.getMessage()]
    assert not told["tfrobust.attacks.mine"] and told["mine"]
