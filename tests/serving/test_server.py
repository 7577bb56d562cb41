"""The server as its clients see it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from servers import NAMES, SIDE, Client, running

from pipelines import serve


def encoded(colour: tuple[int, int, int], kind: str = "PNG", side: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, kind)
    return file.getvalue()


RED, BLUE = encoded((200, 60, 60)), encoded((60, 60, 200), "JPEG")


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
    status, found = client.ask("/v1/models/colours:predict", body)
    assert status == 200
    assert [one["label_name"] for one in found["predictions"]] == ["red", "blue", "green", "green"]
    assert all(len(one["probabilities"]) == len(NAMES) for one in found["predictions"])
    state = client.ask("/v1/models/colours")[1]["model_version_status"][0]
    assert (state["version"], state["state"]) == ("1", "AVAILABLE")


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


def png_that_claims(width: int, height: int) -> bytes:
    head = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c))
             for k, c in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/predict", b"", 400, "found nothing"),
        ("/predict", b"no image at all", 400, "cannot be read"),
        ("/predict", RED[:60], 400, "cannot be read"),
        ("/predict", BLUE[: len(BLUE) // 2], 400, "cannot be read"),
        ("/predict", png_that_claims(20_000, 20_000), 400, "cannot be read"),
        ("/predict", b"\0" * (2**20 + 1), 413, "at most 1,048,576 bytes"),
        ("/explain", b"GIF89a", 400, "cannot be read"),
        ("/attack?eps=-1", RED, 400, "eps: expected more than 0"),
        ("/attack?eps=nan", RED, 400, "eps: expected"),
        ("/attack?eps=1/0", RED, 400, "eps: expected a number"),
        ("/v1/models/colours:predict", b"[1", 400, "Expected JSON"),
        ("/v1/models/colours:predict", b"[" * 5000, 400, "Expected JSON"),
        ("/v1/models/colours:predict", b'{"instances": []}', 400, "a list of 1 to 128"),
        ("/v1/models/colours:predict", b'{"instances": [{"b64": "%%"}]}', 400, "base64"),
        ("/v1/models/colours:predict", b'{"instances": [[1, 2]]}', 400, r"[16, 16, 3]"),
        ("/v1/models/colours:predict", b'{"instances": [{"a": {}}]}', 400, "found []"),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_wrong_is_told_and_the_server_goes_on(hostile, path, body, status, message) -> None:
    found = hostile.ask(path, body)
    assert found[0] == status and message in found[1]["error"], found
    assert hostile.ask("/predict", RED)[0] == 200


@pytest.fixture(scope="module")
def hostile(exported):
    with running(exported, body=2**20) as found:
        yield found


def test_nan_and_values_out_of_range_are_told(client) -> None:
    for value in ("NaN", "7.5", "-0.1", "1e999"):
        row = ", ".join([f"[{value}, 0, 0]"] * SIDE)
        image = ", ".join([f"[{row}]"] * SIDE)
        body = f'{{"instances": [[{image}]]}}'.encode()
        status, found = client.ask("/v1/models/colours:predict", body)
        assert status == 400 and "in [0, 1]" in found["error"]


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


def test_a_full_queue_says_so(exported) -> None:
    with running(exported, queue=1, batch=1) as client, ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda _: client.ask("/predict", RED)[0], range(200)))
        assert set(found) <= {200, 503} and found.count(200) >= 1
        assert client.ask("/predict", RED)[0] == 200


def test_a_client_that_sends_nothing_is_dropped(exported) -> None:
    with running(exported, seconds=0.3) as client:
        host, port = client.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
            slow.settimeout(10)
            assert b"408" in slow.recv(100)
        assert client.ask("/predict", RED)[0] == 200


def test_the_page_names_the_model_and_fetches_nothing_from_elsewhere(client) -> None:
    status, page = client.ask("/")
    assert status == 200 and '"name": "colours"' in page and "{{" not in page
    assert "http://" not in page and "https://" not in page and "//" not in page.split("<body>")[0]
    assert client.ask("/health")[1]["status"] == "ready"
    assert client.ask("/nowhere")[0] == 404


# ---- the command ----


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "pipelines.serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Serving colours version 1 (3 classes) at http://127.0.0.1:"), line
    return process, line.split(" at ")[1].split("/ ;")[0]


def test_it_stops_when_told_and_answers_what_had_come(exported) -> None:
    process, address = started(exported)
    client, answers = Client(address), []
    threads = [
        threading.Thread(target=lambda: answers.append(client.ask("/attack?eps=4/255", RED)[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.15)
    os.kill(process.pid, signal.SIGTERM)
    for thread in threads:
        thread.join()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "all requests that had come were answered" in out
    assert answers == [200] * 4


def test_small_answers_are_sent_at_once(exported) -> None:
    """Held back for more to send, each would take 40 ms."""
    process, address = started(exported)
    connection, times = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/")), []
    for _ in range(15):
        begin = time.perf_counter()
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        times.append(time.perf_counter() - begin)
    connection.close()
    process.terminate()
    process.communicate(timeout=30)
    assert sorted(times)[7] < 0.03


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{tmp}"], "expected a SavedModel"),
        (["{tmp}", "--queue", "0"], "--queue: expected at least 1"),
    ],
)
def test_wrong_use_is_one_sentence(args: Any, message: str, tmp_path: Path, capsys) -> None:
    assert serve.main([arg.format(tmp=tmp_path) for arg in args]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(exported, capsys) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert serve.main([str(exported), "--port", str(port)]) == 1
    assert f"127.0.0.1:{port} cannot be listened at" in capsys.readouterr().err
