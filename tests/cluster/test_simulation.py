"""The simulation of many workers, held against what can be worked out by hand."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from benchmarks.scale import IMAGES, phases_at_scale
from benchmarks.simulation import AHEAD, Machines, Phase, evaluation, training_step
from tfrobust.cluster import pool


def test_it_sends_as_many_ahead_as_the_pool_does() -> None:
    assert AHEAD == pool._AHEAD


def test_one_worker_takes_the_sum() -> None:
    phases = [Phase("a", np.array([1.0, 3.0, 2.0]), first=5.0), Phase("b", np.array([4.0]))]
    found = evaluation(phases, Machines(1, start=7.0))
    assert found.seconds == 7 + 5 + 6 + 4 and found.busy == 10
    assert found.phases == (18.0, 4.0)
    assert found.efficiency(1) == pytest.approx(10 / 22)


@pytest.mark.parametrize(("batches", "rounds"), [(8, 2), (9, 3), (3, 1)])
def test_equal_batches_go_round_by_round(batches: int, rounds: int) -> None:
    found = evaluation([Phase("a", np.full(batches, 2.0))], Machines(4))
    assert found.seconds == 2 * rounds


def test_workers_wait_at_the_end_of_each_phase() -> None:
    phase = Phase("a", np.ones(3))
    assert evaluation([phase, phase], Machines(2)).seconds == 4
    assert evaluation([Phase("both", np.ones(6))], Machines(2)).seconds == 3


def test_what_is_traced_costs_each_worker_once_a_phase() -> None:
    found = evaluation([Phase("a", np.ones(4), first=10.0)], Machines(2))
    assert found.seconds == 12


def test_a_late_batch_holds_up_no_more_than_what_is_not_yet_sent() -> None:
    # Four are under way; the other worker does the three behind the late one, and then waits.
    late = np.array([10.0, 1, 1, 1, 1, 1])
    assert evaluation([Phase("a", late)], Machines(2)).seconds == 11


def test_with_free_workers_the_driver_is_the_limit() -> None:
    found = evaluation([Phase("a", np.zeros(100))], Machines(64, send=0.5, take=0.25))
    assert found.seconds == pytest.approx(75) and found.driver == pytest.approx(75)


def test_no_schedule_beats_the_bounds() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.gamma(2.0, 1.0, 57)
    for workers in (1, 2, 5, 31, 256):
        found = evaluation([Phase("a", seconds)], Machines(workers)).seconds
        least = max(seconds.max(), seconds.sum() / workers)
        # Twice the best at most, as list scheduling is (Graham, 1966), and a window besides.
        assert least - 1e-9 <= found <= 3 * least


def test_a_step_waits_for_its_slowest_worker() -> None:
    steps, rng = np.array([1.0, 3.0]), np.random.default_rng(0)
    assert training_step(steps, 1, 5.0, rng) == pytest.approx(2, abs=0.1)
    assert training_step(steps, 2, 0.0, rng) == pytest.approx(2.5, abs=0.1)
    assert training_step(steps, 64, 0.0, rng) == 3
    assert training_step(np.ones(4), 4, 2.0, rng) == pytest.approx(1 + 1.5 * 2)


def test_phases_at_scale_take_what_the_network_s_passes_take() -> None:
    # Images, seconds, seconds of the core, examples forward and backward; the first traces.
    clean = [[2, 9.0, 3.0, 2, 0], [2, 9.0, 1.0, 2, 0]]
    attack = [[2, 9.0, 25.0, 20, 20], [1, 9.0, 5.0, 10, 10]]
    tasks = {"phases": [{"name": "clean", "batches": clean}, {"name": "pgd", "batches": attack}],
             "images": 4, "standing": 1}  # fmt: skip
    passes = {"backbone": "r", "forward": 0.1, "gradient": 0.3}
    args = argparse.Namespace(clean=0.6, robust=0.3, batch=100, faster=2.0)
    first, second = phases_at_scale(tasks, passes, args)
    assert (first.first, second.first) == (2, 15)
    # Each image one pass forward; the 60 of 100 that stand ten gradients each.
    assert first.seconds.sum() == pytest.approx(IMAGES * 0.1 / 2)
    assert second.seconds.sum() == pytest.approx(0.6 * IMAGES * 10 * 0.3 / 2)
    assert len(first.seconds) == 500 and len(second.seconds) == 300
