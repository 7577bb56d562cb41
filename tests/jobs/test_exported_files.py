"""`evaluate` of the file that is deployed: on itself, and beside the model it was made of."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tfrobust import jobs
from tfrobust.cli.main import main
from tfrobust.export.portable import convert
from tfrobust.jobs import evaluation_extras
from tfrobust.runtime import keras

FLAGS = ("--eps", "0.3", "--eval-batch-size", "32", "--queries", "5")


def measured(path, *flags):
    assert main(["evaluate", str(path), *FLAGS, *flags]) == 0
    output = path.with_name(f"{path.name}-results")
    return json.loads((output / "evaluation.json").read_text())


@pytest.fixture
def converted(run, images):
    def convert_to(name):
        if name == "onnx":
            pytest.importorskip("tf2onnx")
            pytest.importorskip("onnxruntime")
        model = keras.models.load_model(run.best_model)
        return convert(model, name, run.path, (np.load(images)["x"] / 255).astype("float32"))

    return convert_to


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite", "tflite-int8", "onnx"])
def test_a_file_of_a_run_is_measured_as_the_run_and_beside_its_model(name, converted, run, capsys):
    path = converted(name)
    found = measured(path)
    test = jobs.open_subject(run.path).test
    assert found["num_examples"] == len(test) and list(found["attacks"]) == ["square"]
    both = found["conversion"]
    assert both["original"] == run.path.name and both["agreement"] == 1
    assert both["clean_accuracy"] == {"original": 1, "converted": 1}
    assert found["clean_accuracy"] == 1
    crafted = both["attacks"]["pgd crafted on the original"]
    assert found["transfer"]["accuracy"] == {
        run.path.name: crafted["original"], path.name: crafted["converted"]
    }  # fmt: skip
    # The ball reaches from one colour to the next.
    assert crafted["original"] < 1 and crafted["converted"] < 1
    for which in ("original", "converted"):
        left = [one[which] for one in both["attacks"].values()]
        assert both["robust_accuracy"][which] <= min(left)
    if name != "tflite-int8":
        assert both["attacks"]["square"]["original"] == both["attacks"]["square"]["converted"]
    said = capsys.readouterr().out
    assert "worst case" in said and "pgd crafted on the original" in said


def test_clean_accuracy_and_classes_are_the_run_s(converted, run, capsys):
    found = measured(converted("tflite"), "--attack", "uniform-noise", "--limit", "8")
    assert found["num_examples"] == 8 and found["clean_accuracy"] == 1
    both = found["conversion"]
    assert both["agreement"] == 1 and both["original"] == run.path.name
    assert both["clean_accuracy"] == {"original": 1, "converted": 1}
    assert both["attacks"]["pgd crafted on the original"]["converted"] < 1
    assert "pgd crafted on the original" in capsys.readouterr().out
    card = (run.path / "model.tflite-results" / "model_card.md").read_text()
    assert f"original model, {run.path.name}: clean 1.000 and 1.000" in card


def test_what_cannot_be_asked_of_a_file_is_refused(converted, images, capsys):
    path = converted("tflite")
    for wrong in (("--attack", "pgd"), ("--reference", str(path))):
        assert main(["evaluate", str(path), *FLAGS, *wrong]) == 2
    away = images.parent / "away.tflite"
    away.write_bytes(path.read_bytes())
    capsys.readouterr()
    assert main(["evaluate", str(away)]) == 2 and "--data" in capsys.readouterr().err


def test_a_file_elsewhere_is_compared_with_what_is_named(converted, images, run, monkeypatch):
    away = images.parent / "away.tflite"
    away.write_bytes(converted("tflite").read_bytes())
    asked = []
    monkeypatch.setattr(
        evaluation_extras, "_with_transfer", lambda report, *rest: asked.append(rest[-1].name)
    )
    subject = jobs.open_subject(away, {"data": {"dataset": str(images)}})
    assert subject.is_converted and subject.config.evaluation.attacks == ("square",)
    settings = dataclasses.replace(subject.config.evaluation, attacks=("uniform-noise",))
    config = dataclasses.replace(subject.config, evaluation=settings)
    subject = dataclasses.replace(subject, config=config)
    for reference in (run.path, None):
        assert jobs.evaluate(subject, reference=reference).report.transfer is None
    assert asked == [run.path.name]
