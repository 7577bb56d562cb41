"""What the project adds to Ray, without Ray: order, backpressure, sentences."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cluster import Ray, as_ray, pool
from tfrobust.cluster.pool import RayWorkers, opened_workers
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.workers import Threads


class Died(Exception):
    pass


class FakeRay:
    """As much of Ray as `RayWorkers` calls; a call is made when its result is waited for."""

    class exceptions:  # noqa: N801 (as Ray has it)
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: BaseException) -> None:
                self.cause = cause

    def __init__(self, nodes: list[dict[str, float]]) -> None:
        self._nodes, self.under_way, self.most, self.cancelled = nodes, 0, 0, 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": one} for one in self._nodes]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.options = options

        def decorated(function: Any) -> Any:
            class Task:
                @staticmethod
                def remote(manner: Any, work: Any, shared: Any, method: str, piece: Any) -> Any:
                    self.under_way += 1
                    self.most = max(self.most, self.under_way)
                    return lambda: getattr(work.held[0], method)(*shared.held[0], *piece)

            return Task

        return decorated

    def wait(self, references: list[Any], timeout: float) -> Any:
        return references, []

    def get(self, reference: Any) -> Any:
        self.under_way -= 1
        try:
            return reference()
        except Died as error:
            raise self.exceptions.RayError("the worker died") from error
        except Exception as error:
            raise self.exceptions.RayTaskError(error) from error

    def cancel(self, reference: Any) -> None:
        self.cancelled += 1


class Work:
    def times(self, factor: int, value: int) -> int:
        return factor * value

    def fails(self, value: int) -> int:
        raise {0: UsageError("wrong"), 1: ModuleNotFoundError("mine"), 2: Died(),
               3: KeyError("k")}[value]  # fmt: skip


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(pool, "pack", lambda value: value)
    monkeypatch.setattr(pool, "manner_of", lambda threads: None)

    def made(*cpus: float, **size: Any) -> tuple[FakeRay, RayWorkers]:
        ray = FakeRay([{"CPU": one} for one in cpus])
        return ray, RayWorkers(ray, Ray(**size))

    return made


def test_results_come_in_order_and_no_more_than_a_few_are_under_way(make):
    ray, workers = make(2, 1)
    taken = 0

    def pieces():
        nonlocal taken
        for number in range(50):
            taken += 1
            yield (number,)

    found = workers.map(Work(), "times", pieces(), (3,))
    assert next(found) == [0]
    # The rest has not been asked for.
    assert taken == 6
    assert [value for some in found for value in some] == [3 * i for i in range(1, 50)]
    assert ray.most == 6 and ray.under_way == 0


def test_one_is_under_way_where_no_node_is_there_yet(make):
    ray, workers = make(0)
    assert list(workers.map(Work(), "times", [(1,), (2,)], (2,))) == [[2], [4]]
    assert ray.most == 1


def test_what_is_no_longer_wanted_is_cancelled(make):
    ray, workers = make(2)
    found = workers.map(Work(), "times", ((i,) for i in range(9)), (1,))
    next(found)
    found.close()
    assert ray.cancelled == 3


@pytest.mark.parametrize(
    ("piece", "kind"), [(0, UsageError), (1, TFRobustError), (2, TFRobustError), (3, TFRobustError)]
)
def test_failures_are_told(make, piece, kind):
    _, workers = make(1)
    with pytest.raises(kind):
        list(workers.map(Work(), "fails", [(piece,)]))


def test_how_large_a_worker_is(make):
    ray, workers = make(8, 3, cpus=2)
    assert ray.options["num_cpus"] == 2 and ray.options["num_gpus"] == 0
    assert workers._count() == 5
    on_gpus = FakeRay([{"CPU": 8, "GPU": 2}, {"CPU": 8}])
    assert RayWorkers(on_gpus, Ray())._count() == 2
    assert on_gpus.options["num_gpus"] == 1
    assert RayWorkers(on_gpus, Ray(gpus=0.5))._count() == 4


def test_threads_keep_the_order():
    found = Threads(at_once=3).map(Work(), "times", ((i,) for i in range(8)), (2,))
    assert list(found) == [[0, 2, 4], [6, 8, 10], [12, 14]]


def test_clusters_by_name():
    assert as_ray("ray") == Ray() and as_ray("ray://host:10001") == Ray("ray://host:10001")
    for text in ("rays", "ray://host", "host:6379", ""):
        with pytest.raises(UsageError):
            as_ray(text)
    for wrong in ({"cpus": 0}, {"gpus": -1}):
        with pytest.raises(UsageError):
            Ray(**wrong)


def test_without_ray_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    sentence = pytest.raises(UsageError, match=r"pip install tfrobust\[cluster\]")
    with sentence, opened_workers("ray"):
        pass
    with opened_workers(None) as workers:
        assert workers is None


def test_naming_a_cluster_imports_no_tensorflow():
    """A command imports it later, quietly."""
    code = "import sys, tfrobust.cluster, tfrobust.cli.cluster; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_flags(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", sys)
    parser = argparse.ArgumentParser()
    add_cluster(parser)
    assert cluster_of(parser.parse_args([])) is None
    asked = parser.parse_args("--on ray://h:1 --worker-cpus 4 --worker-gpus 0.5".split())
    assert cluster_of(asked) == Ray("ray://h:1", cpus=4, gpus=0.5)
    for wrong in (["--worker-cpus", "2"], ["--on", "spark"], ["--on", "ray", "--worker-cpus", "0"]):
        with pytest.raises(UsageError):
            cluster_of(parser.parse_args(wrong))
