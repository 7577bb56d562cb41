"""Help: one screen of what most people need, and everything when it is asked for."""

from __future__ import annotations

import importlib
import re

import pytest

from tfrobust.cli.main import VERBS
from tfrobust.config import RunConfig, ThreatConfig
from tfrobust.run import RunFolder

LINES = 24


def help_of(verb, capsys, *words, module=False):
    command = importlib.import_module(f"tfrobust.cli.{verb}").COMMAND
    command = command.as_module() if module else command
    with pytest.raises(SystemExit) as stop:
        command.main(list(words))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_one_screen_and_help_all_has_every_flag(verb, capsys):
    short, whole = (help_of(verb, capsys, word) for word in ("--help", "--help-all"))
    assert short.startswith(f"usage: tfrobust {verb}")
    options = [line for line in short.splitlines() if line.startswith("  ")]
    assert 0 < len(options) <= LINES
    parser = importlib.import_module(f"tfrobust.cli.{verb}").make_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]
    assert all(re.search(rf"{flag}\b", whole) for flag in flags)
    shown = sum(bool(re.search(rf"^  .*{flag}\b", short, re.M)) for flag in flags)
    assert 0 < shown < len(flags)
    assert f"tfrobust {verb} --help-all" in short


@pytest.mark.parametrize("verb", VERBS)
def test_the_module_s_help_has_every_flag(verb, capsys):
    text = help_of(verb, capsys, "--help", module=True)
    assert text.startswith(f"usage: python -m pipelines.{verb}")
    parser = importlib.import_module(f"pipelines.{verb}").make_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]
    assert all(flag in text for flag in flags if flag != "--help-all")


def test_everything_is_in_groups(capsys):
    text = help_of("train", capsys, "--help-all")
    for group in ("run", "data", "backbone", "threat", "training", "augment", "evaluation"):
        assert f"\n{group} settings:\n" in text


def squeezed(text):
    return " ".join(text.split())


@pytest.mark.parametrize("word", ["--help", "--help-all"])
def test_defaults_are_those_that_hold(word, capsys, tmp_path):
    training = squeezed(help_of("train", capsys, word))
    assert "8/255 (default: 0.05)" in training
    training = squeezed(help_of("train", capsys, "--recipe", "cifar10_30min", word))
    assert "8/255 (default: 8/255)" in training
    assert "(default: the run's, or 8/255)" in squeezed(help_of("evaluate", capsys, word))
    RunFolder(tmp_path).write_config(RunConfig(threat=ThreatConfig(norm="l2", eps=0.5)))
    of_run = squeezed(help_of("evaluate", capsys, str(tmp_path), word))
    assert "8/255 (default: 0.5)" in of_run and "(default: l2)" in of_run
