"""A mistyped flag or value is answered with the nearest."""

from __future__ import annotations

import pytest

from tfrobust.cli.flags import given_settings
from tfrobust.cli.parser import Parser
from tfrobust.cli.train import make_parser
from tfrobust.errors import UsageError


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["--backbon", "resnet18"], "--backbone"),
        (["--optimiser=adam"], "--optimizer"),
        (["--backbone", "restnet18"], "resnet18"),
        (["--method", "trade"], "trades"),
        (["--norm", "linff"], "linf"),
    ],
)
def test_the_nearest_is_suggested(words, near, capsys):
    with pytest.raises(SystemExit) as stop:
        make_parser().parse_args(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.strip().endswith(f"Did you mean {near!r}?")
    # The answer is seen: usage does not push it off the screen.
    assert error.startswith("usage: tfrobust train [options]\n") and len(error) < 1000


def test_what_is_like_nothing_has_no_suggestion(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--xyzzy"])
    assert "Did you mean" not in capsys.readouterr().err


def test_a_common_flag_that_is_none_is_our_mistake():
    parser = Parser(common=("--none",))
    with pytest.raises(KeyError):
        parser.finish()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--corruptions"], {"corruptions": True, "corruption_set": None}),
        (["--no-corruptions"], {"corruptions": False, "corruption_set": None}),
        (["--corruptions", "DIR"], {"corruptions": True, "corruption_set": "DIR"}),
    ],
)
def test_a_switch_that_may_name_a_folder(words, expected):
    given = given_settings(make_parser().parse_args(words))
    assert given.get("evaluation", {}) == expected
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--no-corruptions", "DIR"])


def test_what_follows_the_switch_is_the_model_where_no_other_is_named(tmp_path):
    from tfrobust.cli import evaluate

    # Both are looked for as a model; without one there is nothing to look for.
    for words in (["--corruptions", str(tmp_path / "run")], [str(tmp_path / "run")]):
        args = evaluate.make_parser().parse_args(words)
        evaluate._name_the_model(args)
        assert args.model == str(tmp_path / "run")
        assert not given_settings(args).get("evaluation", {}).get("corruption_set")
    with pytest.raises(UsageError):
        evaluate._name_the_model(evaluate.make_parser().parse_args(["--corruptions"]))
