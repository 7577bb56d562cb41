"""Plug-ins of the user's own: a place 'package.module:name', or an installed entry point."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines import evaluate, train
from tfrobust.attacks import ATTACKS
from tfrobust.attacks.named import make_attacks
from tfrobust.backbones import BACKBONES, build
from tfrobust.config import EvaluationConfig
from tfrobust.data import load
from tfrobust.errors import UsageError
from tfrobust.tables import Table
from tfrobust.training import METHODS

MODULE = '''
from dataclasses import dataclass
import numpy as np
from tfrobust.attacks.gradient import PGD
from tfrobust.training.pgd import AdversarialTraining

@dataclass(frozen=True, kw_only=True)
class Twice(PGD):
    """PGD of twice the steps."""
    factor: int = 2

    def __call__(self, model, x, y, ball, seed):
        return PGD(steps=self.factor * self.steps)(model, x, y, ball, seed)

def features(x):
    from tfrobust.runtime import keras
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first")(x)
    return keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="second")(x)

class Mine(AdversarialTraining):
    """Adversarial training under another name."""

def images(location, options):
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = rng.integers(0, 120, (80, 32, 32, 3)) + 120 * y[:, None, None, None]
    return x.astype("uint8"), y
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "plugs_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "plugs_of_mine"


def test_an_attack_by_its_place(module):
    names = ("fgsm", f"{module}:Twice:steps=3:factor=4")
    found = make_attacks(EvaluationConfig(attacks=names))
    assert list(found) == ["fgsm", f"{module}:Twice"]
    assert found[f"{module}:Twice"].factor == 4 and found[f"{module}:Twice"].steps == 3


def test_a_data_set_by_its_place(module):
    splits = load(f"{module}:images")
    assert splits.train.image_shape == (32, 32, 3) and len(splits.test) == 16


def test_a_network_by_its_place(module):
    model = build(f"{module}:features", num_classes=3, image_shape=(32, 32, 3))
    assert model.name == "features" and model.output_shape == (None, 3)
    assert {"first", "second", "logits"} <= {layer.name for layer in model.layers}


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_such_module:x", "no module 'no_such_module'"), ("json:nothing", "json has no 'nothing'"),
     ("mobilenetv3", "Did you mean 'mobilenetv2'")],
)  # fmt: skip
def test_what_is_not_there_is_told(name, message):
    with pytest.raises(UsageError, match=message):
        BACKBONES[name]


def test_an_entry_point_of_an_installed_package(module, tmp_path):
    info = tmp_path / "plugs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tfrobust.attacks]\ntwice = {module}:Twice\n")
    table = Table("attack", {"pgd": "tfrobust.attacks.gradient:PGD"}, "tfrobust.attacks")
    assert list(table) == ["pgd", "twice"] and "twice" in table
    assert table["twice"].__name__ == "Twice"


def test_the_main_job_with_all_of_them(module, tmp_path):
    output = tmp_path / "run"
    flags = {
        "--dataset": f"{module}:images", "--backbone": f"{module}:features",
        "--method": f"{module}:Mine", "--attack": f"fgsm,{module}:Twice:steps=2",
        "--stages": "all:4:0.01", "--optimizer": "adam", "--eps": "2/255", "--output": output,
        "--sweep": "none", "--resize": "32",
    }  # fmt: skip
    words = [str(word) for pair in flags.items() for word in pair]
    assert train.main([*words, "--no-figures"]) == 0
    found = json.loads((output / "evaluation.json").read_text())
    assert found["clean_accuracy"] > 0.9 and f"{module}:Twice" in found["attacks"]
    assert (output / "1" / "saved_model.pb").is_file()
    again = [str(output), "--attack", "fgsm", "--no-figures", "--output", str(tmp_path / "again")]
    assert evaluate.main(again) == 0


def test_names_of_the_tables_stay_first():
    assert next(iter(ATTACKS)) == "uniform-noise" and next(iter(METHODS)) == "nsl"
    assert np.all([name in ATTACKS for name in ATTACKS])


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_a_network_of_one_s_own_in_a_file(module, tmp_path, library):
    made = pytest.importorskip(library)
    layers = made.layers
    inner = made.Sequential([made.Input((32, 32, 3)), layers.Conv2D(8, 3, strides=2),
                             layers.BatchNormalization(), layers.ReLU()])  # fmt: skip
    image = made.Input((32, 32, 3))
    x = layers.Flatten()(inner(layers.Rescaling(1 / 255)(image)))
    made.Model(image, layers.Dense(2, activation="softmax")(x)).save(tmp_path / "mine.keras")
    output = tmp_path / "run"
    words = ["--backbone", tmp_path / "mine.keras", "--dataset", f"{module}:images", "--method",
             "pgd", "--stages", "head:1:0.01,all:12:0.01", "--eps", "2/255", "--attack", "fgsm",
             "--output", output, "--no-figures", "--sweep", "none",
             "--batch-size", "8"]  # fmt: skip
    assert train.main([str(word) for word in words]) == 0
    found = json.loads((output / "evaluation.json").read_text())
    assert found["clean_accuracy"] > 0.9 and (output / "1" / "saved_model.pb").is_file()
