"""More than fits: told to come again, and nothing that grows without a limit."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from servers import RED, REST, SIDE, encoded, rest, running, until


def test_a_full_queue_says_so(exported) -> None:
    with running(exported, queue=1, batch=1) as client, ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda _: client.ask("/predict", RED)[0], range(200)))
        assert set(found) == {200, 503}
        assert client.ask("/predict", RED)[0] == 200


def test_more_than_the_queue_will_ever_hold_is_not_told_to_come_again(exported) -> None:
    one = {"b64": base64.b64encode(RED).decode()}
    with running(exported, queue=2) as client:
        status, found = client.ask(REST, rest(one, one, one))
        assert status == 413 and "1 to 2 images, found 3" in found["error"]
        assert client.ask(REST, rest(one, one))[0] == 200


def test_decoding_has_a_limit_over_all_requests(exported) -> None:
    large = encoded((200, 60, 60), side=1500)
    with running(exported, decoding=1500 * 1500) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.ask("/predict", large)[0], range(24)))
        assert set(found) == {200, 503}
        assert client.ask("/predict", large)[0] == 200


def test_bodies_have_a_limit_over_all_requests(exported) -> None:
    with running(exported, body=2**10, seconds=5) as client, contextlib.ExitStack() as stack:
        host, port = client.address.removeprefix("http://").split(":")
        for _ in range(16):
            half = stack.enter_context(socket.create_connection((host, int(port))))
            half.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n")
            half.sendall(bytes(1024))
        until(lambda: client.ask("/predict", RED)[0] == 503)
        assert client.ask("/predict", RED)[0] == 503
        stack.close()
        until(lambda: client.ask("/predict", RED)[0] == 200)


def test_attacks_have_a_limit_and_let_predictions_pass(exported, monkeypatch) -> None:
    def slow(self: Any, image: np.ndarray, eps: float) -> np.ndarray:
        time.sleep(0.15)
        return image

    monkeypatch.setattr("tfrobust.serving.model.ServedModel.attack", slow)
    with running(exported, calls=6) as client, ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(client.ask, "/attack?eps=1/255", RED) for _ in range(24)]
        until(lambda: client.ask("/health")[1]["waiting"] >= 6)
        assert client.ask("/predict", RED)[0] == 200
        # It waited for one attack, not for all of them.
        assert sum(one.done() and one.result()[0] == 200 for one in asked) < 6
        found = [one.result()[0] for one in asked]
        assert set(found) == {200, 503} and found.count(200) >= 6
        assert client.ask("/health")[1]["waiting"] == 0


def test_reading_json_does_not_hold_up_others(exported, monkeypatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def slow(*_: Any) -> list[Any]:
        begun.set()
        assert end.wait(10)
        return [np.zeros((SIDE, SIDE, 3), np.float32)]

    monkeypatch.setattr("tfrobust.serving.app.parse", slow)
    with running(exported) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.ask, REST, b"{}")
        assert begun.wait(10) and client.ask("/health", timeout=5)[0] == 200
        end.set()
        assert asked.result()[0] == 200


def test_a_client_that_sends_nothing_is_dropped(exported) -> None:
    with running(exported, seconds=0.3) as client:
        host, port = client.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
            slow.settimeout(10)
            assert b"408" in slow.recv(100)
        assert client.ask("/predict", RED)[0] == 200
