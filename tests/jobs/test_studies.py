"""`jobs.study` as a notebook calls it: its steps are plain calls."""

from __future__ import annotations

import pytest

from tfrobust import jobs
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.jobs import Step


def writing(path, text="made"):
    return lambda: path.write_text(text)


def test_a_step_is_done_once(tmp_path):
    words, lines = ("perturb", "--output", str(tmp_path / "a")), []
    for _ in range(2):
        found = jobs.study([Step("first", words, writing(tmp_path / "a"))], tmp_path,
                           tell=lines.append)  # fmt: skip
    assert [step.name for step in found.steps] == ["first"] and found.folder == tmp_path
    assert lines.count("done before") == 1
    other = Step("first", (*words, "--eps", "0.1"), writing(tmp_path / "a"))
    with pytest.raises(UsageError):
        jobs.study([other], tmp_path)


def test_a_step_that_fails_keeps_those_before_it(tmp_path):
    def fail():
        raise UsageError("No.")

    first = Step("first", ("perturb", "--output", "a"), writing(tmp_path / "a"))
    with pytest.raises(TFRobustError):
        jobs.study([first, Step("second", ("perturb", "--output", "b"), fail)], tmp_path)
    lines = []
    second = Step("second", ("perturb", "--output", "b"), writing(tmp_path / "b"))
    jobs.study([first, second], tmp_path, tell=lines.append)
    assert lines.count("done before") == 1 and (tmp_path / "b").is_file()


def test_what_builds_on_what():
    def step(*words):
        return Step(words[1], words, print)

    train = step("train", "--recipe", "digits", "--output", "s/run")
    other = step("train", "--output", "s/run-2", "--data", "s/run/figures/x")
    evaluate = step("evaluate", "s/run", "--attack", "pgd")
    compare = step("compare", "a=s/run-2,s/run", "--output", "s/table")
    assert other.reads(train) and evaluate.reads(train) and compare.reads(train)
    assert compare.reads(evaluate) and compare.reads(other)
    assert not evaluate.reads(other) and not train.reads(other)
