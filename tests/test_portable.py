"""TFLite and ONNX say what the model says."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tfrobust.backbones import build
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export import FORMATS
from tfrobust.export.portable import compare, convert, load

X = np.random.default_rng(0).random((12, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def model():
    return build("simplenet", num_classes=4, image_shape=(32, 32, 3), alpha=0.25, seed=1)


def original(model):
    return lambda x: model(x, training=False)


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_the_floats_are_the_model_s(name, model, tmp_path):
    if name == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    y = np.argmax(model(X), axis=1)
    path = convert(model, name, tmp_path)
    np.testing.assert_allclose(load(name, path)(X), model(X), atol=1e-4)
    found = compare(name, path, original(model), X, y)
    assert (found.agreement, found.accuracy, found.original_accuracy) == (1, 1, 1)
    assert found.images == 12 and f"{name}: {path}" in found.as_text()


def test_int8_is_small_and_near(model, tmp_path):
    y = np.argmax(model(X), axis=1)
    whole, small = (convert(model, name, tmp_path, X) for name in ("tflite", "tflite-int8"))
    assert small.stat().st_size < 0.5 * whole.stat().st_size
    found = compare("tflite-int8", small, original(model), X, y)
    spread = np.ptp(model(X))
    assert 0 < found.difference < 0.2 * spread


def test_a_comparison_tells_what_differs(model, tmp_path):
    """Against another model than the one it was made from."""
    other = build("simplenet", num_classes=4, image_shape=(32, 32, 3), alpha=0.25, seed=2)
    path = convert(model, "tflite", tmp_path)
    y = np.argmax(model(X), axis=1)
    found = compare("tflite", path, original(other), X, y)
    agree = np.mean(np.argmax(other(X), axis=1) == y)
    assert found.accuracy == 1
    assert found.agreement == pytest.approx(agree) == found.original_accuracy
    assert found.difference == pytest.approx(np.abs(model(X) - other(X)).max(), abs=1e-4)


def test_wrong_use_is_told(model, tmp_path):
    with pytest.raises(UsageError, match=f"expected one of {', '.join(FORMATS)}"):
        convert(model, "pickle", tmp_path)
    for calibration in (None, X[:0]):
        with pytest.raises(UsageError, match="expected training images to take ranges from"):
            convert(model, "tflite-int8", tmp_path, calibration)


def test_a_missing_package_is_one_sentence(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(TFRobustError, match=r"onnx needs the package tf2onnx: pip install"):
        convert(model, "onnx", tmp_path)
    assert not list(tmp_path.iterdir())
