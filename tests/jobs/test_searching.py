"""`jobs.search` as a notebook calls it."""

from __future__ import annotations

import pytest

from tfrobust import jobs
from tfrobust.errors import UsageError
from tfrobust.jobs.searching import SECTION, make_section
from tfrobust.search.results import read_table

SMALL = {
    "data": {"limit_train": 60},
    "backbone": {"name": "simplenet"},
    "training": {"batch_size": 30, "select_limit": 10, "select_steps": 1},
}


def test_a_section_is_checked():
    assert make_section({"space": "batch_size=8,16"}) == SECTION | {"space": "batch_size=8,16"}
    for wrong in ({}, {"spaces": "a=1"}, {"space": "a=1", "sampler": "best"},
                  {"space": "a=1", "trials": 0}):  # fmt: skip
        with pytest.raises(UsageError):
            make_section(wrong)


@pytest.mark.slow
def test_the_trials_come_back(tmp_path):
    lines = []
    plan = jobs.make_plan(SMALL, "digits_standard", epochs=1)
    section = {"space": "learning_rate=0.003"}
    found = jobs.search(plan, section, tmp_path, isolate=False, tell=lines.append)
    (row,) = found.rows
    assert row.state == "complete" and 0 <= row.metrics["clean"] <= 1
    (read,) = read_table(tmp_path / "trials.csv")
    assert read.metrics == row.metrics and read.point == row.point == {"learning_rate": 0.003}
    assert lines[0].startswith(f"Search in {tmp_path}: grid, 1 trials")
