"""Settings: checked, written to YAML and read back the same."""

from __future__ import annotations

import pytest
import yaml

from tfrobust.config import DataConfig, RunConfig, StageConfig, ThreatConfig, TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.settings import (
    format_eps,
    from_dict,
    load_yaml,
    merge,
    parse_number,
    save_yaml,
    to_dict,
)


def test_yaml_round_trip_is_the_same_run(tmp_path):
    stages = (StageConfig("head", 2, 0.1), StageConfig("3", 4, 0.01, patience=2))
    config = RunConfig(
        data=DataConfig(dataset="a.zip"), threat=ThreatConfig("l2", 0.5),
        training=TrainingConfig(stages=stages),
    )  # fmt: skip
    save_yaml(config, tmp_path / "config.yaml")
    assert from_dict(RunConfig, load_yaml(tmp_path / "config.yaml")) == config


def test_numbers_as_users_write_them():
    # 8/255 = .0313725...
    assert parse_number("8/255") == pytest.approx(0.0313725, abs=1e-7)
    assert parse_number("1e-3") == 0.001
    for wrong in ("8/0", "x", "nan", "inf", "8/255/2", "", "/"):
        with pytest.raises(UsageError, match="8/255"):
            parse_number(wrong)
    assert from_dict(RunConfig, {"threat": {"eps": "0.5/255"}}).threat.eps == 0.5 / 255


def test_eps_is_shown_as_users_write_it():
    shown = [format_eps(value) for value in (8 / 255, 0.5 / 255, 0.05, 0.03)]
    assert shown == ["8/255", "0.5/255", "0.05", "0.03"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"treat": {}}, "unknown setting 'treat'. Did you mean 'threat'?"),
        ({"training": {"step": 3}}, "Did you mean 'steps'?"),
        ({"threat": {"eps": -1}}, "eps: expected at least 0, found -1"),
        ({"threat": {"norm": "l3"}}, "norm: expected one of linf, l2, l1, l0, found 'l3'"),
        ({"seed": "x"}, "expected int, found 'x'"),
        ({"seed": True}, "expected int, found True"),
        ({"training": {"stages": [{"epochs": 0}]}}, "epochs: expected at least 1"),
        ({"training": {"stages": 3}}, "expected a list, found 3"),
        ({"training": None}, "expected settings"),
        ({"data": {"select_fraction": 0}}, "more than 0"),
        ({"training": {"batch_norm": "some"}}, "clean, adversarial, both, none"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(UsageError) as caught:
        from_dict(RunConfig, values)
    assert message in str(caught.value)


@pytest.mark.parametrize("warmup", [2, 2.5])
def test_a_warm_up_as_long_as_its_stage_is_refused(warmup):
    values = {"training": {"stages": [{"epochs": 2, "warmup_epochs": warmup}]}}
    with pytest.raises(UsageError) as caught:
        from_dict(RunConfig, values)
    assert str(caught.value) == (
        "warmup_epochs: expected fewer than the 2 epochs of the stage, or its learning rate is "
        f"never reached, found {warmup:g}."
    )
    assert StageConfig(epochs=2, warmup_epochs=1.9).warmup_epochs == 1.9


def test_flags_lie_over_a_recipe_setting_by_setting():
    merged = merge({"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "e": 2})
    assert merged == {"a": {"b": 1, "c": [3]}, "d": 1, "e": 2}


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_broken_yaml_is_one_sentence(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml"):
        load_yaml(path)


def test_missing_yaml_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_yaml(tmp_path / "none.yaml")


def test_plain_values_only(tmp_path):
    assert yaml.safe_load(yaml.safe_dump(to_dict(RunConfig()))) == to_dict(RunConfig())


def test_none_is_a_list_of_nothing():
    from pipelines.evaluate import make_parser
    from tfrobust.cli.flags import given_settings

    for text, expected in (("none", []), ("1/255,0.5", [1 / 255, 0.5])):
        args = make_parser().parse_args(["run", "--sweep", text])
        assert list(given_settings(args)["evaluation"]["sweep"]) == expected
