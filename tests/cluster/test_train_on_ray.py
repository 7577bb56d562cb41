"""Training on real Ray nodes: what one worker finds, and no end where a worker or node dies."""

from __future__ import annotations

import csv
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tfrobust import jobs
from tfrobust.errors import UsageError
from tfrobust.run import RunFolder
from tfrobust.runtime import keras

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 6


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny network without BatchNorm, whose statistics are those of a worker's part."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((32, 32, 3), name="image")
    for width in (8, 16):
        x = keras.layers.Conv2D(width, 3, strides=2, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    path = tmp_path_factory.mktemp("backbone") / "tiny.keras"
    keras.Model(image, keras.layers.Dense(10, name="logits")(x)).save(path)
    return path


def plan_of(backbone, method="pgd", epochs=EPOCHS, **training):
    settings = {
        "backbone": {"name": str(backbone)},
        "threat": {"eps": 0.02},
        "training": {"method": method, "batch_size": 8, "random_start": False, "select_limit": 40,
                     "select_steps": 1, "precision": "float32", "optimizer": "sgd", **training},
        "data": {"limit_train": 800},
        "evaluation": {"attacks": ["fgsm"], "sweep": [], "figures": False},
    }  # fmt: skip
    return jobs.make_plan(settings, epochs=epochs, learning_rate=0.02)


def rows(folder):
    path = Path(folder) / "history.csv"
    if not path.is_file():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(backbone, tmp_path_factory):
    """One process, without Ray."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, jobs.train(plan_of(backbone), folder)


def losses(folder):
    return [float(row["loss"]) for row in rows(folder)]


def test_two_workers_have_the_losses_of_one(backbone, alone, nodes, tmp_path):
    told = []
    found = jobs.train(plan_of(backbone), tmp_path / "run", on="ray", workers=2, tell=told.append)
    assert "Workers: 2 of 2." in told and any("2 replicas" in line for line in told)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone[0]), rel=1e-4)
    mine, theirs = alone[1].report, found.report
    assert theirs.clean_accuracy == pytest.approx(mine.clean_accuracy, abs=0.02)
    assert theirs.clean_accuracy > 0.7
    assert (found.saved_model / "saved_model.pb").is_file()


def pid_of(folder, rank):
    """The process that writes the log of this worker."""
    log = str((Path(folder) / "workers" / f"{rank}.log").resolve())
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if os.readlink(link) == log:
                return int(link.parts[2])
        except OSError:
            continue
    raise AssertionError(f"no process writes {log}")


def while_training(plan, folder, deed, after=2):
    """A training on two workers, to which something is done once so many epochs are complete."""
    told = []

    def train():
        return jobs.train(plan, folder, on="ray", workers=2, tell=told.append)

    # Ray adds nodes in the main thread alone.
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(train)
        while len(rows(folder)) < after:
            assert not running.done(), running.exception()
            time.sleep(0.02)
        deed()
        return running.result(), told


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_killed_in_mid_epoch_is_replaced(backbone, alone, nodes, tmp_path, rank):
    folder = tmp_path / "run"
    found, told = while_training(
        plan_of(backbone), folder, lambda: os.kill(pid_of(folder, rank), signal.SIGKILL)
    )
    assert told.count("Workers: 2 of 2.") == 2
    assert any(line.startswith("Resuming after epoch") for line in told)
    assert len(rows(folder)) == EPOCHS
    assert losses(folder) == pytest.approx(losses(alone[0]), rel=1e-3)
    assert found.report.clean_accuracy == pytest.approx(alone[1].report.clean_accuracy, abs=0.02)


def test_one_worker_goes_on_where_a_node_is_gone(backbone, alone, nodes, tmp_path):
    folder = tmp_path / "run"
    found, told = while_training(plan_of(backbone), folder, nodes.kill)
    assert "Workers: 2 of 2." in told and "Workers: 1 of 2." in told
    assert len(nodes.nodes) == 1 and len(rows(folder)) == EPOCHS
    assert found.report.clean_accuracy == pytest.approx(alone[1].report.clean_accuracy, abs=0.02)


def test_what_workers_find_wrong_is_told_and_not_tried_again(nodes, tmp_path):
    image = keras.Input((32, 32, 3))
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(image))
    keras.Model(image, logits).save(tmp_path / "of_three_classes.keras")
    told, plan = [], plan_of(tmp_path / "of_three_classes.keras")
    with pytest.raises(UsageError):
        jobs.train(plan, tmp_path / "run", on="ray", workers=2, tell=told.append)
    assert sum(line.startswith("Workers:") for line in told) == 1


def test_a_run_that_has_trained_is_evaluated_alone(backbone, alone, nodes):
    folder, made = alone
    RunFolder(folder).evaluation.unlink()
    found = jobs.train(made.config, folder, on="ray", resume=True)
    assert found.report.clean_accuracy == made.report.clean_accuracy
    assert not (folder / "workers").exists()
    with pytest.raises(UsageError):
        jobs.train(plan_of(backbone), folder, on="ray")
