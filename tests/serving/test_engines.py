"""Other serving engines, run for real around an export, answer what the trained model does.

python -m pip install openvino kserve, then python -m pytest -m slow tests/serving/test_engines.py
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from servers import Client, running

from benchmarks import engines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# Of a logit; they reach about ten.
TOLERANCE = 1e-3


@dataclass
class Trained:
    """A run folder, and what its model says of images in [0, 1]."""

    folder: Path
    pixels: np.ndarray
    logits: np.ndarray

    @property
    def x(self) -> np.ndarray:
        return np.float32(self.pixels) / np.float32(255)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A small network that has learnt the digits, as SavedModel and as ONNX."""
    from tfrobust.backbones import build
    from tfrobust.data import load
    from tfrobust.export import export
    from tfrobust.export.portable import convert
    from tfrobust.runtime import keras

    digits = load("digits")
    model = build("simplenet", num_classes=10, image_shape=(32, 32, 3), alpha=0.25, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss, ["accuracy"])
    model.fit(digits.train.pixels(slice(None)), digits.train.labels, epochs=8, verbose=0)
    x = np.asarray(digits.test.pixels(slice(0, 100)))
    assert model.evaluate(x, digits.test.labels[:100], verbose=0)[1] > 0.8
    folder = tmp_path_factory.mktemp("engines") / "digits"
    export(model, folder, [str(i) for i in range(10)], check_images=x[:8])
    if engines.is_there("tf2onnx"):
        convert(model, "onnx", folder)
    pixels = np.uint8(np.rint(x * 255))
    logits = model.predict(np.float32(pixels) / np.float32(255), verbose=0)
    return Trained(folder, pixels, logits)


def check(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("engine", engines.INSIDE)
def test_an_engine_finds_the_logits_of_the_trained_model(engine: str, trained: Trained) -> None:
    if not engines.is_there(engines.INSIDE[engine]):
        pytest.skip(f"{engine} is not installed: pip install {engines.INSIDE[engine]}")
    if engine == "onnxruntime" and not (trained.folder / "model.onnx").is_file():
        pytest.skip("tf2onnx is not installed: pip install 'tfrobust[portable]'")
    run = engines.opened(engine, trained.folder)
    check(np.concatenate([run(trained.x[:1]), run(trained.x[1:33]), run(trained.x[33:])]),
          trained.logits)  # fmt: skip


def png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def asked(client: Client, name: str, **body: object) -> list[dict]:
    status, found = client.ask(f"/v1/models/{name}:predict", json.dumps(body).encode())
    assert status == 200, found
    rows: list[dict] = found["predictions"]
    return rows


def test_kserve_and_ours_answer_the_same_requests_alike(trained: Trained) -> None:
    if not engines.is_there("kserve"):
        pytest.skip("KServe is not installed: pip install kserve")
    floats = trained.x[:8].tolist()
    encoded = [{"b64": png(one)} for one in trained.pixels[:32]]
    with engines.kserve(trained.folder, "digits") as (port, _), running(trained.folder) as ours:
        theirs = Client(f"http://127.0.0.1:{port}")
        for client in (theirs, ours):
            rows = asked(client, "digits", instances=encoded, signature_name="image_bytes")
            check(np.array([row["logits"] for row in rows]), trained.logits[:32])
            assert [row["label_name"] for row in rows] == [str(row["label"]) for row in rows]
            rows = asked(client, "digits", instances=floats)
            check(np.array([row["logits"] for row in rows]), trained.logits[:8])
        for wrong in (
            {"instances": [[1, 2]]}, {"instances": []}, {"instances": [{"b64": "aGFsbG8="}]},
            {"instances": (4 * trained.x[:1]).tolist()},
            {"instances": floats[:1], "signature_name": "a"},
        ):  # fmt: skip
            body = json.dumps(wrong).encode()
            assert [c.ask("/v1/models/digits:predict", body)[0] for c in (theirs, ours)] == [
                400
            ] * 2
        assert theirs.ask("/v1/models/other:predict", b"{}")[0] == 404
