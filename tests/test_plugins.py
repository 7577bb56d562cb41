"""Plug-ins of the user's own: a place 'package.module:name', or an installed entry point."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from pipelines import evaluate, train
from tfrobust.attacks import ATTACKS
from tfrobust.attacks.named import make_attacks
from tfrobust.backbones import BACKBONES, build
from tfrobust.cli.plans import make_plan
from tfrobust.config import BackboneConfig, EvaluationConfig, RunConfig, TrainingConfig
from tfrobust.data import load
from tfrobust.errors import UsageError
from tfrobust.plugins import Choice, configured, parse, split
from tfrobust.run import RunFolder
from tfrobust.settings import from_dict, save_yaml, to_dict
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

def features(x, *, depth: int = 1, alpha: float = 1.0):
    from tfrobust.runtime import keras
    for place in range(1, depth):
        x = keras.layers.Conv2D(8, 3, padding="same", name=f"deep_{place}")(x)
    x = keras.layers.Conv2D(8 * alpha, 3, strides=2, activation="relu", name="first")(x)
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


def test_an_attack_s_settings_stand_after_commas_too():
    words = EvaluationConfig(attacks=("fgsm", "pgd:steps=5", "restarts=3"))  # split at commas
    assert (make_attacks(words)["pgd"].steps, make_attacks(words)["pgd"].restarts) == (5, 3)


def test_a_data_set_by_its_place(module):
    splits = load(f"{module}:images")
    assert splits.train.image_shape == (32, 32, 3) and len(splits.test) == 16


def test_a_network_by_its_place(module):
    model = build(f"{module}:features", num_classes=3, image_shape=(32, 32, 3))
    assert model.name == "features" and model.output_shape == (None, 3)
    assert {"first", "second", "logits"} <= {layer.name for layer in model.layers}


def test_a_network_s_own_settings(module):
    name = f"{module}:features"
    flag = BackboneConfig(**BackboneConfig.folded({"name": f"{name}:depth=3,width=0.5"}))
    yaml_s = from_dict(RunConfig, {"backbone": {"name": name, "depth": 3, "alpha": 0.5}}).backbone
    assert flag == yaml_s and flag.settings == {"depth": 3} and flag.alpha == 0.5
    assert from_dict(RunConfig, to_dict(RunConfig(backbone=flag))).backbone == flag
    model = build(name, num_classes=3, image_shape=(32, 32, 3), alpha=0.5, depth=3)
    assert model.get_layer("deep_2") and model.get_layer("first").filters == 4
    for wrong in ({"dept": 3}, {"depth": "x"}):
        with pytest.raises(UsageError, match="depth"):
            from_dict(RunConfig, {"backbone": {"name": name, **wrong}})
    with pytest.raises(UsageError, match="expected it once"):
        BackboneConfig.folded({"name": "vit:width=0.5", "alpha": 0.25})
    with pytest.raises(UsageError, match="Did you mean 'stem'"):
        build("resnet18", num_classes=3, image_shape=(32, 32, 3), stam="small")


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


THEIRS = '''
from dataclasses import dataclass
from typing import ClassVar
from tfrobust.settings import setting
from tfrobust.training.methods import Method

@dataclass(frozen=True, kw_only=True)
class Theirs(Method):
    """Cross-entropy on x_adv, gamma times."""
    place: ClassVar[str] = "their_methods:Step"
    gamma: float = setting(1.0, "factor on the loss", above=0)

def features(x):
    from tfrobust.runtime import keras
    return keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)

def __getattr__(name):
    if name != "Step":
        raise AttributeError(name)
    from tfrobust.training.pgd import AdversarialTraining

    class Step(AdversarialTraining):
        def losses_of(self, x, x_adv, y):
            terms = super().losses_of(x, x_adv, y)
            return {**terms, "loss": self.settings.gamma * terms["loss"]}

        def loss_of_guessing(self, entropy):
            return self.settings.gamma * entropy

    return Step
'''
SETUP = """
from setuptools import setup
setup(name="their-methods", version="1.0", py_modules=["their_methods"],
      entry_points={"tfrobust.methods": ["theirs = their_methods:Theirs"]})
"""


@pytest.fixture(scope="module")
def their_package(tmp_path_factory):
    """A package with a method, installed by pip into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "their_methods.py").write_text(THEIRS)
    (source / "setup.py").write_text(SETUP)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
               "--no-build-isolation", "--target", str(target), str(source)]  # fmt: skip
    subprocess.run(command, check=True)
    return target


@pytest.fixture
def their_method(their_package, monkeypatch):
    """Inside of the test the package is installed."""
    monkeypatch.syspath_prepend(str(their_package))
    METHODS.__dict__.pop("_further", None)
    yield "theirs"
    METHODS.__dict__.pop("_further", None)


def job_on_digits(folder, *words):
    """The exit code of the main job, of one step on the digits."""
    return train.main([
        "--dataset", "digits", "--limit-train", "64", "--batch-size", "64", "--train-steps", "1",
        "--backbone", "their_methods:features", "--resize", "32", "--stages", "all:1:0.01",
        "--attack", "fgsm", "--limit", "20", "--sweep", "none", "--select-limit", "16",
        "--eps-ramp", "0", "--clean-start", "0", "--no-figures", "--export-anyway",
        "--output", str(folder), *words,
    ])  # fmt: skip


def test_a_method_of_an_installed_package_has_its_setting_in_the_loss(their_method, tmp_path):
    losses = []
    for gamma in (1, 2):
        run = tmp_path / str(gamma)
        assert job_on_digits(run, "--method", f"{their_method}:gamma={gamma}") == 0
        with (run / "history.csv").open() as file:
            losses.append(float(next(csv.DictReader(file))["loss"]))
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["training"]["method"] == {"name": "theirs", "gamma": gamma}
    # One step: the same weights, the same images, twice the loss.
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-4)


def test_its_setting_is_checked_and_its_run_opens_without_it(their_method, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        job_on_digits(tmp_path, "--method", f"{their_method}:gama=2")
    assert "Did you mean 'gamma'" in capsys.readouterr().err
    with pytest.raises(UsageError):
        METHODS[their_method](gamma=-1.0)
    run = RunFolder(tmp_path)
    save_yaml(RunConfig(training=TrainingConfig(method="theirs:gamma=2")), run.config)
    METHODS._further = {}  # the package is gone
    assert run.read_config().training.method == Choice("theirs", {"gamma": 2.0})


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


@pytest.mark.parametrize("library", [pytest.param("tf_keras", marks=pytest.mark.slow), "keras"])
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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("trades", ("trades", {})),
        ("trades:beta=6", ("trades", {"beta": "6"})),
        ("trades:beta=6,awp=0.01", ("trades", {"beta": "6", "awp": "0.01"})),
        ("pgd:steps=50:step_size=2/255", ("pgd", {"steps": "50", "step_size": "2/255"})),
        ("mine.module:Twice:steps=3", ("mine.module:Twice", {"steps": "3"})),
        ("mine.module:Twice", ("mine.module:Twice", {})),
    ],
)
def test_a_plug_in_as_it_is_written(text, found):
    assert parse(text, METHODS) == found


@pytest.mark.parametrize("text", ["trades:beta", "trades:beta=", "trades:=6", ":beta=6",
                                  "trades:beta=6:beta=7"])  # fmt: skip
def test_what_is_no_setting_is_told(text):
    with pytest.raises(UsageError):
        parse(text, METHODS)


def test_several_plug_ins_are_split_where_a_name_begins():
    assert split("smoothgrad:samples=50,noise=0.1, gradcam,") == [
        "smoothgrad:samples=50:noise=0.1", "gradcam"]  # fmt: skip


def test_settings_have_the_types_of_the_fields():
    made = configured(ATTACKS["pgd"], {"steps": "3", "step_size": "2/255", "targeted": "true"}, "")
    assert (made.steps, made.step_size, made.targeted) == (3, 2 / 255, True)
    assert configured(ATTACKS["pgd"], {"step_size": "none"}, "").step_size is None
    for wrong in ({"steps": "2.5"}, {"steps": True}, {"targeted": "yes"}, {"loss": 3}, {"step": 1}):
        with pytest.raises(UsageError):
            configured(ATTACKS["pgd"], wrong, "")


def test_the_same_setting_by_flag_by_text_and_in_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {method: {name: trades, beta: 3}}")
    (tmp_path / "older.yaml").write_text("training: {method: trades, beta: 3, blend: 0.7}")
    flags = [["--method", "trades:beta=3"], ["--method", "trades", "--beta", "3"],
             ["--method", "trades:beta=3", "--beta", "3.0"],
             ["--recipe", str(tmp_path / "mine.yaml")], ["--recipe", str(tmp_path / "older.yaml")],
             ["--recipe", str(tmp_path / "older.yaml"), "--method", "trades"]]  # fmt: skip
    for words in flags:
        args = train.make_parser().parse_args(["--dataset", "some/folder", *words])
        method = make_plan(args).config.training.method
        assert method == Choice("trades", {"awp": 0.0, "beta": 3.0}), words
    args = train.make_parser().parse_args([
        "--recipe", str(tmp_path / "mine.yaml"), "--beta", "4"])  # fmt: skip
    # A flag goes before the recipe; the settings of one method are not another's.
    assert make_plan(args).config.training.method.settings["beta"] == 4.0
    args = train.make_parser().parse_args([
        "--recipe", str(tmp_path / "mine.yaml"), "--method", "mart"])  # fmt: skip
    assert make_plan(args).config.training.method.settings["beta"] == 6.0


@pytest.mark.parametrize(
    "words",
    [["--method", "trades:beta=3", "--beta", "4"], ["--method", "standard", "--beta", "3"],
     ["--backbone", "resnet18:width=0.5", "--alpha", "0.25"],
     ["--backbone", "resnet18:depth=3"]],
)  # fmt: skip
def test_settings_that_disagree_or_are_another_plug_in_s_are_wrong_use(words):
    args = train.make_parser().parse_args(["--dataset", "some/folder", *words])
    with pytest.raises(UsageError):
        make_plan(args)


def test_a_configuration_of_before_opens_as_it_was():
    older = {"method": "pgd", "clean_weight": 1.0, "adv_weight": 1.0, "split_batch": False,
             "beta": 6.0, "blend": 0.5, "adv_probability": 0.5, "fgsm_eps": 0.01, "noise_std": 0.25,
             "crafting": "nfgsm", "noise_reach": 1.5, "awp": 0.01}  # fmt: skip
    found = from_dict(RunConfig, {"training": older}).training.method
    assert found == Choice("pgd", {"crafting": "nfgsm", "noise_reach": 1.5, "awp": 0.01})
    # The resolved configuration shows the settings, and reads as it is written.
    config = RunConfig(training=TrainingConfig(method=found))
    assert to_dict(config)["training"]["method"] == {"name": "pgd", **found.settings}
    assert from_dict(RunConfig, to_dict(config)) == config
