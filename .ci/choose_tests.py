"""Chooses which tests `make test` runs: what it leaves out is listed in tests/slow.txt.

    make choose-tests

All tests but those with the marker `slow` run once, each with the lines and branches that it
reaches and the processor time that it takes, its children's too. Kept are all that take less than
`CHEAP` seconds, and of the others, those that reach the most that nothing kept reaches for their
time, until `BUDGET` seconds are spent. A test of which nothing is known yet is always run.

As a plug-in of pytest (-p choose_tests) this notes what each test takes and reaches; as a script it
chooses.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMES, DATA = ROOT / "build" / "coverage" / "times.jsonl", ROOT / "build" / "coverage" / "data"
SLOW = ROOT / "tests" / "slow.txt"
# Seconds of processor time.
CHEAP, BUDGET = 0.3, 420.0
# The environment's variable that gives the commands that a test starts its name (setup.cfg).
CONTEXT = "TFROBUST_TEST"


def _processor() -> float:
    return sum(os.times()[:4])


try:
    import pytest
except ImportError:  # the script does without
    pass
else:

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
        """Notes the time, and calls the test's name the context of all that it reaches."""
        import coverage

        current, before = coverage.Coverage.current(), _processor()
        os.environ[CONTEXT] = item.nodeid
        if current is not None:
            current.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            if current is not None:
                current.switch_context("")
            with TIMES.open("a", encoding="utf-8") as file:
                file.write(json.dumps([item.nodeid, round(_processor() - before, 3)]) + "\n")


def read_times() -> Counter[str]:
    """Seconds of processor time of each test."""
    times: Counter[str] = Counter()
    for line in TIMES.read_text(encoding="utf-8").splitlines():
        name, seconds = json.loads(line)
        times[name] += seconds
    return times


def read_reached() -> dict[str, set[tuple[int, int, int]]]:
    """Each test's (file, from line, to line)."""
    reached: dict[str, set[tuple[int, int, int]]] = defaultdict(set)
    with sqlite3.connect(DATA) as data:
        names = dict(data.execute("select id, context from context"))
        for context, *arc in data.execute("select context_id, file_id, fromno, tono from arc"):
            # The static context of a child and what it switched to are joined by a bar.
            reached[names[context].partition("|")[0]].add(tuple(arc))
    return reached


def choose(
    times: Counter[str], reached: dict[str, set[tuple[int, int, int]]], budget: float
) -> tuple[set[str], set[str]]:
    """The tests that are kept and those that are left out."""
    kept = {name for name, seconds in times.items() if seconds < CHEAP}
    seen = set().union(*(reached.get(name, set()) for name in kept))
    left, spent = set(times) - kept, sum(times[name] for name in kept)
    while left:
        # What is new shrinks as tests are kept: the best of all is found anew each time.
        new = {name: len(reached.get(name, set()) - seen) for name in left}
        best = max(left, key=lambda name: new[name] / times[name])
        if not new[best] or spent + times[best] > budget:
            break
        kept.add(best)
        left.remove(best)
        seen |= reached[best]
        spent += times[best]
    return kept, left


def main() -> None:
    """Writes tests/slow.txt, and prints what the choice comes to."""
    times, reached = read_times(), read_reached()
    kept, left = choose(times, reached, BUDGET)
    everything = set().union(*(reached.get(name, set()) for name in times))
    seen = set().union(*(reached.get(name, set()) for name in kept))
    SLOW.write_text("".join(f"{name}\n" for name in sorted(left)), encoding="utf-8")
    for title, names in (("kept", kept), ("left out", left)):
        seconds = sum(times[name] for name in names)
        print(f"{title:>9}: {len(names):,} tests, {seconds:,.0f} s of processor time")
    print(f"reached by what is kept: {len(seen) / max(1, len(everything)):.1%} of what all reach")
    files: Counter[str] = Counter()
    for name in kept:
        files[name.split("::")[0]] += times[name]
    for name, seconds in files.most_common(20):
        print(f"{seconds:8.1f} s  {name}")


if __name__ == "__main__":
    sys.exit(main())
