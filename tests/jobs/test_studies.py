"""`jobs.study` as a notebook calls it."""

from __future__ import annotations

import pytest

from tfrobust import jobs
from tfrobust.errors import UsageError
from tfrobust.jobs.studies import study_names

STUDY = """
settings: {grey: "0.5"}
steps:
  - name: small
    run: imbalance --output {out}/a.pt --counts 2,2,2,2,2,2,2,2,2,2 --grey {grey}
"""


def test_a_study_is_run_once(tmp_path):
    recipe, lines = tmp_path / "one.yaml", []
    recipe.write_text(STUDY)
    for _ in range(2):
        found = jobs.study(str(recipe), tmp_path / "out", tell=lines.append)
    assert [step.name for step in found.steps] == ["small"]
    assert (found.folder / "a.pt").is_file() and lines.count("done before") == 1
    with pytest.raises(UsageError):
        jobs.study(str(recipe), tmp_path / "out", settings={"color": "red"})


def test_the_steps_of_those_that_come_with_the_project_are_told():
    assert "brittleness" in study_names()
    steps = jobs.study_steps("brittleness", quick=True)
    assert all(step.command.startswith("python -m pipelines.") for step in steps)
    with pytest.raises(UsageError, match="brittleness"):
        jobs.study_steps("britleness")
