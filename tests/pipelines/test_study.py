"""A study runs its steps in order, goes on where it was stopped, and says what is wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines import study, train
from tfrobust import jobs
from tfrobust.cli.plans import make_plan
from tfrobust.cli.studies import STUDIES, make_steps, study_names
from tfrobust.errors import UsageError
from tfrobust.jobs.studies import locked
from tfrobust.settings import load_yaml

STUDY = """
inputs: {images: "digits"}
steps:
  - name: small
    run: imbalance --data {images} --output {out}/a.pt --counts 9,9,9,9,9,9,9,9,9,9
    quick: --grey 0.5
  - name: again
    run: imbalance --data {out}/a.pt --output {out}/b.pt --counts 2,2,2,2,2,2,2,2,2,2
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(STUDY)
    return path


def test_steps_run_in_order_and_only_once(recipe, tmp_path, capfd):
    args = [str(recipe), "--quick", "--output", str(tmp_path / "out"), "--input", "images=digits"]
    assert study.main(args) == 0
    shown = capfd.readouterr().out
    assert shown.index("[1/2] small") < shown.index("[2/2] again")
    assert "--grey 0.5" in shown and (tmp_path / "out" / "b.pt").is_file()
    marks = sorted(path.stem for path in (tmp_path / "out" / "steps").iterdir())
    assert marks == ["again", "small"]
    (tmp_path / "out" / "steps" / "again.json").unlink()
    (tmp_path / "out" / "b.pt").unlink()
    assert study.main(args) == 0
    assert capfd.readouterr().out.count("done before") == 1
    assert (tmp_path / "out" / "b.pt").is_file()


def test_what_was_made_of_other_data_is_not_taken_for_done(recipe, tmp_path, capfd):
    out = tmp_path / "out"
    args = [str(recipe), "--quick", "--output", str(out)]
    assert study.main(args) == 0
    (out / "steps" / "again.json").rename(tmp_path / "again.json")
    recipe.write_text(STUDY.replace("--grey 0.5", "--grey 0.1"))
    capfd.readouterr()
    assert study.main(args) == 2
    assert "Step small was done with another command" in capfd.readouterr().err
    # Done again, its id is new: what was built on the old one is not done.
    assert study.main([*args, "--redo", "small"]) == 0
    assert "small, again" in capfd.readouterr().out
    (tmp_path / "again.json").replace(out / "steps" / "again.json")
    assert study.main(args) == 2
    assert "add --redo again" in capfd.readouterr().err
    assert study.main([*args, "--redo", "nothing"]) == 2
    assert "expected a step of small, again" in capfd.readouterr().err


def test_a_folder_with_a_space_is_one_argument(recipe, tmp_path):
    steps = make_steps(load_yaml(recipe), tmp_path / "my out", {"images": "a b.zip"}, quick=False)
    assert steps[0].words[1:5] == ("--data", "a b.zip", "--output", f"{tmp_path}/my out/a.pt")


def test_a_folder_is_held_by_one_process(recipe, tmp_path, capfd):
    out = tmp_path / "out"
    with locked(out):
        assert study.main([str(recipe), "--quick", "--output", str(out)]) == 1
        assert "Another process is at work" in capfd.readouterr().err
    assert study.main([str(recipe), "--quick", "--output", str(out)]) == 0


def test_a_training_that_was_stopped_goes_on(tmp_path, monkeypatch):
    recipe, calls = tmp_path / "one.yaml", []
    recipe.write_text(
        "steps: [{name: a, run: 'train --recipe digits --epochs 2 --output {out}/a'}]"
    )
    monkeypatch.setattr(jobs, "train", lambda plan, run, **given: calls.append((run, given)))
    assert study.main([str(recipe), "--output", str(tmp_path / "out")]) == 0
    ((run, given),) = calls
    assert run == str(tmp_path / "out" / "a") and given["resume"]


def test_a_failed_step_stops_the_study(recipe, tmp_path, capfd):
    recipe.write_text(STUDY.replace("--counts 9,9,9,9,9,9,9,9,9,9", "--counts 1,2"))
    assert study.main([str(recipe), "--quick", "--output", str(tmp_path / "out")]) == 1
    assert "Step small failed" in capfd.readouterr().err
    assert not (tmp_path / "out" / "steps").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: a, run: dance --all}", "expected a verb of"),
        ("{name: a, run: 'train --data {nowhere}'}", "cannot be substituted"),
        ("{name: a}", "A step has name, run"),
    ],
)
def test_a_recipe_that_is_none_is_refused(recipe, tmp_path, entry, message):
    recipe.write_text(f"steps: [{entry}]")
    with pytest.raises(UsageError, match=message):
        make_steps(load_yaml(recipe), tmp_path, {}, quick=False)


def test_a_missing_input_is_told_before_anything_runs(recipe, tmp_path, capsys):
    args = [str(recipe), "--output", str(tmp_path), "--input", f"images={tmp_path / 'none'}"]
    assert study.main(args) == 2
    assert "none not found" in capsys.readouterr().err


@pytest.mark.parametrize("name", study_names())
def test_every_study_s_commands_are_ones_that_its_verbs_take(name, tmp_path, capsys):
    """Parses each step's flags with the verb's own parser, whole and quick."""
    import importlib

    recipe = load_yaml(STUDIES / f"{name}.yaml")
    inputs = dict.fromkeys(recipe.get("inputs") or {}, "somewhere") | recipe.get("settings", {})
    for quick in (False, True):
        for step in make_steps(recipe, tmp_path, inputs, quick=quick):
            verb = importlib.import_module(f"pipelines.{step.words[0]}")
            args = verb.make_parser().parse_args(step.words[1:])
            assert args.output or step.words[0] == "evaluate"


def test_a_study_s_settings_are_set(capsys):
    args = ["brittleness", "--list", "--set", "recipe=brittleness_resnet18"]
    assert study.main(args) == 0
    shown = capsys.readouterr().out
    assert shown.count("--recipe brittleness_resnet18") == 3
    assert study.main(["brittleness", "--list", "--set", "color=red"]) == 2
    assert "--set: expected one of recipe=..., found color=red" in capsys.readouterr().err


def test_fast_takes_a_step_of_the_whole_radius_in_the_study():
    recipe = load_yaml(STUDIES / "ten_class.yaml")
    (step,) = (s for s in make_steps(recipe, Path("o"), {"images": "a"}, quick=False)
               if s.name == "fast")  # fmt: skip
    config = make_plan(train.make_parser().parse_args(step.words[1:])).config
    assert config.training.method.name == "fast" and config.training.step_size == config.threat.eps


def test_the_warm_up_shrinks_with_the_epochs():
    args = ["--recipe", "ten_class", "--data", "digits", "--epochs"]
    for epochs, expected in (("60", 3.0), ("20", 1.0), ("1", 0.05), ("90", 3.0)):
        (stage,) = make_plan(train.make_parser().parse_args([*args, epochs])).config.training.stages
        assert stage.warmup_epochs == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", study_names())
def test_a_quick_study_runs_from_end_to_end_in_two_minutes(name, tmp_path, monkeypatch):
    """On the embedded digits: no input needs to be there."""
    monkeypatch.setenv("TFROBUST_SHARED", str(tmp_path / "nowhere"))
    begin = time.monotonic()
    assert study.main([name, "--quick", "--output", str(tmp_path / "out")]) == 0
    table = (tmp_path / "out" / "comparison" / "comparison.csv").read_text().splitlines()
    assert len(table) > 2 and (tmp_path / "out" / "comparison" / "comparison.png").is_file()
    # On 2 cores with nothing else to do; a busy machine is given twice that.
    assert time.monotonic() - begin < 240
