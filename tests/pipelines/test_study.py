"""A study runs its steps in order, goes on where it was stopped, and says what is wrong."""

from __future__ import annotations

import json
import time

import pytest

from pipelines import study
from pipelines.study import make_steps, study_names
from tfrobust.errors import UsageError
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


def test_a_step_with_other_flags_runs_again(recipe, tmp_path, capfd):
    out = tmp_path / "out"
    (out / "steps").mkdir(parents=True)
    mark = out / "steps" / "small.json"
    mark.write_text(json.dumps({"command": "another"}))
    assert study.main([str(recipe), "--quick", "--output", str(out)]) == 0
    assert "done before" not in capfd.readouterr().out


def test_a_failed_step_stops_the_study(recipe, tmp_path, capfd):
    recipe.write_text(STUDY.replace("--counts 9,9,9,9,9,9,9,9,9,9", "--counts 1,2"))
    assert study.main([str(recipe), "--quick", "--output", str(tmp_path / "out")]) == 1
    assert "Step small failed (exit 2" in capfd.readouterr().err
    assert not (tmp_path / "out" / "steps").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: a, run: dance --all}", "expected a verb of"),
        ("{name: a, run: 'train --data {nowhere}'}", "cannot be filled in"),
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
    assert "none not found: name it with --input" in capsys.readouterr().err


@pytest.mark.parametrize("name", study_names())
def test_every_study_s_commands_are_ones_that_its_verbs_take(name, tmp_path, capsys):
    """Parses each step's flags with the verb's own parser, whole and quick."""
    import importlib

    recipe = load_yaml(study.STUDIES / f"{name}.yaml")
    inputs = dict.fromkeys(recipe.get("inputs") or {}, "somewhere")
    for quick in (False, True):
        for step in make_steps(recipe, tmp_path, inputs, quick=quick):
            verb = importlib.import_module(f"pipelines.{step.verb}")
            args = verb.make_parser().parse_args(step.flags)
            assert args.output or step.verb == "evaluate"


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
