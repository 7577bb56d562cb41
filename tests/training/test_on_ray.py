"""What the project adds to Ray Train, without Ray: sizes, who shares a batch, what ends it."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time

import pytest

from tfrobust import jobs
from tfrobust.cli import train
from tfrobust.cluster import Ray
from tfrobust.config import RunConfig, StageConfig, TrainingConfig
from tfrobust.distribution import LostWorker
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import RunFolder
from tfrobust.runtime import tf
from tfrobust.training.on_ray import Work, _told, fit_on_ray, sized
from tfrobust.training.ray_worker import (
    Order,
    Watch,
    _check_folder,
    _leave_out_others,
    failure_of,
    sharing,
)  # fmt: skip


class Nodes:
    """As much of Ray as is asked for its nodes."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._found = [{"Alive": True, "Resources": one} for one in resources]

    def nodes(self) -> list[dict]:
        return self._found


@pytest.mark.parametrize(
    ("nodes", "most", "cpus", "gpus"),
    [
        ([{"CPU": 8}, {"CPU": 6}], None, 6, 0),
        ([{"CPU": 0}, {"CPU": 4}], None, 4, 0),
        ([{"CPU": 8}, {"CPU": 8}], 3, 4, 0),
        ([{"CPU": 2}], 2, 1, 0),
        ([{"CPU": 2}], 5, 1, 0),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}], None, 4, 1),
        ([{"CPU": 0}], 4, 1, 0),
    ],
)
def test_a_worker_has_its_part_of_a_node(nodes, most, cpus, gpus):
    found = sized(Nodes(*nodes), Ray(), most)
    assert (found.cpus, found.gpus) == (cpus, gpus)
    assert sized(Nodes(*nodes), Ray(cpus=3), most).cpus == 3


@pytest.mark.parametrize(
    ("found", "batch_size", "gpus", "share"),
    [(4, 64, 0, 4), (3, 64, 0, 2), (7, 30, 1, 6), (5, 64, 4, 4), (3, 7, 0, 1), (1, 64, 0, 1)],
)
def test_workers_share_a_batch_evenly(found, batch_size, gpus, share):
    assert sharing(found, batch_size, gpus) == share


def test_the_others_are_left_out(monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    _leave_out_others(2)
    left = json.loads(os.environ["TF_CONFIG"])
    assert left == {"cluster": {"worker": ["a:1", "b:1"]}, "task": config["task"]}


def test_losses_are_borne_while_epochs_come(tmp_path, monkeypatch):
    state, lost, now = tmp_path / "state.json", LostWorker("gone"), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Watch(state)

    def fail(error=lost):
        now[0] += 60
        watch({1: error})

    for epoch in range(20):
        state.write_text(json.dumps({"epoch": epoch}))
        fail(tf.errors.UnavailableError(None, None, "gone"))
        for _ in range(3):
            fail()
    for _ in range(20):
        # The same is told again.
        watch({1: lost})
    with pytest.raises(TFRobustError):
        fail()


@pytest.mark.parametrize("error", [UsageError("a"), TFRobustError("loss is nan"), KeyError("mine")])
def test_the_training_s_own_failures_end_it(tmp_path, error):
    with pytest.raises(TFRobustError) as found:
        Watch(tmp_path / "none")({0: LostWorker("gone"), 1: error})
    # Wrong use stays wrong use.
    assert isinstance(found.value, type(error)) or isinstance(error, KeyError)


def test_a_loss_travels_and_what_ended_a_training_is_told():
    again = pickle.loads(pickle.dumps(LostWorker("gone")))
    assert isinstance(again, LostWorker) and str(again) == "gone"

    class ControllerError(Exception):
        controller_failure = UsageError("no such images")

    assert isinstance(failure_of(ControllerError()), UsageError)
    assert type(failure_of(ValueError("x"))) is TFRobustError


def test_a_node_that_does_not_see_the_folder_is_told(tmp_path):
    run = RunFolder(tmp_path)
    order = Order(print, run, 8, "word", {}, ".", 2, 0)
    with pytest.raises(UsageError):
        _check_folder(order)
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "word.txt").write_text("another")
    with pytest.raises(UsageError):
        _check_folder(order)
    (tmp_path / "workers" / "word.txt").write_text("word")
    _check_folder(order)


def test_what_the_chief_writes_is_told(tmp_path):
    log, lines = tmp_path / "0.log", []
    log.write_text("of an earlier start\n")
    with _told(log, lines.append), log.open("a") as file:
        file.write("epoch 1\nepo")
        file.flush()
        end = time.monotonic() + 10
        while not lines and time.monotonic() < end:
            time.sleep(0.01)
        assert lines == ["epoch 1"]
        file.write("ch 2\nthe end")
        file.flush()
    assert lines == ["epoch 1", "epoch 2", "the end"]


def test_wrong_use_is_told_before_anything_starts(tmp_path, monkeypatch):
    config = RunConfig()
    for wrong in ({"workers": 2}, {"on": "ray", "workers": 0}, {"on": "spark"},
                  {"on": "ray", "strategy": "mirrored"}):  # fmt: skip
        with pytest.raises(UsageError):
            jobs.train(config, tmp_path / "run", **wrong)
    timed = TrainingConfig(time_limit=1, stages=(StageConfig(epochs=1),))
    with pytest.raises(UsageError):
        fit_on_ray(Work(print, RunFolder(tmp_path), timed), None, Ray(), most=None, tell=print)
    monkeypatch.setitem(sys.modules, "ray.train", None)
    work = Work(print, RunFolder(tmp_path), config.training)
    with pytest.raises(UsageError, match="pip install"):
        fit_on_ray(work, None, Ray(), most=None, tell=print)
    assert not (tmp_path / "run").exists()


def test_flags_say_how_many_workers_and_how_large(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", sys)
    called = {}
    monkeypatch.setattr(jobs, "train", lambda *_, **more: called.update(more), raising=False)
    words = "--on ray://h:1 --workers 3 --worker-cpus 4".split()
    train.work(train.make_parser().parse_args(words))
    assert called["on"] == Ray("ray://h:1", cpus=4) and called["workers"] == 3
    train.work(train.make_parser().parse_args([]))
    assert called["on"] is None and called["workers"] is None
