"""The server as its clients see it."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from servers import BLUE, NAMES, RED, REST, SIDE, encoded, rest, running


def test_an_image_gets_its_classes_in_order(client) -> None:
    status, found = client.ask("/predict", RED)
    assert status == 200
    first, *others = found["predictions"]
    assert (first["label"], first["name"]) == (0, "red") and first["probability"] > 0.99
    assert sum(one["probability"] for one in found["predictions"]) == pytest.approx(1)
    assert [one["probability"] for one in others] == sorted(
        (one["probability"] for one in others), reverse=True
    )
    assert client.ask("/predict", BLUE)[1]["predictions"][0]["name"] == "blue"


def test_it_answers_as_tensorflow_serving_does(client) -> None:
    pixels = np.zeros((SIDE, SIDE, 3))
    pixels[..., 1] = 0.8
    instances = [{"b64": base64.b64encode(RED).decode()},
                 {"image_bytes": {"b64": base64.b64encode(BLUE).decode()}},
                 {"images": pixels.tolist()}, pixels.tolist()]  # fmt: skip
    body = json.dumps({"instances": instances}).encode()
    status, found = client.ask(REST, body)
    assert status == 200
    assert [one["label_name"] for one in found["predictions"]] == ["red", "blue", "green", "green"]
    assert all(len(one["probabilities"]) == len(NAMES) for one in found["predictions"])


def picture(uri: str) -> np.ndarray:
    head, _, text = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_what_decides_is_shown_in_red(client) -> None:
    status, found = client.ask("/explain", RED)
    assert status == 200 and found["predictions"][0]["name"] == "red"
    assert picture(found["image"]).shape == picture(found["overlay"]).shape == (SIDE, SIDE, 3)
    # The gradient of this model is the same at every pixel: all of it counts.
    overlay = picture(found["overlay"]).astype(int)
    assert (overlay[..., 0] > overlay[..., 1] + 100).all()


def test_an_attack_stays_in_its_ball_and_changes_what_it_can(client) -> None:
    near = encoded((130, 126, 120))
    status, found = client.ask("/attack?eps=8/255", near)
    assert status == 200 and found["eps"] == pytest.approx(8 / 255)
    assert found["clean"][0]["name"] == "red" and found["adversarial"][0]["name"] != "red"
    moved = picture(found["image"]).astype(int) - np.array([130, 126, 120])
    assert 1 <= np.abs(moved).max() <= 9  # one more by rounding to whole numbers
    far = client.ask("/attack?eps=1/255", RED)[1]
    assert far["adversarial"][0]["name"] == "red"


def test_it_tells_its_state_and_signatures_as_tensorflow_serving_does(client) -> None:
    for path in ("/v1/models/colours", "/v1/models/colours/versions/1"):
        state = client.ask(path)[1]["model_version_status"][0]
        assert (state["version"], state["state"]) == ("1", "AVAILABLE")
    found = client.ask("/v1/models/colours/metadata")[1]
    assert found["model_spec"]["name"] == "colours"
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "image_bytes"}
    images = signatures["serving_default"]["inputs"]["images"]
    sizes = [one["size"] for one in images["tensor_shape"]["dim"]]
    assert images["dtype"] == "DT_FLOAT" and sizes == ["-1", str(SIDE), str(SIDE), "3"]
    # And each row has what these signatures return.
    body = rest({"b64": base64.b64encode(RED).decode()}, signature_name="image_bytes")
    row = client.ask("/v1/models/colours/versions/1:predict", body)[1]["predictions"][0]
    assert set(row) == set(signatures["image_bytes"]["outputs"])
    powers = np.exp(np.array(row["logits"]))
    np.testing.assert_allclose(row["probabilities"], powers / powers.sum(), atol=1e-5)


def test_what_fails_in_the_server_is_told_in_json_and_counted(exported, monkeypatch) -> None:
    def failing(*_: Any) -> np.ndarray:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr("tfrobust.serving.model.ServedModel.saliency", failing)
    with running(exported) as client:
        status, found = client.ask("/explain", RED)
        assert status == 500 and "failed at this request" in found["error"]
        assert "secret" not in str(found)
        assert 'handler="explain",status="500"} 1.0' in client.ask("/metrics")[1]
        assert client.ask("/predict", RED)[0] == 200


def test_many_clients_get_their_own_answers_in_common_batches(exported) -> None:
    bodies = [(RED, "red"), (encoded((60, 200, 60)), "green"), (BLUE, "blue")] * 40
    with running(exported) as client, ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda pair: client.ask("/predict", pair[0]), bodies))
        figures = client.ask("/metrics")[1]
    for (_, expected), (status, answer) in zip(bodies, found, strict=True):
        assert status == 200 and answer["predictions"][0]["name"] == expected
    counts = {line.split()[0]: float(line.split()[1]) for line in figures.splitlines()
              if line and not line.startswith("#")}  # fmt: skip
    assert counts["tfrobust_batch_size_sum"] == 120
    assert counts["tfrobust_batch_size_count"] < 120
    assert counts['tfrobust_requests_total{handler="predict",status="200"}'] == 120


def test_the_page_names_the_model_and_fetches_nothing_from_elsewhere(client) -> None:
    status, page = client.ask("/")
    assert status == 200 and '"name": "colours"' in page and "{{" not in page
    assert "http://" not in page and "https://" not in page and "//" not in page.split("<body>")[0]
    assert client.ask("/health")[1]["status"] == "ready"
    assert client.ask("/nowhere")[0] == 404
