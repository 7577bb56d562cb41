"""`jobs.train` as a notebook calls it: the main job, once, on a few digits."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tfrobust import jobs
from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.run import RunFolder

SMALL = {
    "data": {"limit_train": 120},
    "backbone": {"name": "simplenet"},
    "training": {"select_limit": 20, "select_steps": 1},
    "evaluation": {"limit": 20, "attacks": ["fgsm"], "sweep": [], "figures": False},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    lines = []
    plan = jobs.make_plan(SMALL, "digits_standard", epochs=1)
    run = tmp_path_factory.mktemp("jobs") / "run"
    # A few steps teach it nothing.
    return jobs.train(plan, run, export_anyway=True, tell=lines.append), lines


def test_all_of_the_main_job_comes_back(trained):
    found, lines = trained
    assert found.config == found.run.read_config()
    assert len(found.report.labels) == 20
    assert json.loads(found.run.evaluation.read_text()) == found.evaluation.values
    assert found.saved_model == found.run.path / "1"
    assert (found.saved_model / "saved_model.pb").is_file()
    assert all(figure.is_file() for figure in found.figures)
    assert lines[0].startswith(f"Run folder: {found.run.path}")
    assert any(line.startswith("Kept the model of epoch 1") for line in lines)


def test_later_jobs_take_the_run(trained):
    found, _ = trained
    again = jobs.evaluate(jobs.open_subject(found.run.path))
    assert again.report.clean_accuracy == found.report.clean_accuracy
    assert again.report.robust_accuracy == found.report.robust_accuracy


def test_a_run_is_not_overwritten_and_goes_on_with_its_settings_only(trained):
    found, _ = trained
    plan = jobs.make_plan(SMALL, "digits_standard")
    with pytest.raises(UsageError):
        jobs.train(plan, found.run)
    with pytest.raises(UsageError):
        jobs.train(dataclasses.replace(found.config, seed=7), found.run, resume=True)
    with pytest.raises(UsageError):
        jobs.train(jobs.make_plan(SMALL, "digits_standard", epochs=2), found.run, resume=True)


def test_a_whole_configuration_is_a_plan():
    from tfrobust.jobs.plan import as_plan

    config = jobs.make_plan(SMALL).config
    assert as_plan(config).config == config
    assert as_plan(RunConfig()).asked.settings["seed"] == 42


def test_settings_are_chosen_where_there_is_no_recipe():
    plan = jobs.make_plan({"data": {"dataset": "some/folder"}, "threat": {"eps": 4 / 255}})
    assert plan.chosen and plan.config.threat.eps == 4 / 255
    assert plan.asked.settings["threat"] == {"eps": 4 / 255}


def test_a_run_of_before_still_opens(tmp_path):
    """Settings that were added since have their defaults."""
    run = RunFolder(tmp_path)
    run.config.write_text("seed: 3\nbackbone: {name: resnet18, alpha: 0.5}\n")
    assert run.read_config().backbone.alpha == 0.5 and run.read_config().seed == 3
