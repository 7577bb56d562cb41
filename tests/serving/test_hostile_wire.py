"""Thousands of hostile requests on the wire: each is answered, refused or closed, and no more."""

from __future__ import annotations

import os
import socket
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mutator import answered, requests
from servers import NAMES, RED, SIDE, Client, running_of, until
from test_command import started

# What a server may say to a request; 0 is a closed connection, or one that waits for more.
REFUSED = {0, 100, 200, 307, 400, 404, 405, 408, 413, 431, 499, 501, 503}


def port_of(client: Client) -> tuple[str, int]:
    host, _, port = client.address.removeprefix("http://").rstrip("/").partition(":")
    return host, int(port)


def attacked(client: Client, seed: int, count: int, patience: float = 1.0) -> Counter[int]:
    """How often each status was the answer; it still answers at the end."""
    address = port_of(client)
    draw = requests(seed)
    contents = [draw() for _ in range(count)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda one: answered(address, one, patience), contents))
    wrong = [(status, one[:300]) for status, one in zip(found, contents, strict=True)
             if status not in REFUSED]  # fmt: skip
    assert not wrong, wrong[:5]
    assert client.ask("/predict", RED)[0] == 200
    return Counter(found)


def light_model():
    """As a served model, without TensorFlow: which colour is the brightest?"""
    from tfrobust.serving.model import ServedModel

    class Light(ServedModel):
        def __init__(self) -> None:
            self.name, self.version, self.shape = "colours", 1, (SIDE, SIDE)
            self.label_names, self.signatures = list(NAMES), {}

        def logits(self, x: np.ndarray) -> np.ndarray:
            return x.mean((1, 2)) * 20

        def saliency(self, image: np.ndarray) -> np.ndarray:
            return np.ones_like(image)

        def attack(self, image: np.ndarray, eps: float, seed: int = 0) -> np.ndarray:
            return np.clip(image - np.float32(eps), 0, 1)

    return Light()


@pytest.fixture(scope="module")
def light():
    with running_of(light_model(), body=2**20, seconds=0.2) as client:
        yield client


def test_hostile_requests_are_answered_refused_or_closed(light) -> None:
    found = attacked(light, seed=0, count=150, patience=0.3)
    assert found[200] and found[400] and found[405]


def test_who_sends_no_request_is_cut_off(light) -> None:
    address = port_of(light)
    halves = [socket.create_connection(address) for _ in range(40)]
    for number, half in enumerate(halves):
        # Some say nothing at all, some have had an answer and say half of the next.
        if number % 3:
            half.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"\r\n" * (number % 3 == 2))
        if number % 3 == 2:
            assert b"200" in half.recv(4096)
            half.sendall(b"GET /")
    for half in halves:
        half.settimeout(5)
        # What is left of an answer, and then the end.
        while half.recv(4096):
            pass
        half.close()
    assert light.ask("/health")[0] == 200


def resident(process: int) -> float:
    """Megabytes of memory that a process has now."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) / 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_ten_thousand_hostile_requests_leave_memory_flat(exported) -> None:
    # A pipe that nobody reads would hold the server up once it is full of warnings.
    process, address = started(exported, stderr=subprocess.DEVNULL)
    client = Client(address)
    try:
        attacked(client, seed=1, count=3_000)
        before = resident(process.pid)
        attacked(client, seed=2, count=7_000)
        until(lambda: client.ask("/health")[1]["waiting"] == 0)
        assert resident(process.pid) < before + 40, before
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "Stopped" in out
