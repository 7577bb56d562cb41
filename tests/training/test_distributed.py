"""Two workers, two processes on this machine, train as one does with the same global batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scaling import free_ports
from tfrobust.distribution import STRATEGIES, make_strategy, worker_of
from tfrobust.errors import UsageError
from tfrobust.training import METHODS

# Without BatchNorm, whose statistics are those of a replica's part of the batch.
SCRIPT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from tfrobust.config import RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.distribution import folder_of, make_strategy, this_worker
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, setup, tf
from tfrobust.training.fit import fit

kind, folder, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(",")
if kind == "mirrored":
    # Two devices of one machine, as far as TensorFlow can tell.
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
strategy = make_strategy(kind)
worker = this_worker(strategy)
setup(seed=1)
rng = np.random.default_rng(0)


def images(count):
    y = rng.integers(0, 4, count).astype("int32")
    x = rng.integers(0, 120, (count, 8, 8, 3)).astype("uint8")
    x[np.arange(count), y * 2] += 120
    return ImageSet(x, y, ("a", "b", "c", "d"))


splits = Splits(images(64), images(16), images(8), ReadLog())
found = {}
for name in names:
    config = RunConfig(
        threat=ThreatConfig(eps=0.05),
        training=TrainingConfig(method=name.replace("+awp", ":awp=0.02"), batch_size=16,
            random_start=False, select_steps=2,
            ema=0.9, stages=(StageConfig(epochs=2, learning_rate=0.05),)),
    )
    run = RunFolder(folder / name)
    run.create()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        x = image = keras.Input((8, 8, 3), name="image")
        for width in (8, 16):
            x = keras.layers.Conv2D(width, 3, strides=2, activation="relu")(x)
        x = keras.layers.Flatten()(x)
        model = keras.Model(image, keras.layers.Dense(4, name="logits")(x))
    with folder_of(worker, run) as own:
        state = fit(model, splits, config, own, home=run)
    rows = [{k: row[k] for k in ("loss", "select_clean", "select_pgd")} for row in state.rows]
    size = sum(np.abs(w).sum() for w in model.get_weights())
    found[name] = {"rows": rows, "weights": float(size)}
    if worker.is_chief:
        # What is kept has the scores that its row of the history has.
        kept = keras.models.load_model(run.best_model)
        right = np.argmax(kept(splits.select.pixels(slice(None))), axis=1) == splits.select.labels
        best = next(row for row in state.rows if row["epoch"] == state.best_epoch)
        assert abs(right.mean() - best["select_clean"]) < 1e-6
(folder / f"{kind}-{worker.index}.json").write_text(json.dumps(found))
"""


def start(kind: str, folder: Path, methods: list[str], workers: int) -> list[dict]:
    """Runs the script in so many processes at once and returns what each found."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    running = []
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {**os.environ, "TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": "-1",
               "TF_CPP_MIN_LOG_LEVEL": "3"}  # fmt: skip
        if kind != "multiworker":
            env.pop("TF_CONFIG")
        command = [sys.executable, "-c", SCRIPT, kind, str(folder), ",".join(methods)]
        running.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    return [json.loads((folder / f"{kind}-{i}.json").read_text()) for i in range(workers)]


def both(factory: pytest.TempPathFactory, methods: list[str]) -> tuple[dict, list[dict]]:
    """What one worker finds, and what each of two finds."""
    (alone,) = start("none", factory.mktemp("one"), methods, 1)
    return alone, start("multiworker", factory.mktemp("two"), methods, 2)


NAMES = [*METHODS, "pgd+awp", "trades+awp"]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[dict, list[dict]]:
    alone, spread = both(tmp_path_factory, NAMES)
    # One process with two devices.
    return alone, spread + start("mirrored", tmp_path_factory.mktemp("mirrored"), NAMES, 1)


@pytest.mark.slow
@pytest.mark.parametrize("method", NAMES)
def test_two_workers_are_one_with_every_method(found, method) -> None:
    check_alike(method, found[0][method], *(each[method] for each in found[1]))


def check_alike(method: str, alone: dict, chief: dict, other: dict, *mirrored: dict) -> None:
    """The same losses, measurements and weights; both workers hold the same model."""
    assert chief == other
    for spread in (chief, *mirrored):
        check_close(method, alone, spread)


def check_close(method: str, alone: dict, chief: dict) -> None:
    """What one finds alone and what two replicas find together."""
    # Where noise is drawn, each replica draws for its own part of the batch.
    draws = method.split("+")[0] in ("fast", "noise", "trades", "mixture")
    tolerance = 0.1 if draws else 1e-4
    for mine, theirs in zip(alone["rows"], chief["rows"], strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=tolerance)
        if not draws:
            assert theirs["select_clean"] == mine["select_clean"]
    assert chief["weights"] == pytest.approx(alone["weights"], rel=tolerance)
    losses = [row["loss"] for row in chief["rows"]]
    assert np.isfinite(losses).all() and losses[1] < losses[0]


TRAIN = (
    "--recipe", "digits_standard", "--backbone", "simplenet", "--limit-train", "400",
    "--batch-size", "32", "--epochs", "6", "--select-limit", "40", "--limit", "20",
    # It learns little in so few steps.
    "--no-figures", "--export-anyway", "--strategy", "multiworker",
)  # fmt: skip


def trainers(folder: Path, *more: str, who: tuple[int, ...] = (0, 1)) -> list[Any]:
    """Two workers of `pipelines.train`, or one of the two."""
    addresses, running = [f"127.0.0.1:{port}" for port in free_ports(2)], []
    for index in who:
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {**os.environ, "TF_CONFIG": json.dumps(task)}
        command = [sys.executable, "-m", "pipelines.train", *TRAIN, "--output", str(folder), *more]
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True))  # fmt: skip
    return running


def epochs_done(folder: Path) -> int:
    history = folder / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.is_file() else 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_killed_in_mid_epoch_is_started_again_and_the_run_goes_on(victim, tmp_path):
    folder = tmp_path / "run"
    running = trainers(folder)
    while epochs_done(folder) < 2:
        assert all(process.poll() is None for process in running)
        time.sleep(0.05)
    os.kill(running[victim].pid, signal.SIGKILL)
    out, _ = running[1 - victim].communicate(timeout=120)
    running[victim].communicate(timeout=10)
    assert running[1 - victim].returncode == 1, out
    assert "has lost another" in out and "--resume" in out and "Traceback" not in out
    done = epochs_done(folder)
    assert 2 <= done < 6

    for process in (again := trainers(folder, "--resume")):
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out
        assert f"Resuming after epoch {done}." in out
    assert len(again) == 2 and epochs_done(folder) == 6
    assert (folder / "evaluation.json").is_file() and (folder / "1" / "saved_model.pb").is_file()

    # After the training the other worker has ended for good: the chief needs it no more.
    (folder / "evaluation.json").unlink()
    for index, said in ((1, "has nothing to do"), (0, "worst case")):
        (process,) = trainers(folder, "--resume", who=(index,))
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and said in out, out
    assert (folder / "evaluation.json").is_file()


def environments() -> list[dict[str, str]]:
    """Those of two workers."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
             for index in range(2)]  # fmt: skip
    return [{**os.environ, "TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": "-1"}
            for task in tasks]  # fmt: skip


OTHERS_FIGURES = """
import json, sys
from tfrobust.distribution import agreed, make_strategy, this_worker
strategy = make_strategy("multiworker")
index = this_worker(strategy).index
print(json.dumps(agreed(strategy, {"pgd": 0.1 + index, "classes": 7 + index})))
"""


@pytest.mark.slow
def test_workers_decide_on_the_chief_s_figures() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", OTHERS_FIGURES], env=env, stdout=subprocess.PIPE, text=True
        )
        for env in environments()
    ]
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert out.strip() == '{"pgd": 0.1, "classes": 7}'


WAITS = """
import time
from tfrobust.distribution import agreed, make_strategy
strategy = make_strategy("multiworker")
print(agreed(strategy, {"a": 1.0}), flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_worker_heeds_sigterm() -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", WAITS], env=env, stdout=subprocess.PIPE, text=True)
        for env in environments()
    ]
    for process in running:
        assert process.stdout and process.stdout.readline()
    for process in running:
        process.terminate()
    for process in running:
        assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1}}',
     '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}'],
)  # fmt: skip
def test_a_tf_config_that_names_no_worker_is_told(text, monkeypatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="expected TF_CONFIG in the environment, such as"):
        make_strategy("multiworker")


def test_the_names_and_the_worker() -> None:
    with pytest.raises(UsageError, match=f"expected one of {', '.join(STRATEGIES)}"):
        make_strategy("tpu")
    worker = worker_of('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 1}}')
    assert (worker.index, worker.count, worker.is_chief) == (1, 2, False)
