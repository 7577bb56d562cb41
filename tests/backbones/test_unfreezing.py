"""Blocks of a network, and which of them train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfrobust.backbones import blocks, build, set_trainable
from tfrobust.errors import UsageError
from tfrobust.runtime import keras


@pytest.fixture(scope="module")
def built() -> Any:
    return build("mobilenetv2", num_classes=3, image_shape=(32, 32, 3), alpha=0.35)


@pytest.fixture
def small(built: Any) -> Any:
    """As new: all of it trains."""
    built.trainable = True
    return built


def test_the_blocks_of_mobilenetv2(small: Any) -> None:
    units = tuple(f"block_{i}" for i in range(16, 0, -1))
    found = blocks(small)
    assert tuple(block.name for block in found) == ("head", "top", *units, "stem")
    assert [layer.name for layer in found[1].layers] == ["Conv_1", "Conv_1_bn"]
    assert [layer.name for layer in found[-1].layers] == [
        "Conv1",
        "bn_Conv1",
        "expanded_conv_depthwise",
        "expanded_conv_depthwise_BN",
        "expanded_conv_project",
        "expanded_conv_project_BN",
    ]


def test_set_trainable_opens_blocks_from_the_top(small: Any) -> None:
    # The head: kernel and bias. Top: kernel, gamma, beta. Block 16: 3 x (kernel, gamma, beta).
    # All 53 convolutions or BatchNormalizations: 52 x 3, and the head's 2.
    assert set_trainable(small, "head") == ("head",)
    assert len(small.trainable_weights) == 2
    assert set_trainable(small, 2) == ("head", "top", "block_16")
    assert len(small.trainable_weights) == 2 + 3 + 9
    assert set_trainable(small, "2") == ("head", "top", "block_16")
    assert len(set_trainable(small, "all")) == 19
    assert len(small.trainable_weights) == 2 + 52 * 3
    assert set_trainable(small, 0) == ("head",)
    assert len(small.trainable_weights) == 2


def test_a_model_frozen_as_a_whole_thaws(small: Any) -> None:
    small.trainable = False
    set_trainable(small, 1)
    assert len(small.trainable_weights) == 5


def test_frozen_batch_normalization_keeps_its_statistics(small: Any) -> None:
    set_trainable(small, 1)
    before = {
        layer.name: layer.moving_mean.numpy()
        for layer in small.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    small(np.random.default_rng(0).random((4, 32, 32, 3), np.float32), training=True)
    moved = {
        name
        for name in before
        if not np.array_equal(before[name], small.get_layer(name).moving_mean)
    }
    assert moved == {"Conv_1_bn"}


@pytest.mark.parametrize("wrong", ["tail", -1, 19, "19", 1.5, True, ""])
def test_set_trainable_refuses_what_is_no_stage(small: Any, wrong: Any) -> None:
    with pytest.raises(UsageError, match="from 0 to 18, found"):
        set_trainable(small, wrong)


def test_any_keras_model_has_a_block_per_layer_with_variables() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(2, 3, name="a"),
            layers.ReLU(),
            layers.Conv2D(2, 3, name="b"),
            layers.Flatten(),
            layers.Dense(4, name="c"),
        ]
    )
    assert [block.name for block in blocks(model)] == ["head", "b", "a"]
    assert set_trainable(model, 1) == ("head", "b")
    assert [layer.name for layer in model.layers if layer.trainable and layer.weights] == ["b", "c"]


def test_a_foreign_model_of_a_backbone_s_name_has_a_block_per_layer() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="own")(inputs), name="resnet50")
    assert [block.name for block in blocks(model)] == ["head"]


def test_blocks_of_a_model_without_variables_are_refused() -> None:
    with pytest.raises(UsageError, match="with none: build it"):
        blocks(keras.Sequential([keras.layers.ReLU()]))
