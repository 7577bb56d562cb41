"""Augmentation: by hand on tiny images, by statistics where it is noise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tfrobust.config import AugmentConfig
from tfrobust.data.augment import add_poisson_noise, adjust_colour, augment
from tfrobust.errors import UsageError
from tfrobust.runtime import tf

EVERYTHING = AugmentConfig(
    flip=True,
    crop_padding=2,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    gaussian_noise=0.1,
    poisson_noise=0.1,
    salt_pepper=0.1,
)
ALONE = [
    AugmentConfig(**{field.name: getattr(EVERYTHING, field.name)})
    for field in dataclasses.fields(AugmentConfig)
]
STRONGEST = AugmentConfig(True, 4, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0)


def _seeds(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(-(2**31), 2**31, (count, 2), dtype=np.int32)


def _images(count: int, height: int = 6, width: int = 5) -> np.ndarray:
    pixels = np.random.default_rng(2).integers(0, 256, (count, height, width, 3))
    return (pixels / 255).astype(np.float32)


def _same(value: float, count: int, side: int = 8) -> np.ndarray:
    return np.full((count, side, side, 3), value, np.float32)


def test_flip_reverses_half_of_the_images_left_to_right():
    image = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1).repeat(3, axis=3) / 10
    result = augment(image.repeat(1000, axis=0), _seeds(1000), AugmentConfig(flip=True)).numpy()
    # Rows 0 1 2 / 3 4 5 become 2 1 0 / 5 4 3.
    flipped = np.array([[2, 1, 0], [5, 4, 3]], np.float32)[..., None].repeat(3, axis=2) / 10
    is_flipped = (result == flipped).all(axis=(1, 2, 3))
    is_kept = (result == image[0]).all(axis=(1, 2, 3))
    assert (is_flipped | is_kept).all()
    # Binomial(1000, 1/2): 500 with standard deviation sqrt(250) = 15.8; four of them.
    assert abs(is_flipped.sum() - 500) < 64


def test_crop_takes_each_window_of_the_padded_image_equally_often():
    # Padded by 1, the 2 x 2 image  1 2   has nine windows, from  0 0  to  4 0
    #                               3 4                           0 1      0 0
    image = np.array([[1, 2], [3, 4]], np.float32)[None, :, :, None].repeat(3, axis=3) / 4
    padded = np.pad(image[0], [(1, 1), (1, 1), (0, 0)])
    windows = [padded[y : y + 2, x : x + 2] for y in range(3) for x in range(3)]
    config = AugmentConfig(crop_padding=1)
    result = augment(image.repeat(1800, axis=0), _seeds(1800), config).numpy()
    counts = [int((result == window).all(axis=(1, 2, 3)).sum()) for window in windows]
    assert sum(counts) == 1800
    # Binomial(1800, 1/9): 200 with standard deviation sqrt(1800 * 8 / 81) = 13.3; four.
    assert all(abs(count - 200) < 54 for count in counts)


def test_flip_and_crop_together_are_the_crop_of_the_flipped_or_of_the_original():
    image = _images(1)
    config = AugmentConfig(flip=True, crop_padding=1)
    result = augment(image.repeat(600, axis=0), _seeds(600), config).numpy()
    found = set()
    for flipped in (False, True):
        padded = np.pad(image[0, :, ::-1] if flipped else image[0], [(1, 1), (1, 1), (0, 0)])
        for y in range(3):
            for x in range(3):
                if (result == padded[y : y + 6, x : x + 5]).all(axis=(1, 2, 3)).any():
                    found.add((flipped, y, x))
    # Each of the 18 is missed by 600 draws with probability (17/18)^600 = 1e-15.
    assert len(found) == 18


def test_brightness_multiplies_and_clips():
    images = np.array([[[[0.2, 0.5, 0.8]]]] * 2, np.float32)
    result = adjust_colour(images, brightness=tf.constant([1.5, 0.5]))
    # 1.5 * (.2, .5, .8) = (.3, .75, 1.2 -> 1); .5 * (.2, .5, .8) = (.1, .25, .4).
    np.testing.assert_allclose(result[0, 0, 0], [0.3, 0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(result[1, 0, 0], [0.1, 0.25, 0.4], rtol=1e-6)


def test_contrast_scales_the_distance_from_each_channels_mean():
    image = np.array([[[[0.2, 0.1, 0.5], [0.6, 0.3, 0.5]]]], np.float32)
    result = adjust_colour(image, contrast=tf.constant([0.5]))
    # Means .4, .2, .5; half of the distances -.2 +.2, -.1 +.1, 0 0.
    expected = [[0.3, 0.15, 0.5], [0.5, 0.25, 0.5]]
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-6)


def test_contrast_is_that_of_tf_image():
    images, factors = _images(4), [0.6, 0.9, 1.1, 1.4]
    result = adjust_colour(images, contrast=tf.constant(factors))
    for i, factor in enumerate(factors):
        expected = np.clip(tf.image.adjust_contrast(images[i], factor), 0, 1)
        np.testing.assert_allclose(result[i], expected, atol=1e-6)


def test_saturation_zero_leaves_the_luma():
    colours = np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)
    result = adjust_colour(colours, saturation=tf.constant([0.0]))
    # Y of pure red, green and blue.
    expected = np.repeat([[0.299], [0.587], [0.114]], 3, axis=1)
    np.testing.assert_allclose(result[0, 0], expected, atol=1e-6)


def test_hue_turns_red_towards_green():
    red = np.array([[[[0.6, 0.2, 0.2]]]], np.float32)
    redder, greener, bluer = np.asarray(
        adjust_colour(red.repeat(3, axis=0), hue=tf.constant([0.0, 1 / 6, -1 / 6]))
    )[:, 0, 0]
    np.testing.assert_allclose(redder, red[0, 0, 0], atol=1e-6)
    assert greener[1] > 0.25 > greener[2]
    assert bluer[2] > 0.25 > bluer[1]


@pytest.mark.parametrize("turn, scale", [(0.1, 1.0), (-0.3, 1.0), (0.5, 0.7), (0.0, 1.4)])
def test_hue_and_saturation_are_those_of_tf_images_yiq_space(turn: float, scale: float):
    images = _images(3) * 0.2 + 0.4
    y, i, q = np.moveaxis(np.asarray(tf.image.rgb_to_yiq(images)), 3, 0)
    # From red (I, Q) = (.60, .21) towards green (-.27, -.52) is clockwise in (I, Q).
    chroma = (i + 1j * q) * scale * np.exp(-2j * math.pi * turn)
    turned = np.stack([y, chroma.real, chroma.imag], axis=3).astype(np.float32)
    expected = np.clip(tf.image.yiq_to_rgb(turned), 0, 1)
    result = adjust_colour(images, saturation=tf.fill([3], scale), hue=tf.fill([3], turn))
    # The two matrices of tf.image are inverse to each other to .0001 only.
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_strength_is_half_the_width_of_a_uniform_factor():
    result = augment(_same(0.5, 4000, 1), _seeds(4000), AugmentConfig(brightness=0.2)).numpy()
    # .5 * (1 +- .2) spans [.4, .6]: mean .5, standard deviation .2 / sqrt(12) = .0577.
    values = result[:, 0, 0, 0]
    assert 0.4 <= values.min() < 0.401 and 0.599 < values.max() <= 0.6
    assert abs(values.mean() - 0.5) < 4 * 0.0577 / math.sqrt(4000)
    assert abs(values.std() - 0.0577) < 0.001


def test_gaussian_noise_is_normal_and_independent():
    result = augment(_same(0.5, 400), _seeds(400), AugmentConfig(gaussian_noise=0.1)).numpy()
    # 76,800 values: the mean's standard error is .1 / sqrt(76,800) = .00036, the
    # standard deviation's .1 / sqrt(2 * 76,800) = .00026.
    noise = (result - 0.5).reshape(400, -1)
    assert abs(noise.mean()) < 4 * 0.00036
    assert abs(noise.std() - 0.1) < 4 * 0.00026
    # Beyond one and two standard deviations: .3173 and .0455.
    assert abs((np.abs(noise) > 0.1).mean() - 0.3173) < 0.007
    assert abs((np.abs(noise) > 0.2).mean() - 0.0455) < 0.003
    # Correlations of n pairs have standard error 1 / sqrt(n): among the values of an
    # example at any lag, and at one place among examples.
    for lag in (1, 3, 24, 96):
        assert abs(np.corrcoef(noise[:, lag:].ravel(), noise[:, :-lag].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.02


def test_examples_with_neighbouring_seeds_are_unrelated():
    counting = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [0, 2]], np.int32)
    result = augment(_same(0.5, 6, 64), counting, AugmentConfig(gaussian_noise=0.1)).numpy()
    correlation = np.corrcoef(result.reshape(6, -1)) - np.eye(6)
    # 12,288 values: standard error .009; four of them.
    assert np.abs(correlation).max() < 0.036


def test_poisson_noise_counts_photons():
    # .2 = 51/255 with strength^2 = .2 is one photon: counts 0, 1, 2 have probability
    # e^-1 = .3679, .3679 and .1839; mean .2 * 1, standard deviation .2 * sqrt(1).
    noisy = add_poisson_noise(_same(0.2, 400), _seeds(400), math.sqrt(0.2)).numpy()
    counts = noisy / 0.2
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-5)
    for count, probability in [(0, 0.3679), (1, 0.3679), (2, 0.1839)]:
        assert abs((np.round(counts) == count).mean() - probability) < 0.008
    assert abs(noisy.mean() - 0.2) < 0.003
    assert abs(noisy.std() - 0.2) < 0.003


@pytest.mark.parametrize("level", [0, 13, 128, 255])
def test_poisson_noise_has_the_pixels_mean_and_the_roots_deviation(level: int):
    noisy = add_poisson_noise(_same(level / 255, 400), _seeds(400), 0.1).numpy()
    # Strength .1: mean x, standard deviation .1 * sqrt(x); 76,800 values.
    deviation = 0.1 * math.sqrt(level / 255)
    assert abs(noisy.mean() - level / 255) <= 4 * deviation / math.sqrt(76_800)
    assert noisy.std() == pytest.approx(deviation, rel=0.02)


def test_salt_and_pepper_turn_the_given_part_of_pixels_white_and_black():
    result = augment(_same(0.5, 400), _seeds(400), AugmentConfig(salt_pepper=0.2)).numpy()
    assert (result == result[..., :1]).all()
    # 25,600 pixels, .1 each white and black: standard error sqrt(.09 / 25,600) = .0019.
    assert abs((result == 1).mean() - 0.1) < 0.0076
    assert abs((result == 0).mean() - 0.1) < 0.0076
    assert ((result == 0) | (result == 0.5) | (result == 1)).all()


def test_strength_zero_is_the_identity_bit_for_bit():
    images = _images(3)
    assert augment(images, _seeds(3), AugmentConfig()).numpy().tobytes() == images.tobytes()


@pytest.mark.parametrize("config", [*ALONE, EVERYTHING], ids=str)
def test_an_example_depends_on_its_own_seed_alone(config: AugmentConfig):
    images, seeds = _images(9), _seeds(9)
    together = augment(images, seeds, config).numpy()
    assert not np.array_equal(together, images)
    for i in range(9):
        alone = augment(images[i : i + 1], seeds[i : i + 1], config).numpy()
        np.testing.assert_array_equal(alone[0], together[i])
    backwards = augment(images[::-1], seeds[::-1], config).numpy()
    np.testing.assert_array_equal(backwards[::-1], together)
    other = augment(images, seeds + np.int32(1), config).numpy()
    assert not np.array_equal(other, together)


@pytest.mark.parametrize("config", [EVERYTHING, STRONGEST], ids=["everything", "strongest"])
def test_results_stay_images(config: AugmentConfig):
    images = np.concatenate([_images(8), 0 * _images(4), 0 * _images(4) + 1])
    result = augment(images, _seeds(16), config).numpy()
    assert result.dtype == np.float32 and result.shape == images.shape
    assert result.min() >= 0 and result.max() <= 1


def test_a_graph_gives_what_eager_execution_gives():
    images, seeds = _images(8), _seeds(8)
    graph = tf.function(
        lambda x, s: augment(x, s, EVERYTHING),
        input_signature=[
            tf.TensorSpec([None, 6, 5, 3], tf.float32),
            tf.TensorSpec([None, 2], tf.int32),
        ],
        autograph=False,
    )
    eager = augment(images, seeds, EVERYTHING)
    np.testing.assert_array_equal(graph(images, seeds), eager)


@pytest.mark.parametrize(
    "images, seeds, complaint",
    [
        (np.zeros((2, 4, 4, 3), np.uint8), _seeds(2), "uint8"),
        (np.zeros((4, 4, 3), np.float32), _seeds(4), r"\(4, 4, 3\)"),
        (np.zeros((2, 4, 4, 1), np.float32), _seeds(2), r"\(2, 4, 4, 1\)"),
        (np.zeros((2, 4, 4, 3), np.float32), _seeds(3), r"\(3, 2\)"),
        (np.zeros((2, 4, 4, 3), np.float32), _seeds(2).astype(np.int64), "int64"),
    ],
)
def test_wrong_input_is_told(images: np.ndarray, seeds: np.ndarray, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        augment(images, seeds, EVERYTHING)
