"""What a space may say, and what it becomes in a configuration."""

from __future__ import annotations

import pytest

from tfrobust.config import RunConfig, StageConfig, TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.plugins import Choice
from tfrobust.search.space import NAMED, apply, base_value, parse_space, searchable, spaced


def test_lists_ranges_and_names():
    space = parse_space("batch_size=32, 64;learning_rate=1e-5..1e-3:log:3;eps=2/255,8/255;")
    batch, rate, eps = space
    assert (batch.name, batch.setting, batch.values) == (
        "batch_size",
        "training.batch_size",
        (32, 64),
    )
    # 1e-5 to 1e-3 in three equal ratios of 10.
    assert rate.values == (1e-5, 1e-4, 1e-3)
    assert (rate.low, rate.high, rate.log, rate.integer) == (1e-5, 1e-3, True, False)
    assert eps.values == (2 / 255, 8 / 255) and eps.low is None


def test_yaml_says_the_same_as_text():
    text = parse_space("batch_size=32,64;learning_rate=1e-5..1e-3:log;weights=none,imagenet")
    yaml = {
        "batch_size": [32, 64],
        "learning_rate": "1e-5..1e-3:log",
        "weights": ["none", "imagenet"],
    }
    assert parse_space(yaml) == text


def test_any_setting_by_its_dotted_name_or_by_a_unique_one():
    space = parse_space(
        "training.momentum=0.8,0.9;augment.flip=true,false;dropout=0,0.2;clip_norm=none,1;"
        "stages.2.epochs=1..4:2;training.method=nsl,standard"
    )
    assert [f.setting for f in space] == [
        "training.momentum", "augment.flip", "backbone.dropout", "training.clip_norm",
        "training.stages.2.epochs", "training.method",
    ]  # fmt: skip
    assert [f.values for f in space][1:5] == [(True, False), (0.0, 0.2), (None, 1.0), (1, 4)]
    for name in NAMED:
        parse_space({name: [1]})


def test_values_are_spaced_with_exact_ends():
    # Equal steps: 1, 2, 3; equal ratios: 1, 10^0.5 = 3.162, 10.
    assert spaced(1, 3, 3, log=False, integer=False) == (1, 2, 3)
    assert spaced(1, 10, 3, log=True, integer=False) == (1, 3.162, 10)
    # Whole numbers between 2 and 4: 2, 2.67, 3.33, 4 become 2, 3, 4.
    assert spaced(2, 4, 4, log=False, integer=True) == (2, 3, 4)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("batch_size", "expected NAME=A,B,C or NAME=LOW..HIGH"),
        ("", "The space is empty"),
        ("batchsize=1,2", "expected one of batch_size, learning_rate.*Did you mean 'batch_size'"),
        ("batch_size=1,2;training.batch_size=4", "names training.batch_size twice"),
        ("batch_size=1,2;batch_size=4", "names batch_size twice"),
        ("batch_size=32,32", "expected different values"),
        ("batch_size=32,big", "expected a whole number, found 'big'"),
        ("batch_size=1.5..3", "expected a whole number, found '1.5'"),
        ("learning_rate=1e-3..1e-5", "expected LOW below HIGH, found"),
        ("learning_rate=0..1:log", "both above 0"),
        ("learning_rate=1e-3..1:lgo", "expected 'log' or a number of points, found 'lgo'"),
        ("learning_rate=a..1", "expected a number such as|Expected a number"),
        ("augment.flip=yes", "expected true or false, found 'yes'"),
        ("evaluation.steps=1,2", "cannot be searched"),
        ("seed=1,2", "cannot be searched"),
        ("data.test_fraction=0.1,0.2", "cannot be searched"),
        ("training.stages.N.epochs=1,2", "cannot be searched|Unknown"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(space, message):
    with pytest.raises(UsageError, match=message) as error:
        parse_space(space)
    assert "\n" not in str(error.value)


def test_nothing_that_trials_are_compared_on_can_be_searched():
    names = set(searchable())
    assert "data.limit_train" in names and "training.stages.N.learning_rate" in names
    for name in names - {"data.limit_train", "data.augment_with"}:
        assert not name.startswith(("data.", "evaluation.", "seed", "training.select"))


def test_a_point_becomes_a_configuration_and_leaves_the_rest():
    space = parse_space("batch_size=8,16;learning_rate=0.5,0.25;eps=1/255;blocks=0,2")
    point = {"batch_size": 16, "learning_rate": 0.25, "eps": 1 / 255, "blocks": "2"}
    config = apply(RunConfig(), space, point)
    (stage,) = config.training.stages
    assert (config.training.batch_size, stage.learning_rate, stage.blocks) == (16, 0.25, "2")
    assert config.threat.eps == 1 / 255 and stage.epochs == 10 and config.seed == 42
    assert [base_value(config, factor) for factor in space] == list(point.values())


def test_stages_are_named_by_number_where_there_are_several():
    two = RunConfig(training=TrainingConfig(stages=(StageConfig(), StageConfig(epochs=3))))
    config = apply(two, parse_space("stages.2.epochs=7"), {"stages.2.epochs": 7})
    assert [stage.epochs for stage in config.training.stages] == [10, 7]
    with pytest.raises(UsageError, match="expected a recipe of one stage, found 2"):
        apply(two, parse_space("epochs=7"), {"epochs": 7})
    with pytest.raises(UsageError, match="the recipe has 2 stages"):
        apply(two, parse_space("stages.3.epochs=7"), {"stages.3.epochs": 7})


def test_weights_may_be_a_run_folder_and_must_be_there(tmp_path):
    space = parse_space({"weights": ["none", str(tmp_path)]})
    with pytest.raises(UsageError, match="expected none, imagenet, a run folder or a file"):
        apply(RunConfig(), space, {"weights": str(tmp_path)})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.keras").touch()
    found = apply(RunConfig(), space, {"weights": str(tmp_path)}).backbone.weights
    assert found == str(tmp_path / "checkpoints" / "best.keras")


def test_a_value_out_of_range_is_refused():
    with pytest.raises(UsageError, match="batch_size: expected at least 1"):
        apply(RunConfig(), parse_space("batch_size=0,1"), {"batch_size": 0})


def test_settings_of_a_method_are_searched_where_it_has_them():
    space = parse_space("training.method=trades,nsl;beta=3,6;adv_weight=1,2")
    config = RunConfig(training=TrainingConfig(method="nsl:clean_weight=0"))
    assert [base_value(config, factor) for factor in space] == ["nsl", None, 1.0]
    point = {"beta": 3.0, "adv_weight": 2.0}
    trades = apply(config, space, {**point, "training.method": "trades"}).training.method
    assert trades == Choice("trades", {"awp": 0.0, "beta": 3.0})
    # The base's own settings stay where the method is the base's.
    nsl = apply(config, space, {**point, "training.method": "nsl"}).training.method.settings
    assert (nsl["clean_weight"], nsl["adv_weight"]) == (0.0, 2.0)
