"""The benchmark of the checks: what it calls right, that it goes on, and a thin part of it."""

from __future__ import annotations

import json

import pytest

from benchmarks import checks
from benchmarks.checks_models import CASES
from benchmarks.checks_training import DATA


def row(model, flags=(), seed=0, **more):
    made = {"data": "digits", "model": model, "seed": seed, "flags": list(flags)}
    return {**made, "expected": list(CASES[model].flags), "clean": 1.0, "robust": 0.5, **more}


def test_there_are_enough_models_and_both_kinds_on_both_data_sets():
    made = [(data, name) for data in DATA for name in checks.cases(data)]
    assert len(made) >= 30
    for data in DATA:
        assert {bool(CASES[name].flags) for name in checks.cases(data)} == {True, False}


def test_a_sound_model_is_right_without_flags_and_an_unsound_one_with_its_own():
    assert checks.is_right(row("pgd"))
    assert not checks.is_right(row("pgd", ["zero_gradients"]))
    assert checks.is_right(row("gradient stopped", ["never_falls_to_zero", "zero_gradients"]))
    assert not checks.is_right(row("gradient stopped", ["never_falls_to_zero"]))
    table = checks.as_table([row("pgd"), row("pgd", ["zero_gradients"], 1), row("guessing")])
    assert "| digits: pgd | 2 | 1.00 | 0.50 | 1 | 1 of 2 |" in table
    assert "False alarms: 1 of 2" in table and "Misses: 1 of 1" in table


def test_a_row_that_is_there_is_not_run_again(tmp_path, monkeypatch, capsys):
    asked = []

    def measured(task, name):
        asked.append((task.seed, name))
        return row(name, seed=task.seed)

    monkeypatch.setattr(checks, "measured", measured)
    words = ["--output", str(tmp_path), "--data", "digits", "--models", "plain", "pgd, large"]
    assert checks.main([*words, "--seeds", "0"]) == 0
    assert checks.main([*words, "--seeds", "0", "1"]) == 0
    assert asked == [(seed, name) for seed in (0, 1) for name in ("plain", "pgd, large")]
    assert len(json.loads((tmp_path / "table.json").read_text())["rows"]) == 4
    assert (tmp_path / "table.md").read_text().rstrip() in capsys.readouterr().out
    assert checks.main([*words, "--seeds", "0", "--again"]) == 0 and len(asked) == 6


@pytest.mark.slow
def test_a_thin_part_of_it_reaches_the_goal(tmp_path):
    models = ["plain", "pgd", "gradient stopped", "random resizing", "k-winners-take-all",
              "temperature by image", "fast, overfitted", "guessing"]  # fmt: skip
    words = ["--output", str(tmp_path), "--data", "digits", "--seeds", "0", "--models", *models]
    assert checks.main(words) == 0
