"""Chooses the tests that `make test` runs; the others are listed in tests/slow.txt.

It also writes tests/longest.txt, the order in which files start.

    make choose-tests

All tests without the marker `slow` run once; the covered lines and branches and the CPU time of
each are recorded, including its child processes. Kept are all tests under `CHEAP` seconds, the
cheapest case of each test function under `ONE_CASE` seconds, and the cheapest case of each function
among `GUARANTEES`, whatever it costs. Of the others, those that add the most new coverage per
second are kept until `BUDGET` seconds are spent. A test without a record is always run.

As a pytest plug-in (-p choose_tests) this records times and coverage; as a script it chooses.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMES, DATA = ROOT / "build" / "coverage" / "times.jsonl", ROOT / "build" / "coverage" / "data"
SLOW, LONGEST = ROOT / "tests" / "slow.txt", ROOT / "tests" / "longest.txt"
# Seconds of CPU time.
CHEAP, ONE_CASE, BUDGET = 0.3, 0.8, 400.0
# What a change must never break: files, or test functions.
GUARANTEES = (
    "tests/test_architecture.py::*",
    "tests/test_docs.py::*snippet*",
    "tests/test_public_api.py::*",
    "tests/checks/*",
    "tests/evaluation/test_evaluator.py::*",
    "tests/evaluation/test_checkpoint.py::test_the_result_is_the_same_wherever_it_was_killed",
    "tests/models/test_opening.py::test_every_kind_of_file_*",
    "tests/radii/test_certify.py::test_no_attack_succeeds_inside_a_certified_radius",
    "tests/training/test_fit.py::test_resumed_run_ends_with_the_same_weights",
    "tests/training/test_robust.py::test_both_keras_train_alike",
)
# The environment variable that passes a test's name to the commands it starts (setup.cfg).
CONTEXT = "TFROBUST_TEST"


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Records the time, and sets the test's name as the coverage context."""
    current, before = coverage.Coverage.current(), _cpu_seconds()
    os.environ[CONTEXT] = item.nodeid
    if current is not None:
        current.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        if current is not None:
            current.switch_context("")
        with TIMES.open("a", encoding="utf-8") as file:
            file.write(json.dumps([item.nodeid, round(_cpu_seconds() - before, 3)]) + "\n")


def read_times() -> Counter[str]:
    """Seconds of CPU time of each test."""
    times: Counter[str] = Counter()
    for line in TIMES.read_text(encoding="utf-8").splitlines():
        name, seconds = json.loads(line)
        times[name] += seconds
    return times


def read_reached() -> dict[str, set[tuple[int, int, int]]]:
    """The (file, from line, to line) covered by each test."""
    reached: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    with sqlite3.connect(DATA) as data:
        names = dict(data.execute("select id, context from context"))
        for context, *arc in data.execute("select context_id, file_id, fromno, tono from arc"):
            # The static context of a child process and its dynamic one are joined by a bar.
            reached[names[context].partition("|")[0]].add(tuple(arc))
    return reached


def choose(
    times: Counter[str], reached: dict[str, set[tuple[int, int, int]]], budget: float
) -> tuple[set[str], set[str]]:
    """The tests to keep and the tests to leave out."""
    kept = {name for name, seconds in times.items() if seconds < CHEAP} | _one_case_each(times)
    seen = set().union(*(reached.get(name, set()) for name in kept))
    left, spent = set(times) - kept, sum(times[name] for name in kept)
    while left:
        # New coverage shrinks as tests are kept, so the best test is recomputed each time.
        new = {name: len(reached.get(name, set()) - seen) for name in left}
        best = max(sorted(left), key=lambda name: new[name] / times[name])
        if not new[best] or spent + times[best] > budget:
            break
        kept.add(best)
        left.remove(best)
        seen |= reached[best]
        spent += times[best]
    return kept, left


def _one_case_each(times: Counter[str]) -> set[str]:
    """The cheapest case of each test function, unless it is too expensive."""
    cases: dict[str, list[str]] = defaultdict(list)
    for name in times:
        cases[name.partition("[")[0]].append(name)
    cheapest = {test: min(names, key=times.__getitem__) for test, names in cases.items()}
    return {
        name
        for test, name in cheapest.items()
        if times[name] < ONE_CASE or any(fnmatch(test, guarantee) for guarantee in GUARANTEES)
    }


def main() -> None:
    """Writes tests/slow.txt and the order of tests/longest.txt, and prints a summary."""
    times, reached = read_times(), read_reached()
    kept, left = choose(times, reached, BUDGET)
    everything = set().union(*(reached.get(name, set()) for name in times))
    seen = set().union(*(reached.get(name, set()) for name in kept))
    SLOW.write_text("".join(f"{name}\n" for name in sorted(left)), encoding="utf-8")
    for title, names in (("kept", kept), ("left out", left)):
        seconds = sum(times[name] for name in names)
        print(f"{title:>9}: {len(names):,} tests, {seconds:,.0f} s of CPU time")
    print(f"coverage of the tests kept: {len(seen) / max(1, len(everything)):.1%} of the total")
    files: Counter[str] = Counter()
    for name in sorted(kept):
        files[name.split("::")[0]] += times[name]
    longest = [name for name, seconds in files.most_common() if seconds >= 1]
    LONGEST.write_text("".join(f"{name}\n" for name in longest), encoding="utf-8")
    for name, seconds in files.most_common(20):
        print(f"{seconds:8.1f} s  {name}")


if __name__ == "__main__":
    sys.exit(main())
