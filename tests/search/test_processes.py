"""Searches that are killed, shared by processes, or whose trials have processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna

from tfrobust.search.results import rows_of
from tfrobust.search.storage import storage_of

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub_search.py")


def stub(folder, kind, *more, **environment):
    return subprocess.Popen(
        [sys.executable, str(STUB), str(folder), kind, *more], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def calls(folder):
    file = folder / "trials" / "calls.txt"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def study_of(folder):
    return optuna.load_study(study_name="search", storage=storage_of(folder, None))


def test_killed_by_signal_9_and_run_again_it_loses_nothing(tmp_path):
    process = stub(tmp_path, "grid", STUB_SECONDS="0.2")
    deadline = time.monotonic() + 60
    while len(calls(tmp_path)) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [row for row in rows_of(study_of(tmp_path)) if row.state == "complete"]
    assert len(before) >= 2
    done = stub(tmp_path, "grid")
    out, err = done.communicate(timeout=100)
    assert done.returncode == 0, err
    rows = rows_of(study_of(tmp_path))
    complete = [row for row in rows if row.state == "complete"]
    assert len(complete) == 9 and len({str(row.point) for row in complete}) == 9
    assert [row for row in rows if row.trial in {r.trial for r in before}] == before
    # The trial that was running is begun again, in its own folder; no other is.
    (lost,) = [row for row in rows if row.state == "interrupted"]
    (again,) = [row for row in complete if row.point == lost.point]
    assert again.run == lost.run and again.trial != lost.trial
    assert max(Counter((batch, rate) for batch, rate, _ in calls(tmp_path)).values()) == 2


def test_two_processes_share_a_grid_and_do_nothing_twice(tmp_path):
    both = [stub(tmp_path, "refine", STUB_SECONDS="0.1") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    rows = rows_of(study_of(tmp_path))
    # 9 of the grid, and 3 x 3 of the finer one but for its middle.
    assert [row.state for row in rows] == ["complete"] * 17
    assert len({str(row.point) for row in rows}) == 17
    seen = calls(tmp_path)
    assert len(seen) == 17 and len({(batch, rate) for batch, rate, _ in seen}) == 17
    shares = Counter(pid for *_, pid in seen)
    assert len(shares) == 2 and min(shares.values()) >= 2


def test_a_process_of_its_own_for_each_trial_fails_alone(tmp_path):
    space = "batch_size=64,16,128"
    done = stub(tmp_path, "grid", "--isolate", STUB_FAILS="1", STUB_DIES="1", STUB_SPACE=space)
    out, err = done.communicate(timeout=200)
    assert done.returncode == 0, err
    rows = rows_of(study_of(tmp_path))
    by_size = {size: [r for r in rows if r.point["batch_size"] == size] for size in (16, 64, 128)}
    assert {row.error for row in by_size[16]} == {"The loss became nan."}
    assert {row.state for row in by_size[64]} == {"complete"}
    # Killed as by the kernel when memory is short.
    assert all("SIGKILL" in row.error for row in by_size[128])
    pids = [pid for *_, pid in calls(tmp_path)]
    assert len(set(pids)) == len(pids) == 3


def test_a_trials_process_ends_with_the_search(tmp_path):
    process = stub(tmp_path, "grid", "--isolate", STUB_SECONDS="30")
    deadline = time.monotonic() + 60
    while not calls(tmp_path):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child = int(calls(tmp_path)[0][2])
    assert child != process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        time.sleep(0.02)
    else:
        assert time.monotonic() < deadline
