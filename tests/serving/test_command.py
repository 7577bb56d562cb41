"""`pipelines.serve` as a process: it starts, says where, and stops when it is told."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from servers import RED, Client

from pipelines import serve


def started(
    folder: Path, settings: str = "pass", stderr: int = subprocess.PIPE
) -> tuple[subprocess.Popen[str], str]:
    code = (
        "from pipelines import serve; from tfrobust.jobs import serving; "
        f"{settings}; raise SystemExit(serve.main())"
    )
    command = [sys.executable, "-c", code, str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Serving colours version 1 (3 classes) at http://127.0.0.1:"), line
    return process, line.split(" at ")[1].split("/ ;")[0]


def test_replicas_are_of_a_cluster(exported, capsys) -> None:
    assert serve.main([str(exported), "--replicas", "2"]) == 2
    assert "--on ray" in capsys.readouterr().err


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


@pytest.mark.slow
def test_small_answers_come_at_once(exported) -> None:
    """Held back for more to send, each answer would take 40 ms."""
    process, address = started(exported)
    host = address.removeprefix("http://").rstrip("/")
    connection, times = http.client.HTTPConnection(host), []
    for _ in range(15):
        begin = time.perf_counter()
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        times.append(time.perf_counter() - begin)
    connection.close()
    process.terminate()
    process.communicate(timeout=30)
    assert sorted(times)[7] < 0.03


def test_what_is_cut_off_is_told(exported) -> None:
    process, address = started(exported, "serving.GRACE, serving.CONNECTIONS = 0.3, 5")
    host = address.removeprefix("http://").rstrip("/")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            half = stack.enter_context(socket.create_connection(host.split(":")))
            half.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        assert Client(address).ask("/health")[0] == 200
        # More connections than are kept are told so.
        for _ in range(4):
            stack.enter_context(socket.create_connection(host.split(":")))
        assert Client(address).ask("/health")[0] == 503
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "cut off without an answer: 2." in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{tmp}"], "expected a SavedModel"),
        (["{tmp}", "--queue", "0"], "--queue: expected at least 1"),
        (["{tmp}", "--port", "99999"], "--port: expected 0 to 65535, found 99999"),
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
