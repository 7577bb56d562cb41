"""Stems for small images: the same layers and weights, on larger maps."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.backbones import BACKBONES, build
from tfrobust.runtime import keras

ONE_OF_EACH = ("mobilenetv2", "resnet50", "resnet50v2", "densenet121", "efficientnetb0")


def last_map(model):
    return model.get_layer("avg_pool").input.shape[1:3]


def made(name, stem, **settings):
    return build(name, num_classes=3, image_shape=(32, 32, 3), stem=stem, **settings)


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet18"])
def test_each_stem_leaves_twice_the_side_of_the_one_before(name):
    sides = [last_map(made(name, stem)) for stem in ("standard", "medium", "small")]
    assert sides == [(1, 1), (2, 2), (4, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BACKBONES if "stem" in BACKBONES[name].options])
def test_every_network_that_takes_a_stem(name):
    model = made(name, "small")
    assert last_map(model) == (4, 4)
    assert model(np.zeros((1, 32, 32, 3), "float32")).shape == (1, 3)
    assert np.isfinite(model(np.ones((1, 32, 32, 3), "float32"))).all()


def test_weights_of_the_standard_stem_fit_and_are_the_same_function_of_a_patch(tmp_path):
    standard = made("mobilenetv2", "standard", seed=1)
    standard.save_weights(tmp_path / "all.h5")
    small = made("mobilenetv2", "small", weights=str(tmp_path / "all.h5"))
    for one, two in zip(standard.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # The first convolution without its stride: every second value is the one with it.
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype("float32")
    first = [keras.Model(m.input, m.get_layer("Conv1").output)(x) for m in (standard, small)]
    # Keras pads a stride of 2 on the right and below only: its centres are the odd ones.
    np.testing.assert_allclose(first[0][:, :-1, :-1], first[1][:, 1:-1:2, 1:-1:2], atol=1e-5)


def test_normalisation_inside_survives_the_stem():
    found = [
        [layer.get_weights()[0] for layer in made("efficientnetb0", stem).layers
         if isinstance(layer, keras.layers.Normalization)]
        for stem in ("standard", "medium")
    ]  # fmt: skip
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0][0].max() > 0
