"""Several processes evaluate together, and find exactly what one finds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scaling import free_ports
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.evaluation.sharing import Share, Workers, _connect, _receive, make_share


def free_port() -> int:
    return free_ports(1)[0]


def tf_config(port: int, index: int, count: int) -> str:
    workers = [f"127.0.0.1:{port}"] + ["127.0.0.1:1"] * (count - 1)
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def together(count: int, work: Any) -> list[Any]:
    """Runs `work(share)` of so many workers, in threads."""
    port, found, errors = free_port(), [None] * count, []

    def run(index: int) -> None:
        try:
            share = Workers(tf_config(port, index, count))
            found[index] = work(share)
            share.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    return found


@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_get_what_all_sent_by_index(count: int) -> None:
    def work(share: Share) -> list[Any]:
        mine = [np.full(share.worker.index, share.worker.index), np.array([True, False])]
        first = share.gather(mine)
        assert [len(part) for part in share.gather([])] == [0] * count
        return first

    for found in together(count, work):
        assert [part[0].tolist() for part in found] == [[i] * i for i in range(count)]
        assert all(part[1].tolist() == [True, False] for part in found)


def test_large_arrays_arrive_whole() -> None:
    x = np.random.default_rng(0).random((40, 64, 64, 3), np.float32)
    for found in together(2, lambda share: share.gather([x + share.worker.index])):
        np.testing.assert_array_equal(found[0][0], x)
        np.testing.assert_array_equal(found[1][0], x + 1)


def test_one_alone_needs_nobody() -> None:
    share = make_share("none")
    assert share.gather([np.ones(2)])[0][0].tolist() == [1, 1] and share.worker.count == 1


def test_a_worker_that_goes_is_told() -> None:
    def work(share: Share) -> str:
        if share.worker.index == 1:
            return ""
        with pytest.raises(TFRobustError, match="has lost another one.*--resume"):
            share.gather([])
        return "told"

    assert together(2, work)[0] == "told"


def test_a_stranger_s_connection_is_no_worker(monkeypatch) -> None:
    from tfrobust.evaluation import sharing

    monkeypatch.setattr(sharing, "_HELLO", 0.5)
    port, found = free_port(), []

    def run(index: int) -> None:
        share = Workers(tf_config(port, index, 2))
        found.append(share.gather([np.full(2, index)]))
        share.close()

    chief = threading.Thread(target=run, args=(0,))
    chief.start()
    # One that goes at once, one that is silent, one of another cluster, one of no such index.
    _connect(("127.0.0.1", port)).close()
    silent = _connect(("127.0.0.1", port))
    digest = hashlib.sha256(json.dumps(json.loads(tf_config(port, 0, 2))["cluster"]["worker"])
                            .encode()).digest()  # fmt: skip
    for hello in (bytes(40), digest + struct.pack("!Q", 7)):
        with _connect(("127.0.0.1", port)) as stranger:
            stranger.sendall(hello)
    run(1)
    chief.join(30)
    silent.close()
    assert [part[0].tolist() for part in found[0]] == [[0, 0], [1, 1]] and len(found) == 2


def test_a_message_of_absurd_size_is_not_waited_for() -> None:
    here, there = socket.socketpair()
    there.sendall(struct.pack("!Q", 2**62))
    with here, there, pytest.raises(EOFError, match="bytes was announced"):
        _receive(here)


def test_without_tf_config_it_is_wrong_use(monkeypatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match="expected TF_CONFIG"):
        make_share("multiworker")


# ---- the command ----


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Path:
    from tfrobust.runtime import keras

    folder = tmp_path_factory.mktemp("sharing")
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(4)(x))
    images = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3), dtype=np.uint8)
    model.save(folder / "model.keras")
    y = np.argmax(model(images / np.float32(255)), axis=1)
    np.savez(folder / "x.npz", x=images, y=y)
    return folder


# Two devices of one machine, as far as TensorFlow can tell.
MIRRORED = """
import sys
from pathlib import Path
import numpy as np
from tfrobust.attacks.gradient import PGD
from tfrobust.data import load_all
from tfrobust.evaluation.evaluator import Evaluator
from tfrobust.models.opening import load_any
from tfrobust.evaluation.sharing import make_share
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
model, data, used = load_any(Path(sys.argv[1])), load_all(sys.argv[2]), set()


def run(strategy):
    evaluator = Evaluator(model, data, batch_size=20, share=make_share(strategy))
    batch = evaluator.batch
    def noting(index):
        x, y = batch(index)
        used.add(x.device)
        return x, y
    evaluator.batch = noting
    found = evaluator.run("pgd", PGD(steps=8, restarts=2), ThreatModel("linf", 1 / 255))
    return found


alone, both = run("none"), run("mirrored")
assert {name[-5:] for name in used} == {"CPU:0", "CPU:1"}, used
for name in ("predictions", "correct", "confidences"):
    a, b = getattr(alone.outcome, name), getattr(both.outcome, name)
    assert (a == b).all() if a.dtype != np.float32 else np.allclose(a, b, atol=1e-5), name
assert 0 < alone.outcome.correct.mean() < 1
assert alone.gradient_evaluations == both.gradient_evaluations
"""


@pytest.mark.slow
def test_two_devices_find_what_one_finds(case) -> None:
    command = [sys.executable, "-c", MIRRORED, str(case / "model.keras"), str(case / "x.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


ATTACKS = "pgd:steps=8:restarts=2,apgd-ce:steps=10,square:queries=60"


def launch(
    folder: Path, output: str, count: int, *more: str, port: int = 0
) -> list[subprocess.Popen[str]]:
    port, running = port or free_port(), []
    for index in range(count):
        command = [
            sys.executable, "-m", "pipelines.evaluate", str(folder / "model.keras"), "--data",
            str(folder / "x.npz"), "--norm", "linf", "--eps", "1/255", "--attack", ATTACKS,
            "--eval-batch-size", "20", "--no-figures", "--output", str(folder / output), *more,
        ]  # fmt: skip
        env = dict(os.environ)
        if count > 1:
            command += ["--strategy", "multiworker"]
            env["TF_CONFIG"] = tf_config(port, index, count)
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True))  # fmt: skip
    return running


def finished(running: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    found = []
    for process in running:
        out, errors = process.communicate(timeout=300)
        found.append((process.returncode, out + errors))
    return found


def result(folder: Path, output: str) -> dict[str, Any]:
    values = json.loads((folder / output / "evaluation.json").read_text())
    for entry in values["attacks"].values():
        del entry["seconds"]
    del values["seconds"]
    return values


def test_two_workers_find_what_one_finds(case) -> None:
    """In two threads: what they share goes over TCP all the same."""
    from tfrobust.attacks.gradient import PGD
    from tfrobust.attacks.square import Square
    from tfrobust.data import load_all
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.models.opening import load_any
    from tfrobust.threat_model import ThreatModel

    model, data = load_any(case / "model.keras"), load_all(str(case / "x.npz"))

    def work(share: Share) -> list[Any]:
        evaluator = Evaluator(model, data, batch_size=20, share=share)
        ball = ThreatModel("linf", 1 / 255)
        first = evaluator.run("pgd", PGD(steps=8, restarts=2), ball)
        return [first, evaluator.run("square", Square(queries=40), ball, first.outcome)]

    alone, (chief, other) = work(Share()), together(2, work)
    for one, *both in zip(alone, chief, other, strict=True):
        for found in both:
            assert (found.outcome.correct == one.outcome.correct).all()
            assert (found.outcome.predictions == one.outcome.predictions).all()
            assert found.gradient_evaluations == one.gradient_evaluations
            assert found.forward_evaluations == one.forward_evaluations
    assert 0 < alone[0].outcome.correct.mean() < 1


@pytest.mark.slow
def test_two_processes_find_what_one_finds(case) -> None:
    ((code, text),) = finished(launch(case, "one", 1))
    assert code == 0, text
    codes = finished(launch(case, "two", 2))
    assert [code for code, _ in codes] == [0, 0], codes
    assert "Worker 1 is done; the chief writes the report." in codes[1][1]
    one, two = result(case, "one"), result(case, "two")
    assert one == two and 0 < one["robust_accuracy"] < one["clean_accuracy"]
    assert not (case / "two" / "evaluation-progress.npz").exists()


def connected(port: int) -> bool:
    """Whether anybody is connected to a port of this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_with_a_sentence(case) -> None:
    port = free_port()
    running = launch(case, "killed", 2, "--attack", "square:queries=1000000", port=port)
    while not connected(port):
        assert all(process.poll() is None for process in running)
        time.sleep(0.1)
    os.kill(running[1].pid, signal.SIGKILL)
    (code, text), _ = finished(running)
    assert code == 1 and "Worker 0 has lost another one" in text and "--resume" in text
