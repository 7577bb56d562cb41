"""What is chosen for images, network, weights and time; what the user gives always holds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tfrobust.backbones import BACKBONES, build
from tfrobust.settings import to_dict
from tfrobust.training import METHODS
from tfrobust.training.defaults import Facts, chosen_config

SMALL = Facts(side=32, images=3600, classes=10, tested=1000)
PRETRAINED = {"backbone": {"weights": "mobilenet_v2_1.0_96_no_top.h5"}}


def told(config, *words):
    return all(any(word in line for line in config.chosen) for word in words)


def test_a_network_that_leaves_nothing_of_a_small_image_gets_a_stem_or_a_resize():
    for name, stem, resize in (
        ("mobilenetv2", "medium", None), ("resnet50", "medium", None),
        ("nasnetmobile", "standard", 64), ("simplenet", "standard", None),
        ("vit", "standard", None),
    ):  # fmt: skip
        config = chosen_config(SMALL, {"backbone": {"name": name}})
        assert (config.backbone.stem, config.backbone.resize) == (stem, resize), name
        assert told(config, "1x1") == (stem != "standard" or resize is not None)
    # Images of 64 pixels keep 2x2; those below 32 are enlarged for any network.
    assert chosen_config(replace(SMALL, side=64), {}).backbone.stem == "standard"
    assert chosen_config(replace(SMALL, side=28), {}).backbone.resize == 32
    assert chosen_config(SMALL, {"backbone": {"stem": "standard"}}).backbone.stem == "standard"


@pytest.mark.parametrize("name", list(BACKBONES))
def test_what_is_chosen_can_be_built_for_every_network(name):
    config = chosen_config(SMALL, {"backbone": {"name": name}})
    assert config.backbone.name == name and config.training.stages[0].warmup_epochs > 0
    if name in ("simplenet", "vit", "resnet18"):
        chosen = to_dict(config)["backbone"]
        model = build(chosen.pop("name"), num_classes=10, image_shape=(32, 32, 3), **chosen)
        assert min(model.get_layer("avg_pool").input.shape[1:3]) >= 2


def test_without_a_network_the_one_that_measured_best():
    assert chosen_config(SMALL, {}).backbone.name == "resnet18"
    assert chosen_config(SMALL, {"backbone": {"name": "auto"}}) == chosen_config(SMALL, {})
    assert chosen_config(SMALL, PRETRAINED).backbone.name == "mobilenetv2"
    torch = {"backbone": {"weights": "a/resnet34-b627a593.pth"}}
    assert chosen_config(SMALL, torch).backbone.name == "resnet34"


def test_pretrained_weights_are_unfrozen_in_stages_at_the_size_that_they_know():
    config = chosen_config(SMALL, PRETRAINED)
    blocks = [stage.blocks for stage in config.training.stages]
    assert blocks[0] == "head" and blocks[-1] == "all" and config.training.eps_ramp > 0
    assert config.backbone.resize is not None and config.backbone.stem == "standard"
    assert config.training.stages[-1].learning_rate < chosen_config(
        SMALL, {}).training.stages[-1].learning_rate  # fmt: skip
    # Larger images are not resized to less than the weights know of them.
    assert chosen_config(replace(SMALL, side=224), PRETRAINED).backbone.resize is None


def test_nsl_is_adversarial_regularisation_with_a_clean_loss():
    training = chosen_config(SMALL, {}).training
    assert training.method.name == "nsl"
    weights = training.method.settings
    assert weights["clean_weight"] == 1.0 < weights["adv_weight"]
    assert told(chosen_config(SMALL, {}), "clean +")


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_takes_what_is_chosen(method):
    from tfrobust.training.from_config import check_trainable

    config = chosen_config(SMALL, {"training": {"method": method}})
    check_trainable(config)
    assert config.training.method.name == method
    assert (config.training.eps_ramp > 0) == (method not in ("standard", "noise"))


def test_what_is_given_holds_and_is_not_told_as_chosen():
    given = {
        "backbone": {"name": "resnet18", "alpha": 0.5, "stem": "small"},
        "training": {"optimizer": "adam", "eps_ramp": 0.0, "clean_start": 0.0,
                     "clean_weight": 0.0, "adv_weight": 1.0, "crafting": "pgd"},
        "augment": {"flip": False, "crop_padding": 0},
        "threat": {"eps": 0.01},
    }  # fmt: skip
    config = chosen_config(SMALL, given)
    plain = to_dict(config)
    for group, values in given.items():
        found = plain[group] | (plain[group]["method"] if group == "training" else {})
        assert {k: found[k] for k in values} == values
    assert not told(config, "width") and not told(config, "stem:") and not told(config, "eps rises")
    assert config.evaluation.sweep == (0.0025, 0.005)


def test_length_follows_the_number_of_images_and_the_flags():
    few, many = (
        chosen_config(replace(SMALL, images=n), {}).training.stages[0] for n in (500, 45_000)
    )
    assert few.epochs > many.epochs >= 8
    assert chosen_config(SMALL, {}, epochs=7).training.stages[0].epochs == 7
    rates = [s.learning_rate for s in chosen_config(SMALL, PRETRAINED, 7, 0.3).training.stages]
    assert max(rates) == 0.3 and rates[1] < 0.3
    timed = chosen_config(SMALL, {"training": {"time_limit": 8.0}})
    assert told(timed, "8 min") and timed.training.time_limit == 8.0


def test_digits_and_letters_are_not_mirrored():
    assert chosen_config(SMALL, {}).augment.flip
    assert not chosen_config(replace(SMALL, symbols=True), {}).augment.flip


def test_choosing_needs_no_tensorflow():
    code = (
        "import sys; from tfrobust.training.defaults import Facts, chosen_config\n"
        "chosen_config(Facts(32, 100, 10, 10), {})\n"
        "assert not {'tensorflow', 'tf_keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_heavy_network_keeps_small_maps_where_time_is_short():
    heavy = {"backbone": {"name": "resnet50"}}
    for minutes, images, stem in ((8.0, 3600, "standard"), (60.0, 3600, "medium"),
                                  (30.0, 49_000, "standard")):  # fmt: skip
        given = {**heavy, "training": {"time_limit": minutes}}
        config = chosen_config(replace(SMALL, images=images), given)
        assert config.backbone.stem == stem
    light = {"backbone": {"name": "mobilenetv2"}, "training": {"time_limit": 8.0}}
    assert chosen_config(SMALL, light).backbone.stem == "medium"
