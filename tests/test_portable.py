"""Weights alone, TFLite and ONNX say what the model says."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from pipelines import export
from tfrobust.backbones import build
from tfrobust.config import BackboneConfig, DataConfig, RunConfig
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export import FORMATS
from tfrobust.export.portable import compare, convert, load
from tfrobust.export.weights import rebuild
from tfrobust.jobs.exporting import count_compared
from tfrobust.run import RunFolder
from tfrobust.settings import save_yaml

X = np.random.default_rng(0).random((12, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def model():
    return build("simplenet", num_classes=4, image_shape=(32, 32, 3), alpha=0.25, seed=1)


@pytest.fixture(scope="module")
def tflite(model, tmp_path_factory):
    """The model's TFLite file."""
    return convert(model, "tflite", tmp_path_factory.mktemp("tflite"))


def original(model):
    return lambda x: model(x, training=False)


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_the_floats_are_the_model_s(name, model, tflite, tmp_path):
    if name == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    y = np.argmax(model(X), axis=1)
    path = tflite if name == "tflite" else convert(model, name, tmp_path)
    np.testing.assert_allclose(load(name, path)(X), model(X), atol=1e-4)
    found = compare(name, path, original(model), X, y)
    assert (found.agreement, found.accuracy, found.original_accuracy) == (1, 1, 1)
    assert found.images == 12 and f"{name}: {path}" in found.as_text()


# Each with an option that changes the network or its weights' shapes.
NETWORKS = (
    BackboneConfig(name="simplenet", alpha=0.25, convolution="unfold", dropout=0.1),
    BackboneConfig(name="mobilenetv2", alpha=0.35, resize=48, bn_momentum=0.9),
    BackboneConfig(name="resnet18", alpha=0.125, stem="small"),
    BackboneConfig(name="vit", alpha=0.25, position_embedding=False),
)


def network(config, seed=1):
    """The network of a configuration, with weights that tell images apart."""
    options = {
        name: getattr(config, name)
        for name in ("resize", "alpha", "stem", "convolution", "position_embedding", "dropout")
    }
    model = build(config.name, num_classes=4, image_shape=(32, 32, 3), seed=seed, **options)
    rng = np.random.default_rng(seed)
    moved = [w * rng.uniform(0.5, 2, w.shape) for w in model.get_weights()]
    model.set_weights(moved)
    return model


@pytest.mark.parametrize(
    "config",
    [pytest.param(one, marks=[pytest.mark.slow] if one.name == "mobilenetv2" else [])
     for one in NETWORKS],
    ids=lambda config: config.name,
)  # fmt: skip
def test_weights_are_loaded_into_the_network_that_the_settings_beside_them_name(config, tmp_path):
    model = network(config)
    path = convert(model, "weights", tmp_path, backbone=config)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model.weights.h5", "model.weights.json"
    ]  # fmt: skip
    again = rebuild(path)
    assert again.name == config.name
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    y = np.argmax(model(X, training=False), axis=1)
    found = compare("weights", path, original(model), X, y)
    assert (found.agreement, found.accuracy) == (1, 1) and found.difference < 1e-5


def test_the_settings_beside_the_weights_are_what_build_takes(tmp_path):
    config = NETWORKS[1]
    model = network(config)
    path = convert(model, "weights", tmp_path, backbone=config)
    assert json.loads((tmp_path / "model.weights.json").read_text()) == {
        "name": "mobilenetv2",
        "num_classes": 4,
        "image_shape": [32, 32, 3],
        "options": {
            "resize": 48, "alpha": 0.35, "stem": "standard", "convolution": "keras",
            "position_embedding": True, "bn_momentum": 0.9, "dropout": 0.0,
        },
    }  # fmt: skip
    norms = [layer for layer in rebuild(path).layers if hasattr(layer, "momentum")]
    assert norms and {layer.momentum for layer in norms} == {0.9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"alpha": 0.5}}, "do not fit simplenet"),
        ({"options": {"color": 1}}, "unknown setting 'color'"),
        ({"image_shape": None}, "weights.json"),
        ({"name": "lenet"}, "Unknown backbone 'lenet'"),
        (None, "weights.json"),
    ],
)
def test_settings_that_are_not_the_weights_are_told(model, tmp_path, change, message):
    config = BackboneConfig(name="simplenet", alpha=0.25)
    path = convert(model, "weights", tmp_path, backbone=config)
    file = tmp_path / "model.weights.json"
    text = json.dumps({**json.loads(file.read_text()), **change}) if change else "{"
    file.write_text(text)
    with pytest.raises(TFRobustError, match=message):
        load("weights", path)


def test_a_run_s_weights_are_exported_and_compared_on_its_test_images(tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    run.create()
    config = BackboneConfig(name="simplenet", alpha=0.25)
    save_yaml(RunConfig(data=DataConfig(dataset="digits"), backbone=config), run.config)
    build("simplenet", num_classes=10, image_shape=(32, 32, 3), alpha=0.25, seed=1).save(
        run.best_model
    )
    assert export.main([str(run.path), "--formats", "weights", "--images", "50"]) == 0
    said = capsys.readouterr().out
    assert f"weights: {run.path / 'model.weights.h5'}" in said
    assert "on 50 images, same class as the SavedModel on 100.0%" in said


def test_a_bare_model_s_weights_are_wrong_use_before_anything_is_read(tmp_path, capsys):
    args = [str(tmp_path / "model.keras"), "--data", "digits", "--formats", "weights"]
    assert export.main(args) == 2
    assert "--formats weights: expected a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("total", "asked", "formats", "trained", "expected"),
    [
        (40, 500, ["tflite-int8"], None, 30),  # a quarter gives the ranges
        (2, 500, ["tflite-int8"], None, 1),
        (5000, 500, ["tflite-int8"], None, 500),
        (40, 500, ["tflite-int8"], "a run, with training images", 500),
        (40, 500, ["tflite"], None, 500),
    ],
)
def test_images_are_held_back_for_the_ranges_of_a_bare_model(
    total, asked, formats, trained, expected
):
    assert count_compared(total, asked, formats, is_run=trained is not None) == expected


def test_one_image_cannot_give_ranges_and_be_compared_on():
    with pytest.raises(UsageError, match="at least 2 images, .* found 1"):
        count_compared(1, 500, ["tflite-int8"], is_run=False)


def test_int8_is_small_and_near(model, tflite, tmp_path):
    y = np.argmax(model(X), axis=1)
    small = convert(model, "tflite-int8", tmp_path, X)
    assert small.stat().st_size < 0.5 * tflite.stat().st_size
    found = compare("tflite-int8", small, original(model), X, y)
    spread = np.ptp(model(X))
    assert 0 < found.difference < 0.2 * spread


def test_a_comparison_tells_what_differs(model, tflite):
    """Against another model than the one it was made from."""
    other = build("simplenet", num_classes=4, image_shape=(32, 32, 3), alpha=0.25, seed=2)
    y = np.argmax(model(X), axis=1)
    found = compare("tflite", tflite, original(other), X, y)
    agree = np.mean(np.argmax(other(X), axis=1) == y)
    assert found.accuracy == 1
    assert found.agreement == pytest.approx(agree) == found.original_accuracy
    assert found.difference == pytest.approx(np.abs(model(X) - other(X)).max(), abs=1e-4)


def test_wrong_use_is_told(model, tmp_path):
    with pytest.raises(UsageError, match=f"expected one of {', '.join(FORMATS)}"):
        convert(model, "pickle", tmp_path)
    with pytest.raises(UsageError, match="expected the settings that the network was built with"):
        convert(model, "weights", tmp_path)
    for calibration in (None, X[:0]):
        with pytest.raises(UsageError, match="tflite-int8"):
            convert(model, "tflite-int8", tmp_path, calibration)


def test_a_missing_package_is_one_sentence(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(TFRobustError, match=r"onnx needs the package tf2onnx: pip install"):
        convert(model, "onnx", tmp_path)
    assert not list(tmp_path.iterdir())
