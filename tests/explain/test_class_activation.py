"""Class-activation maps by axiom, and the layer that they read, on every kind of network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tfrobust.backbones import BACKBONES, build
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.explain import EXPLAINERS
from tfrobust.explain.class_activation import gradcam, gradcam_plus_plus, layercam, scorecam
from tfrobust.explain.target_layer import target_layer
from tfrobust.runtime import keras, tf

METHODS = (gradcam, gradcam_plus_plus, layercam, scorecam)
SIDE = 8


@pytest.fixture(scope="module")
def corners() -> keras.Model:
    """A map of 4x4 with the mean of each 2x2 block; logit 0 sees red, logit 1 green."""
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.AveragePooling2D(2, name="blocks")(image)
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(x))
    model.get_layer("conv").set_weights([np.eye(3, 2, dtype="float32").reshape(1, 1, 3, 2)])
    model.get_layer("logits").set_weights([16 * np.eye(2, dtype="float32"), np.zeros(2)])
    return model


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Red in the upper left of the first image, green in the lower right of the second."""
    images = np.zeros((2, SIDE, SIDE, 3), np.float32)
    images[0, :2, :2, 0] = 1
    images[1, 6:, 6:, 1] = 0.5
    return images


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_hot_where_the_class_is_and_nowhere_else(method, corners, x) -> None:
    found = method(corners, x, np.array([0, 1]), target_layer="conv")
    assert found.shape == (2, SIDE, SIDE) and found.dtype == np.float32 and found.min() >= 0
    assert np.unravel_index(found[0].argmax(), (SIDE, SIDE)) == (0, 0)
    assert np.unravel_index(found[1].argmax(), (SIDE, SIDE)) == (7, 7)
    # Bilinear enlargement of 4x4 reaches half a block beyond the one that is hot.
    assert not found[0, 3:].any() and not found[0, :, 3:].any()
    assert not found[1, :5].any() and not found[1, :, :5].any()


def test_gradcam_worked_by_hand(corners, x) -> None:
    # The logit is 16 times the mean of the red channel over 16 places: each has gradient 1;
    # so has their mean. The map is 1 in the upper left block and 0 elsewhere.
    found = gradcam(corners, x, np.array([0, 0]), target_layer="conv")
    np.testing.assert_allclose(found[0, 0, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(found[0].sum(), 4, rtol=1e-5)
    # Nothing in the second image is red.
    assert not found[1].any()


def test_what_speaks_against_a_class_is_zero(corners, x) -> None:
    head = corners.get_layer("logits")
    before = head.get_weights()
    try:
        head.set_weights([-before[0], before[1]])
        for method in (gradcam, gradcam_plus_plus, layercam):
            assert not method(corners, x, np.array([0, 1]), target_layer="conv").any()
    finally:
        head.set_weights(before)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_s_map_does_not_depend_on_its_batch(method, corners, x) -> None:
    whole = method(corners, x, np.array([0, 1]))
    for i in range(2):
        alone = method(corners, x[i : i + 1], np.array([i]))
        np.testing.assert_allclose(whole[i : i + 1], alone, atol=1e-6)


def test_small_activations_are_not_lost(corners, x) -> None:
    found = gradcam(corners, x * np.float32(1e-6), np.array([0, 1]), target_layer="conv")
    assert found[0, 0, 0] > 0 and found[1, 7, 7] > 0


@pytest.mark.parametrize("name", ["gradcam", "scorecam"])
def test_maps_that_are_not_finite_are_told(name) -> None:
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, tf.reduce_mean(keras.layers.ReLU(name="map")(image) / 0.0, (1, 2)))
    with pytest.raises(TFRobustError, match="NaN or infinity"):
        explainer = replace(EXPLAINERS[name], target_layer="map")
        explainer(model, np.ones((1, 4, 4, 3), np.float32), np.array([0]))


# ---- the layer ----


@pytest.mark.parametrize(
    "backbone",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "simplenet_plus")),
     "mobilenetv2", "simplenet", "vit"],
)  # fmt: skip
@pytest.mark.parametrize("side", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_the_last_map_larger_than_1x1_is_found(backbone, side) -> None:
    model = build(backbone, num_classes=3, image_shape=(side, side, 3), seed=0)
    name = target_layer(model)
    found = model.get_layer(name).output.shape[1:3]
    assert max(found) > 1
    later = [layer.name for layer in model.layers].index(name)
    for layer in model.layers[later + 1 :]:
        shape = layer.output.shape
        assert len(shape) != 4 or max(shape[1:3]) <= 1
    maps = gradcam(model, np.random.default_rng(0).random((2, side, side, 3), np.float32),
                   np.array([0, 1]))  # fmt: skip
    assert maps.shape == (2, side, side) and np.isfinite(maps).all()


def test_maps_of_gradcam_that_cancel_out_are_reported(corners, x, caplog) -> None:
    """A logit of a flattened map: +1 at one place, -1 at all others, so -14/16 in the mean."""
    gradcam(corners, x, np.array([0, 1]), target_layer="conv")
    assert not caplog.records
    image = keras.Input((4, 4, 1), name="image")
    maps = keras.layers.Conv2D(1, 1, use_bias=False, name="conv")(image)
    flat = keras.Model(image, keras.layers.Dense(1, name="logits")(keras.layers.Flatten()(maps)))
    flat.get_layer("conv").set_weights([np.ones((1, 1, 1, 1), np.float32)])
    weights = np.where(np.arange(16) == 0, 1.0, -1.0).astype("float32")[:, None]
    flat.get_layer("logits").set_weights([weights, np.zeros(1)])
    bright = np.zeros((1, 4, 4, 1), np.float32)
    bright[0, 0, 0] = 1
    assert not gradcam(flat, bright, np.array([0]), target_layer="conv").any()
    assert "layercam" in caplog.text
    assert layercam(flat, bright, np.array([0]), target_layer="conv")[0].argmax() == 0


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_is_found_on_every_network(backbone) -> None:
    model = build(backbone, num_classes=3, image_shape=(64, 64, 3), seed=0)
    assert max(model.get_layer(target_layer(model)).output.shape[1:3]) > 1


def test_a_layer_can_be_named_and_a_wrong_one_is_told(corners) -> None:
    assert target_layer(corners, "blocks") == "blocks"
    with pytest.raises(UsageError, match="such as its last ones.*conv; found no such layer"):
        target_layer(corners, "cnv")
    with pytest.raises(UsageError, match="found a layer without one"):
        target_layer(corners, "logits")
    image = keras.Input((4, 4, 3))
    flat = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    with pytest.raises(UsageError, match="larger than 1x1, found none"):
        target_layer(flat)
