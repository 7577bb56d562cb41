"""What `pipelines.train` will do: told by --help, chosen for the images, kept by --resume."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines import train
from tfrobust.cli.plans import make_plan
from tfrobust.errors import UsageError
from tfrobust.run import RunFolder


def plan_of(*words):
    return make_plan(train.make_parser().parse_args(list(words)))


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        train.main([*words, "--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_shows_the_values_that_are_used(capsys):
    digits = help_of(capsys)
    config = plan_of().config
    training = config.training
    weight = training.method.settings["clean_weight"]
    assert config.backbone.alpha == 0.35 and "0.35)" in digits
    for text in (f"optimiser (default: {training.optimizer})", "(default: 0.05)",
                 f"loss on clean images (default: {weight:g})"):  # fmt: skip
        assert text in digits
    recipe = help_of(capsys, "--recipe", "cifar10_30min")
    assert "optimiser (default: sgd)" in recipe and "(default: 8/255)" in recipe
    own = help_of(capsys, "--dataset", "some/folder", "--eps", "4/255")
    assert "(default: 4/255)" in own and "chosen, such as" in own
    assert "seed of split, initial weights, batches and attacks (default: 42)" in own


def test_digits_with_another_network_has_the_ball_of_the_digits():
    plan = plan_of("--backbone", "resnet18")
    assert plan.chosen and plan.config.threat.eps == 0.05
    assert plan_of("--backbone", "mobilenetv2") == plan_of()
    assert not plan_of().chosen


def test_wrong_combinations_are_wrong_use():
    for words in (
        ["--epochs", "3", "--time-limit", "2"],
        ["--recipe", "digits", "--backbone", "auto"],
        ["--recipe", "tiny_imagenet", "--epochs", "1"],
        ["--dataset", "some/folder", "--method", "nsl", "--norm", "l0", "--eps", "5"],
        ["--dataset", "some/folder", "--train-step-size", "1/255"],
        ["--dataset", "some/folder", "--backbone", "resnet50", "--alpha", "-1"],
        ["--dataset", "some/folder", "--backbone", "missing.keras"],
    ):
        with pytest.raises(UsageError):
            plan_of(*words)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Bright and dark images in two folders, which anything learns."""
    folder, random = tmp_path_factory.mktemp("own") / "images", np.random.default_rng(0)
    for name, low in (("bright", 150), ("dark", 0)):
        (folder / name).mkdir(parents=True)
        for i in range(60):
            pixels = random.integers(low, low + 100, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


FAST = [
    "--no-figures",
    "--attack",
    "fgsm",
    "--steps",
    "2",
    "--restarts",
    "1",
    "--sweep",
    "none",
    "--eps",
    "2/255",
]


@pytest.mark.slow
def test_own_images_without_a_flag_of_training(pictures, tmp_path, capfd):
    run = RunFolder(tmp_path / "run")
    words = [*FAST, "--dataset", str(pictures), "--epochs", "12", "--output", str(run.path)]
    assert train.main(words) == 0
    said = capfd.readouterr()
    config = run.read_config()
    assert config.backbone.name == "resnet18" and config.chosen
    for line in config.chosen:
        assert line in said.out
    assert "A step takes" in said.out
    # What was chosen stands in the file, for people too.
    assert yaml.safe_load(run.config.read_text())["chosen"] == list(config.chosen)
    report = json.loads(run.evaluation.read_text())
    assert report["clean_accuracy"] > 0.9 and not report["unreliable"]
    # The run goes on with its settings, whatever would be chosen now.
    assert train.main(["--resume", "--output", str(run.path)]) == 0
    assert train.main([*words, "--resume", "--alpha", "0.5"]) == 2


@pytest.mark.slow
def test_a_model_that_has_learnt_nothing_is_not_handed_over(pictures, tmp_path, capfd):
    shuffled = tmp_path / "shuffled"
    random = np.random.default_rng(1)
    for file in sorted(pictures.rglob("*.png")):
        name = ("bright", "dark")[int(random.integers(2))]
        (shuffled / name).mkdir(parents=True, exist_ok=True)
        (shuffled / name / f"{file.parent.name}{file.name}").symlink_to(file)
    folder = tmp_path / "run"
    words = [*FAST, "--dataset", str(shuffled), "--backbone", "simplenet", "--epochs", "3"]
    assert train.main([*words, "--output", str(folder)]) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: The model has learnt nothing")
    assert not (folder / "1").exists()
    flags = json.loads((folder / "evaluation.json").read_text())["flags"]
    assert "no_better_than_guessing" in [flag["name"] for flag in flags]
    again = [*words, "--output", str(tmp_path / "anyway"), "--export-anyway"]
    assert train.main(again) == 0
    assert (tmp_path / "anyway" / "1" / "saved_model.pb").is_file()
