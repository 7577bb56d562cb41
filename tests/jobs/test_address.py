"""`evaluate` of a model that is only an address, as a command and as a job."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
from rest_server import Server

from tfrobust import jobs
from tfrobust.cli.main import main
from tfrobust.config import EvaluationConfig
from tfrobust.run import RunFolder
from tfrobust.runtime import tf


@pytest.fixture
def file(run):
    return run.best_model


@pytest.fixture
def served(file):
    """The same network in NumPy."""
    from tfrobust.runtime import keras

    model = keras.models.load_model(file)
    weights, bias = model.layers[-1].get_weights()

    def answer(x):
        logits = x.mean(axis=(1, 2)) @ weights + bias
        return {"predictions": [{"logits": row.tolist()} for row in logits]}

    with Server(answer).running() as server:
        yield server


def measured(model, images, output, *more):
    args = [
        "evaluate", str(model), "--data", str(images), "--eps", "0.1", "--eval-batch-size", "32",
        "--output", str(output), "--no-figures", *more,
    ]  # fmt: skip
    assert main(args) == 0
    return json.loads((output / "evaluation.json").read_text())


def test_the_command_finds_what_it_finds_on_the_file(served, file, images, tmp_path, capsys):
    bare = tmp_path / "bare.keras"
    bare.write_bytes(file.read_bytes())
    flags = ("--attack", "square,hopskipjump", "--queries", "30", "--limit", "12")
    own = measured(bare, images, tmp_path / "own", *flags)
    other = measured(served.address, images, tmp_path / "other", *flags, "--endpoint", "batch=7")
    for name in ("square", "hopskipjump"):
        one, two = (found["attacks"][name] for found in (own, other))
        assert one["parameters"]["queries"] == two["parameters"]["queries"] == 30
        assert one["accuracy"] == two["accuracy"]
        assert one["forward_evaluations"] == two["forward_evaluations"]
    assert own["clean_accuracy"] == other["clean_accuracy"] == 1
    assert max(served.images) == 7 and other["model"] == served.address
    assert any("address" in note for note in other["notes"])
    assert (tmp_path / "own" / "predictions.csv").read_text() == (
        tmp_path / "other" / "predictions.csv"
    ).read_text()
    assert main(["evaluate", served.address, "--data", str(images), "--attack", "pgd"]) == 2
    assert "gradient" in capsys.readouterr().err


def test_what_an_address_is_asked_for_by_default_and_where_it_goes(
    served, images, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    subject = jobs.open_subject(served.address, {"data": {"dataset": str(images)}})
    assert subject.config.evaluation.attacks == ("square",)
    assert subject.run.path.resolve() == (tmp_path / "linear-results").resolve()
    assert subject.name == served.address and not subject.config.evaluation.figures


def test_a_limit_ends_it_and_resume_goes_on(served, images, tmp_path, capsys):
    args = ["evaluate", served.address, "--data", str(images), "--eps", "0.02", "--queries", "20",
            "--eval-batch-size", "10", "--output", str(tmp_path / "out")]  # fmt: skip
    assert main([*args, "--endpoint", "most=700"]) == 1
    assert "limit of 700" in capsys.readouterr().err
    before = sum(served.images)
    assert main([*args, "--resume"]) == 0
    assert "Resuming" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    # What was asked for before was not asked again.
    assert sum(served.images) - before < report["attacks"]["square"]["forward_evaluations"] + 300


def test_endpoint_settings_that_are_none_are_refused(served, images, capsys):
    for wrong in ("speed=3", "batch=0", "batch"):
        args = ["evaluate", served.address, "--data", str(images), "--queries", "1", "--endpoint",
                wrong]  # fmt: skip
        assert main(args) == 2
    assert main(["evaluate", "http://127.0.0.1:9/m", "--data", str(images)]) == 2
    assert "v1/models/NAME" in capsys.readouterr().err


def test_a_random_model_is_attacked_in_expectation_and_the_report_says_so(run):
    """Half of the draws are worthless; their mean is right and has a gradient."""

    def shaky(x):
        blank = tf.cast(tf.random.uniform([]) < 0.5, tf.float32)
        plain = model(x)
        return plain * (1 - blank) + tf.roll(plain, 1, axis=1) * blank * 0.1

    subject = jobs.open_subject(run.path)
    model = subject.model
    settings = dataclasses.replace(subject.config.evaluation, eot=8)
    config = dataclasses.replace(subject.config, evaluation=settings)
    found = jobs.evaluate(dataclasses.replace(subject, model=shaky, config=config))
    assert any("8 draws" in note for note in found.values["notes"])
    assert found.report.clean_accuracy == 1
    assert EvaluationConfig().eot == 1 and RunFolder(run.path).evaluation.is_file()
    assert np.isfinite(found.report.robust_accuracy)
