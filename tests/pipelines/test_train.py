"""The main job and the verbs after it, as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import evaluate, explain, export, train
from tfrobust.cli.plans import make_plan
from tfrobust.jobs import taking_part
from tfrobust.runtime import keras

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--backbone", "simplenet", "--limit-train", "160", "--epochs", "3",
    "--limit", "40", "--steps", "3", "--restarts", "1", "--sweep", "0.1", "--select-limit", "40",
    "--select-steps", "2", "--flip", "--gaussian-noise", "0.02", "--no-figures",
    # Nine steps teach it nothing.
    "--export-anyway",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the main command, uninterrupted, in its own process."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = command([*SMALL, "--output", str(folder)])
    assert done.returncode == 0, done.stderr
    return folder, done


def command(args):
    return subprocess.run(
        [sys.executable, "-m", "pipelines.train", *args], cwd=ROOT, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


def test_leaves_everything_that_a_later_verb_needs(run):
    folder, done = run
    for name in (
        "config.yaml",
        "environment.json",
        "history.csv",
        "evaluation.json",
        "predictions.csv",
        "model_card.md",
        "checkpoints/best.keras",
        "tensorboard",
        "figures/data.png",
        "figures/curves.png",
        "leaderboard.json",
        "1/saved_model.pb",
    ):
        assert (folder / name).exists(), name
    assert "Traceback" not in done.stderr and "absl" not in done.stderr
    assert len(list(csv.DictReader((folder / "history.csv").open()))) == 3
    report = json.loads((folder / "evaluation.json").read_text())
    attacks = report["attacks"]
    assert list(attacks) == ["fgsm", "pgd", "apgd-ce", "apgd-t"]
    assert attacks["pgd"]["parameters"]["steps"] == 3
    assert report["num_examples"] == 40 and report["threat_model"]["eps"] == 0.05
    lowest = min(attack["accuracy"] for attack in attacks.values())
    assert report["robust_accuracy"] <= lowest <= report["clean_accuracy"]
    assert json.loads((folder / "environment.json").read_text())["seed"] == 42


def test_predictions_are_those_of_the_kept_model(run):
    from tfrobust.jobs.images import load_splits
    from tfrobust.run import RunFolder

    folder, _ = run
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    test = load_splits(RunFolder(folder).read_config().data, 42).test
    index = [test.names.index(row["image"]) for row in rows]
    model = keras.models.load_model(folder / "checkpoints" / "best.keras", compile=False)
    logits = model(test.images[index].astype("float32") / 255, training=False)
    assert [int(row["clean_prediction"]) for row in rows] == np.argmax(logits, axis=1).tolist()


def test_later_verbs_work_on_the_run_folder(run, capfd):
    folder, _ = run
    before = json.loads((folder / "evaluation.json").read_text())
    # Images enough for some to be right: only these are shown under attack.
    again = ["--eps", "30/255", "--limit", "100", "--attack", "fgsm", "--figures"]
    assert evaluate.main([str(folder), *again, "--reference", str(folder)]) == 0
    after = json.loads((folder / "evaluation.json").read_text())
    assert after["threat_model"]["eps_text"] == "30/255" and after["num_examples"] == 100
    assert set(after["attacks"]) == {"fgsm"} and before["num_examples"] == 40
    for name in ("accuracy_against_eps", "per_class", "confusion", "triples", "path_pixel"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    # The reference is the model itself: both see the same images.
    assert len(set(after["transfer"]["accuracy"].values())) == 1
    assert not (folder / "figures" / "saliency.png").exists()
    assert explain.main([str(folder), "--per-group", "1", "--class-images", "0"]) == 0
    for name in ("saliency", "overlay", "top5", "maps", "feature_maps", "channels"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    assert export.main([str(folder), "--version", "2", "--export-anyway"]) == 0
    assert (folder / "2" / "saved_model.pb").is_file()
    told = re.findall(r"^UNRELIABLE, (\w+):", capfd.readouterr().out, re.M)
    assert told[-len(after["flags"]) :] == [flag["name"] for flag in after["flags"]]
    # One FGSM is no evaluation, and is told so.
    assert "no_iterative_attack" in told and after["unreliable"]


def test_bare_model_file_and_own_images(run, tmp_path):
    folder, _ = run
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8), np.arange(30) % 10
    np.savez(tmp_path / "own.npz", x=x, y=y)
    model = folder / "checkpoints" / "best.keras"
    args = [str(model), "--dataset", str(tmp_path / "own.npz"), "--attack", "fgsm"]
    # The figures are drawn, and looked for, by the test before.
    assert evaluate.main([*args, "--output", str(tmp_path / "out"), "--no-figures"]) == 0
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["threat_model"]["eps_text"] == "8/255"


def test_a_resolved_config_can_be_run_again(run):
    folder, _ = run
    args = train.make_parser().parse_args(["--recipe", str(folder / "config.yaml")])
    again = make_plan(args).config
    from tfrobust.run import RunFolder

    assert again == RunFolder(folder).read_config()


def test_finished_run_is_not_overwritten(run, capsys):
    folder, _ = run
    assert train.main([*SMALL, "--output", str(folder)]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert train.main(["--resume", "--eps", "0.2", "--output", str(folder)]) == 2
    assert "uses the settings" in capsys.readouterr().err


VERBS = ("train", "evaluate", "perturb", "predict", "explain", "export", "search", "report",
         "serve")  # fmt: skip


def test_help_needs_no_tensorflow():
    code = (
        f"import importlib, sys\nfor name in {VERBS}:\n"
        "    verb = importlib.import_module(f'pipelines.{name}')\n"
        "    try: verb.main(['--help'])\n    except SystemExit as stop: assert stop.code == 0\n"
        "    assert 'tensorflow' not in sys.modules, name"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"usage: python -m pipelines.{verb} " in done.stdout, verb


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--eps", "-1"], "expected at least 0"),
        (["--recipe", "nothing"], "Recipe 'nothing': expected one of"),
        (["--dataset", "no/such/path"], "no such name and no such path"),
        (["--recipe", "tiny_imagenet", "--epochs", "1"], "run of one stage"),
        (["--stages", "head:0:1"], "epochs: expected at least 1"),
        (["--attack", "none"], "expected at least one attack or suite, found none"),
        (["--norm", "l0", "--eps", "5"], "nsl trains against linf, l2, l1, found 'l0'"),
    ],
)
def test_wrong_use_is_exit_code_2_in_one_sentence(args, message, tmp_path, capsys):
    try:
        code = train.main([*args, "--output", str(tmp_path / "run")])
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2 and message in err and "Traceback" not in err


def test_unknown_names_list_the_choices(capsys):
    for args in (["--backbone", "vgg"], ["--method", "magic"], ["--norm", "l7"], ["--nonsense"]):
        with pytest.raises(SystemExit) as stop:
            train.main(args)
        assert stop.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_missing_model_and_missing_dataset_are_wrong_use(tmp_path, capsys):
    assert evaluate.main([str(tmp_path / "nothing.keras"), "--dataset", "digits"]) == 2
    assert "not found" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    (tmp_path / "model.keras").write_bytes(b"not a model")
    assert evaluate.main([str(tmp_path / "model.keras")]) == 2
    assert "--data" in capsys.readouterr().err
    args = [str(tmp_path / "model.keras"), "--dataset", "digits"]
    assert evaluate.main(args) == 1
    assert "cannot be read by tf_keras" in capsys.readouterr().err


def test_unexpected_failure_is_one_sentence_and_debug_shows_more(monkeypatch, tmp_path, capsys):
    def fail(*args):
        raise RuntimeError("something\nunforeseen")

    monkeypatch.setattr(taking_part, "_join", fail)
    assert train.main(["--output", str(tmp_path / "a")]) == 1
    assert capsys.readouterr().err.strip() == (
        "error: Unexpected RuntimeError: something unforeseen (--debug shows where it came from)"
    )
    with pytest.raises(RuntimeError):
        train.main(["--debug", "--output", str(tmp_path / "b")])
