"""Saliency by axiom: maps whose answer is known."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.explain import EXPLAINERS
from tfrobust.explain.integrated_gradients import integrated_gradients
from tfrobust.explain.saliency import parts, saliency, scale, smoothgrad, sum_channels
from tfrobust.runtime import keras, tf

SHAPE = (4, 5, 3)
CLASSES = 6


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def linear(weights: np.ndarray) -> keras.Model:
    image = keras.Input(SHAPE)
    head = keras.layers.Dense(CLASSES)
    model = keras.Model(image, head(keras.layers.Flatten()(image)))
    head.set_weights([weights, np.ones(CLASSES, np.float32)])
    return model


@pytest.fixture(scope="module")
def square() -> keras.Model:
    """logit k = (k + 1) * sum of squared pixels: its gradient is 2 (k + 1) x."""
    image = keras.Input(SHAPE)
    total = tf.reduce_sum(image**2, axis=(1, 2, 3))
    return keras.Model(image, tf.stack([total, 2 * total], axis=1))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).random((3, *SHAPE), dtype=np.float32)


@pytest.mark.parametrize("name", ["saliency", "smoothgrad"])
def test_of_a_linear_model_is_the_weight_column(name, linear, weights, x) -> None:
    found = EXPLAINERS[name](linear, x, np.array([5, 0, 2]))
    # logit_k = w_k . x + b_k, so d logit_k / dx = w_k at any x, noisy or not.
    for one, target in zip(found, (5, 0, 2), strict=True):
        np.testing.assert_allclose(one, weights[:, target].reshape(SHAPE), rtol=1e-6)
    assert found.dtype == np.float32


def test_saliency_of_a_linear_model_is_exact(linear, weights, x) -> None:
    found = saliency(linear, x, np.array([1, 1, 1]))
    np.testing.assert_array_equal(found, np.stack([weights[:, 1].reshape(SHAPE)] * 3))


def test_each_image_is_explained_by_its_own_target(square, x) -> None:
    found = saliency(square, x, np.array([0, 1, 0]))
    # 2 (k + 1) x: twice the image for class 0, four times for class 1.
    np.testing.assert_allclose(found, x * np.reshape([2, 4, 2], (3, 1, 1, 1)), rtol=1e-6)


def test_inference_mode_and_statistics_stay(x) -> None:
    image = keras.Input(SHAPE)
    hidden = keras.layers.BatchNormalization(moving_variance_initializer="ones")(image)
    hidden = keras.layers.Dropout(0.9)(hidden)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(hidden))
    before = model.get_weights()
    found = saliency(model, x, np.array([0, 0, 0]))
    # BatchNorm at rest divides by sqrt(1 + 1e-3); the mean over 20 pixels gives 1 / 20.
    np.testing.assert_allclose(found[..., 0], 0.05 / np.sqrt(1.001), rtol=1e-5)
    assert not found[..., 1:].any()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_image_the_logit_ignores_has_zero_gradient(x) -> None:
    image = keras.Input(SHAPE)
    model = keras.Model(image, tf.zeros_like(image)[:, 0, 0, :])
    assert not saliency(model, x, np.array([0, 1, 2])).any()


# --- SmoothGrad ---------------------------------------------------------------------------


def test_smoothgrad_averages_over_noise_in_proportion_to_contrast(square) -> None:
    x = np.full((2, *SHAPE), 0.5, np.float32)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 1.0, 0.75  # ranges .5 and .25
    found = smoothgrad(square, x, np.array([0, 0]), noise=0.2, samples=1)
    # gradient 2 (x + noise * range * n), with the same n for both images
    normal = (found / 2 - x) / (0.2 * np.reshape([0.5, 0.25], (2, 1, 1, 1)))
    np.testing.assert_allclose(normal[0], normal[1], atol=1e-4)
    assert 0.7 < normal[0].std() < 1.3
    many = smoothgrad(square, x, np.array([0, 0]), noise=0.2, samples=100)
    # The mean of 100 has a tenth of the deviation: 2 * .2 * .5 / 10 = .02, here 5 of it.
    np.testing.assert_allclose(many, 2 * x, atol=0.1)


def test_smoothgrad_is_seeded_and_leaves_global_random_state(square, x) -> None:
    target, state = np.array([0, 0, 1]), np.random.get_state()[1].copy()
    first = smoothgrad(square, x, target, samples=2, seed=3)
    np.testing.assert_array_equal(first, smoothgrad(square, x, target, samples=2, seed=3))
    assert np.abs(first - smoothgrad(square, x, target, samples=2, seed=4)).max() > 1e-3
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_smoothgrad_of_an_image_does_not_depend_on_its_batch(square, x) -> None:
    whole = smoothgrad(square, x, np.array([0, 0, 1]), samples=2)
    alone = smoothgrad(square, x[2:], np.array([1]), samples=2)
    np.testing.assert_allclose(whole[2:], alone, rtol=1e-6)


@pytest.mark.parametrize("options", [{"noise": -0.1}, {"samples": 0}])
def test_smoothgrad_refuses_impossible_settings(square, x, options) -> None:
    with pytest.raises(UsageError, match="Expected noise of 0 or more"):
        smoothgrad(square, x, np.array([0, 0, 0]), **options)


# --- parts and scale ----------------------------------------------------------------------


def test_positive_minus_negative_is_signed() -> None:
    signed = np.random.default_rng(2).normal(size=(2, 4, 5, 3)).astype(np.float32)
    positive, negative = parts(signed)
    assert positive.min() >= 0 and negative.min() >= 0
    np.testing.assert_array_equal(positive - negative, signed)
    assert not (positive * negative).any()
    np.testing.assert_allclose(
        sum_channels(positive) - sum_channels(negative), sum_channels(signed), atol=1e-6
    )


def test_scale_is_per_image_and_by_percentile() -> None:
    # 0..100: the 90th percentile is 90; 45 becomes .5, and 90 to 100 become 1.
    ramp = np.arange(101, dtype=np.float32).reshape(1, 101, 1)
    found = scale(np.concatenate([ramp, ramp * 1e-38]), percentile=90)
    np.testing.assert_allclose(found[0, [0, 45, 90, 100], 0], [0, 0.5, 1, 1])
    # A factor of 1e-38 leaves float32's normal range, and changes nothing.
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


def test_zeros_stay_zero_and_single_pixels_show() -> None:
    maps = np.zeros((2, 20, 20), np.float32)
    maps[1, 3, 4] = 7e-9
    with np.errstate(all="raise"):
        found = scale(maps)
    assert not found[0].any()
    assert found[1].max() == found[1, 3, 4] == 1 and found[1].sum() == 1


def test_scale_refuses_signed_maps_and_impossible_percentiles() -> None:
    with pytest.raises(UsageError, match="found -1: take parts"):
        scale(np.full((1, 2, 2), -1.0))
    with pytest.raises(UsageError, match=r"\(0, 100\], found 0"):
        scale(np.ones((1, 2, 2)), percentile=0)


# --- wrong input --------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.array([1, 2])}, r"Expected 3 integer targets.*\[2\]"),
        ({"target": np.array([1])}, r"Expected 3 integer targets.*\[1\]"),
        ({"target": np.array([0.0, 1.0, 2.0])}, "found float64"),
        ({"target": np.array([0, 1, CLASSES])}, r"in 0\.\.5.*found 0 to 6"),
        ({"target": np.array([0, 1, -1])}, "found -1 to 1"),
        ({"x": np.zeros((3, *SHAPE), np.uint8)}, "found uint8.*divide uint8 images by 255"),
        ({"x": np.zeros(SHAPE, np.float32)}, r"\[4, 5, 3\].*add a batch axis"),
        ({"x": np.full((3, *SHAPE), 255.0)}, r"in \[0, 1\], found 255 to 255"),
        ({"x": np.full((3, *SHAPE), np.nan)}, "found nan"),
    ],
)
def test_wrong_input_is_refused(name, linear, x, change, message) -> None:
    arguments = {"x": x, "target": np.array([0, 1, 2]), **change}
    with pytest.raises(UsageError, match=message):
        EXPLAINERS[name](linear, arguments["x"], arguments["target"])


def test_gradients_that_are_not_finite_are_told(x) -> None:
    image = keras.Input(SHAPE)
    # The derivative of the root at 0 is infinite, and 0 times it is NaN.
    model = keras.Model(image, tf.sqrt(image * 0)[:, 0, 0, :])
    with pytest.raises(TFRobustError, match="found NaN or infinity"):
        saliency(model, x, np.array([0, 1, 2]))


def test_all_explainers_are_called_alike() -> None:
    for explain in EXPLAINERS.values():
        parameters = inspect.signature(explain).parameters.values()
        needed = [p.name for p in parameters if p.default is p.empty]
        assert needed == ["model", "x", "target"]


def test_the_settings_of_an_explainer_are_those_of_its_function(linear, x) -> None:
    target = np.array([5, 0, 2])
    found = replace(EXPLAINERS["smoothgrad"], samples=2, seed=3)(linear, x, target)
    np.testing.assert_array_equal(found, smoothgrad(linear, x, target, samples=2, seed=3))
    whole = replace(EXPLAINERS["integrated-gradients"], baseline=0.5, steps=2)
    expected = integrated_gradients(linear, x, target, baseline=0.5, steps=2)
    np.testing.assert_array_equal(whole(linear, x, target), expected)
