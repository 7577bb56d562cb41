"""`jobs.train` as a notebook calls it: the main job, once, on a few digits."""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager

import pytest

from tfrobust import jobs, settings
from tfrobust import run as run_module
from tfrobust.cli import train
from tfrobust.cli.plans import make_plan
from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.jobs import recipes, training
from tfrobust.report import runs
from tfrobust.run import RunFolder

SMALL = {
    "data": {"limit_train": 120},
    "backbone": {"name": "simplenet"},
    "training": {"select_limit": 20, "select_steps": 1},
    "evaluation": {"limit": 20, "attacks": ["fgsm"], "sweep": [], "figures": False},
}
# The same as flags.
SMALL_WORDS = [
    "--limit-train", "120", "--backbone", "simplenet", "--select-limit", "20", "--select-steps",
    "1", "--limit", "20", "--attack", "fgsm", "--sweep", "none", "--no-figures",
]  # fmt: skip


@contextmanager
def climbs(monkeypatch):
    """A list that grows with each time the whole configuration is made, or settings are read.

    On its way from the command to the end of a job the configuration goes down, from room to
    room. Where it is put together again, of flags, of a recipe, of a file in the run's folder, of
    another configuration, or where plain settings are read from a file, it climbs back up.
    """
    found, settle, read = [], RunConfig.__post_init__, settings.load_yaml

    def settled(self):
        found.append("made")
        settle(self)

    def loaded(path):
        found.append(f"read {path}")
        return read(path)

    monkeypatch.setattr(RunConfig, "__post_init__", settled)
    for room in (recipes, run_module, runs):
        monkeypatch.setattr(room, "load_yaml", loaded)
    yield found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    lines, folder = [], tmp_path_factory.mktemp("jobs") / "run"
    words = ["--recipe", "digits_standard", "--epochs", "1", *SMALL_WORDS]
    with pytest.MonkeyPatch.context() as patch, climbs(patch) as found:
        plan = make_plan(train.make_parser().parse_args(words))
        # A few steps teach it nothing.
        made = jobs.train(plan, folder, export_anyway=True, tell=lines.append)
    return made, lines, found


def test_all_of_the_main_job_comes_back(trained):
    found, lines, _ = trained
    assert found.config == found.run.read_config()
    assert len(found.report.labels) == 20
    assert json.loads(found.run.evaluation.read_text()) == found.evaluation.values
    assert found.saved_model == found.run.path / "1"
    assert (found.saved_model / "saved_model.pb").is_file()
    assert all(figure.is_file() for figure in found.figures)
    assert lines[0].startswith(f"Run folder: {found.run.path}")
    assert any(line.startswith("Kept the model of epoch 1") for line in lines)


def test_the_configuration_goes_down_to_the_end_of_the_main_job(trained):
    """Five climbs at the most; the first is that of flags to plain settings."""
    *_, found = trained
    assert len(found) + 1 <= 5, found


def test_later_jobs_take_the_run(trained):
    found, *_ = trained
    again = jobs.evaluate(jobs.open_subject(found.run.path))
    assert again.report.clean_accuracy == found.report.clean_accuracy
    assert again.report.robust_accuracy == found.report.robust_accuracy


def test_a_run_is_not_overwritten_and_goes_on_with_its_settings_only(trained):
    found, *_ = trained
    plan = jobs.make_plan(SMALL, "digits_standard")
    with pytest.raises(UsageError):
        jobs.train(plan, found.run)
    with pytest.raises(UsageError):
        jobs.train(dataclasses.replace(found.config, seed=7), found.run, resume=True)
    with pytest.raises(UsageError):
        jobs.train(jobs.make_plan(SMALL, "digits_standard", epochs=2), found.run, resume=True)


def test_it_goes_on_with_the_command_that_began_it(trained):
    """Its length too, which is no setting of its own."""
    found, *_ = trained
    plan = jobs.make_plan(SMALL, "digits_standard", epochs=1)
    assert training._resumed(plan, found.run, resume=True).config == found.config


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
