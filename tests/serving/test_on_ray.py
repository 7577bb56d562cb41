"""The server in replicas of Ray Serve: the same answers, closed to the network, drained at the end.

Ray starts in seconds and TensorFlow in each replica: python -m pytest -m slow
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers import NAMES, RED, Client

# What holds of one server holds of replicas: the tests take this module's client.
from test_hostile import test_mutated_requests_are_answered_or_refused as test_mutated
from test_hostile import test_nan_and_values_out_of_range_are_told as test_out_of_range
from test_hostile import test_what_is_wrong_is_told_and_the_server_goes_on as test_wrong
from test_hostile_wire import attacked
from test_server import test_an_attack_stays_in_its_ball_and_changes_what_it_can as test_attack
from test_server import test_an_image_gets_its_classes_in_order as test_classes
from test_server import test_it_answers_as_tensorflow_serving_does as test_rest
from test_server import (
    test_it_tells_its_state_and_signatures_as_tensorflow_serving_does as test_metadata,
)
from test_server import (
    test_the_page_names_the_model_and_fetches_nothing_from_elsewhere as test_page,
)
from test_server import test_what_decides_is_shown_in_red as test_explain

from pipelines import serve

pytest.importorskip("ray.serve", reason="pip install 'tfrobust[cluster,serve]'")
psutil = pytest.importorskip("psutil")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
__all__ = [
    "test_attack", "test_classes", "test_explain", "test_metadata", "test_mutated",
    "test_out_of_range", "test_page", "test_rest", "test_wrong",
]  # fmt: skip


@dataclass
class Served:
    """A process of `pipelines.serve --on ray`, and its address."""

    process: subprocess.Popen[str]
    client: Client

    def family(self) -> list[psutil.Process]:
        """All of Ray's processes too."""
        return [*psutil.Process(self.process.pid).children(recursive=True)]

    def named(self, *names: str) -> list[psutil.Process]:
        """Those whose title has one of the names."""
        return [one for one in self.family() if any(name in _title(one) for name in names)]

    def replicas(self, besides: psutil.Process | None = None) -> list[psutil.Process]:
        """Two of them, once they are there; a title that is being written is not read."""
        end = time.monotonic() + 120
        while len(found := [one for one in self.named("ServeReplica") if one != besides]) < 2:
            assert time.monotonic() < end
            time.sleep(0.5)
        return found


def _title(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline())
    # It has just ended.
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def served(exported: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "pipelines.serve", str(exported), "--on", "ray", "--port", "0",
               "--replicas", "2", "--max-body", "1"]  # fmt: skip
    env = {**os.environ, "RAY_ADDRESS": "", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving colours on Ray (replicas: 2) at http://127.0.0.1:"), line
        yield Served(process, Client(line.split(" at ")[1].split("/ ;")[0]))
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return served.client


@pytest.fixture(scope="module")
def hostile(served: Served) -> Client:
    return served.client


def test_nothing_listens_beyond_the_loopback_device(served: Served) -> None:
    listening = {
        one.laddr.ip for process in served.family() for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }  # fmt: skip
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_ten_thousand_hostile_requests_leave_memory_flat(served: Served) -> None:
    processes = [*served.replicas(), *served.named("ProxyActor")]

    def memory() -> float:
        # Of one that has died there is none.
        return sum(one.memory_info().rss for one in processes)

    attacked(served.client, seed=3, count=2_000)
    before = memory()
    attacked(served.client, seed=4, count=8_000)
    assert memory() < before + 100 * 2**20 and all(one.is_running() for one in processes)


def test_a_replica_killed_under_load_loses_no_request(served: Served) -> None:
    """Twice, so that both of the first ones are gone at the end."""
    found: Counter[Any] = Counter()
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            try:
                found[served.client.ask("/predict", RED, timeout=120)[0]] += 1
            except OSError as error:
                found[repr(error)] += 1

    threads = [threading.Thread(target=client) for _ in range(32)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(3)
            first, *_ = served.replicas()
            first.kill()
            # Meanwhile the other one goes on.
            served.replicas(besides=first)
        time.sleep(3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(found) == {200} and found[200] > 500, found


def test_it_answers_what_had_come_before_it_stops(served: Served) -> None:
    """The last of this module: the server ends with it."""
    answers: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(served.client.ask("/attack?eps=4/255", RED)[0])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    served.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    out, _ = served.process.communicate(timeout=60)
    assert served.process.returncode == 0 and "Stopped" in out
    assert answers == [200] * 4 and len(NAMES) == 3


def test_wrong_use_is_told(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ray = ["--on", "ray", "--port", "0"]
    for flags in (
        ["--on", "elsewhere"], [*ray, "--replicas", "0"], [*ray, "--replicas", "999"],
        [*ray, "--replicas", "2", "--most-replicas", "1"],
    ):  # fmt: skip
        assert serve.main([str(exported), *flags]) == 2
        assert "Traceback" not in capsys.readouterr().err
