"""A network's inside: feature maps, channels, and the images that classes ask for."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.errors import UsageError
from tfrobust.explain.feature_maps import FeatureMap, channel_layers, feature_maps, is_conv_or_dense
from tfrobust.explain.figure_data import channel_rows, layer_means
from tfrobust.explain.maximise import maximise
from tfrobust.figures.channels import Channels
from tfrobust.figures.class_images import ClassImages, MaximisedImages
from tfrobust.figures.feature_maps import FeatureMaps
from tfrobust.runtime import keras, tf

RNG = np.random.default_rng(0)


def network() -> keras.Model:
    """A convolution, a depthwise one, one whose map is 1x1, and a dense layer."""
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", name="first")(image)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.DepthwiseConv2D(2, strides=2, name="second")(x)
    x = keras.layers.Conv2D(2, 2, name="third")(x)
    x = keras.layers.Flatten(name="flat")(x)
    return keras.Model(image, keras.layers.Dense(3, name="logits")(x), name="network")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return network()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return RNG.random((2, 4, 4, 3), np.float32)


# --- feature maps -------------------------------------------------------------------------


def test_feature_maps_are_a_sub_model_s_outputs(model, x) -> None:
    found = feature_maps(model, x)
    assert [one.layer for one in found] == ["first", "second", "third", "logits"]
    for one in found:
        part = keras.Model(model.input, model.get_layer(one.layer).output)
        np.testing.assert_allclose(one.values, part(x, training=False), atol=1e-6)
        assert one.values.dtype == np.float32
    # One kernel of the first layer by hand, at a place where no padding counts.
    kernel, bias = model.get_layer("first").get_weights()
    expected = (x[0, 0:3, 1:4] * kernel[..., 4]).sum() + bias[4]
    np.testing.assert_allclose(found[0].values[0, 1, 2, 4], expected, rtol=1e-4)


def test_feature_maps_refuse_other_images_and_may_be_none(model) -> None:
    with pytest.raises(UsageError, match=r"images \[4, 4, 3\].*found \[5, 4, 3\]"):
        feature_maps(model, np.zeros((1, 5, 4, 3), np.float32))
    image = keras.Input((4, 4, 3))
    plain = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    assert feature_maps(plain, np.zeros((1, 4, 4, 3), np.float32)) == []


def test_convolutions_and_dense_layers_are_shown(model) -> None:
    kinds = keras.layers
    for layer in (kinds.Conv2D(1, 1), kinds.DepthwiseConv2D(1), kinds.SeparableConv2D(1, 1),
                  kinds.Dense(1), type("Mine", (kinds.Conv2D,), {})(1, 1)):  # fmt: skip
        assert is_conv_or_dense(layer)
    for layer in (kinds.ReLU(), kinds.BatchNormalization(), kinds.Flatten(), kinds.MaxPool2D()):
        assert not is_conv_or_dense(layer)
    # Those with channels to draw: larger than 1x1.
    assert channel_layers(model) == ["first", "second"]


def test_means_of_maps_units_and_tokens() -> None:
    values = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    # (0 + 1) / 2, (2 + 3) / 2, ...
    assert FeatureMap("a", values).mean.tolist() == [[[0.5, 2.5], [4.5, 6.5]]]
    assert FeatureMap("a", np.array([[1.0, 2.0]])).mean.tolist() == [[[1, 2]]]
    # 4 tokens were a map of 2x2; 5 (with a class token) are a line.
    assert FeatureMap("a", values.reshape(1, 4, 2)).mean.tolist() == [[[0.5, 2.5], [4.5, 6.5]]]
    assert FeatureMap("a", np.zeros((1, 5, 2))).mean.shape == (1, 1, 5)


def test_channels_are_evenly_spaced() -> None:
    ten = FeatureMap("a", np.arange(10.0).reshape(1, 1, 1, 10))
    assert ten.channels(4).ravel().tolist() == [0, 3, 6, 9]
    assert ten.channels(16).ravel().tolist() == list(range(10))


# --- their figures ------------------------------------------------------------------------


def test_feature_maps_of_models_and_images_share_a_scale(shown, said, model, x) -> None:
    clean, attacked = feature_maps(model, x[:1]), feature_maps(model, x[1:])
    maps = {name: {"clean": clean, "adversarial": attacked} for name in ("nsl", "plain")}
    drawn = FeatureMaps().draw(layer_means(maps))
    found = shown(drawn)
    # 4 layers, 2 models, 2 images; the first layer's means over 5 channels come first.
    assert len(found) == 16
    np.testing.assert_allclose(found[0], clean[0].values[0].mean(axis=-1), atol=1e-6)
    np.testing.assert_allclose(found[1], attacked[0].values[0].mean(axis=-1), atol=1e-6)
    ranges = [axes.images[0].get_clim() for axes in drawn.axes]
    assert ranges[0] == ranges[1] == (min(m.min() for m in found[:2]),
                                      max(m.max() for m in found[:2]))  # fmt: skip
    words = said(drawn)
    assert {"nsl", "plain", "first", "4×4×5", "logits", "3"} <= set(words)


def test_models_of_other_layers_do_not_compare(model, x) -> None:
    found = feature_maps(model, x)
    with pytest.raises(UsageError, match="the same layers"):
        layer_means({"a": {"clean": found}, "b": {"clean": found[1:]}})


def test_channels_of_the_layers_that_are_asked_for(shown, said, model, x) -> None:
    found = feature_maps(model, x[:1])
    every, asked = (Channels().draw(channel_rows(found, one)) for one in (None, ["second"]))
    assert {"first", "4×4×5", "second", "2×2×5"} <= set(said(every))
    pictures = shown(every)
    assert len(pictures) == 10 and len(shown(asked)) == 5
    np.testing.assert_array_equal(pictures[3], found[0].values[0, :, :, 3])
    np.testing.assert_array_equal(shown(asked)[2], found[1].values[0, :, :, 2])
    assert "first" not in said(asked)


@pytest.mark.parametrize(
    ("layers", "message"),
    [(["third", "second"], "of first, second; found third"), (["magic"], "found magic")],
)
def test_layers_without_a_map_have_no_channels(model, x, layers, message) -> None:
    with pytest.raises(UsageError, match=message):
        channel_rows(feature_maps(model, x[:1]), layers)
    with pytest.raises(UsageError, match="found none"):
        channel_rows(feature_maps(model, x[:1])[2:])


# --- activation maximisation --------------------------------------------------------------


@pytest.fixture(scope="module")
def colours() -> keras.Model:
    """Logits (mean red - mean blue, mean green): whatever the jitter, each pixel counts alike."""
    image = keras.Input((8, 8, 3))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, tf.stack([mean[:, 0] - mean[:, 2], mean[:, 1]], axis=1))


def test_maximise_raises_the_logit_of_its_class_alone(colours) -> None:
    options = {"steps": 20, "learning_rate": 0.05, "smoothness": 0.0, "seed": 3}
    found = maximise(colours, [1, 0], **options)
    assert found.shape == (2, 8, 8, 3) and found.dtype == np.float32
    noise = np.random.default_rng(3).normal(0.5, 0.05, found.shape).astype(np.float32)
    # Adam under a constant gradient moves its learning rate a step: 20 * .05 = 1, to the end
    # of the range; what the logit does not depend on stays noise, though the jitter shifts it.
    np.testing.assert_allclose(found[0, ..., 1], 1, atol=0.02)
    for channel in (0, 2):
        left, was = (np.sort(one[0, ..., channel], axis=None) for one in (found, noise))
        np.testing.assert_allclose(left, was, atol=1e-5)
    np.testing.assert_allclose(found[1, ..., 0], 1, atol=0.02)
    np.testing.assert_allclose(found[1, ..., 2], 0, atol=0.02)
    before, after = colours(noise).numpy(), colours(found).numpy()
    assert after[0, 1] > before[0, 1] + 0.4 and after[1, 0] > before[1, 0] + 0.8
    np.testing.assert_array_equal(found, maximise(colours, [1, 0], **options))


def test_smoothness_holds_single_pixels_back(colours) -> None:
    def variation(smoothness: float) -> float:
        options = {"steps": 10, "learning_rate": 0.01}
        found = maximise(colours, [0], smoothness=smoothness, **options)
        return float(np.abs(np.diff(found, axis=1)).mean())

    assert variation(10.0) < 0.8 * variation(0.0)


@pytest.mark.parametrize(("classes", "steps"), [([], 5), ([2], 5), ([-1], 5), ([0], 0)])
def test_maximise_refuses_what_is_no_class(colours, classes, steps) -> None:
    with pytest.raises(UsageError, match=r"classes in 0\.\.1, "):
        maximise(colours, classes, steps=steps)


LONG = "mobilenetv2_with_a_longer-name"


def test_class_images_are_shown_with_their_words(shown, said, beside) -> None:
    pictures = RNG.random((2, 2, 4, 4, 3))
    names = ("cat", "dog", "goldfish, Carassius auratus, which is a long word")
    images = {"nsl": pictures[0], "plain": pictures[1]}
    drawn = ClassImages().draw(MaximisedImages(images, [2, 0], names))
    found = shown(drawn)
    np.testing.assert_allclose(np.stack(found), pictures.reshape(4, 4, 4, 3))
    assert said(drawn)[1:] == ["goldfish", "cat", "nsl", "plain"]
    images = {LONG: pictures[0], "plain": pictures[1]}
    assert beside(ClassImages().draw(MaximisedImages(images, [2, 0], names)), LONG)
