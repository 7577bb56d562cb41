"""Corruptions: golden values, what each does, and the contract that all share."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupt
from tfrobust.errors import UsageError
from tfrobust.runtime import tf

SEED = tf.constant([7, 8])
DETERMINISTIC = {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression",
}  # fmt: skip


PIXELS = ((3, 5, 0), (9, 8, 1), (16, 21, 2), (30, 12, 0))
GOLDEN = {
    ("gaussian_noise", 32): (0.4532, 0.6394, 0.8797, 0.5964, 0.8570),
    ("gaussian_noise", 64): (0.4566, 0.8126, 0.9361, 0.6442, 0.6767),
    ("shot_noise", 32): (0.4559, 0.7000, 0.8500, 0.5600, 0.9600),
    ("shot_noise", 64): (0.4547, 0.8800, 0.9800, 0.5200, 0.7800),
    ("impulse_noise", 32): (0.4554, 1.0000, 0.8000, 0.5647, 0.6980),
    ("impulse_noise", 64): (0.4565, 0.7412, 0.8000, 0.5647, 0.6980),
    ("defocus_blur", 32): (0.4538, 0.7392, 0.6860, 0.5610, 0.6961),
    ("defocus_blur", 64): (0.4544, 0.7399, 0.5704, 0.5625, 0.6967),
    ("glass_blur", 32): (0.4540, 0.7338, 0.6865, 0.4515, 0.7333),
    ("glass_blur", 64): (0.4533, 0.7158, 0.3473, 0.4382, 0.7051),
    ("motion_blur", 32): (0.4529, 0.7697, 0.7999, 0.6620, 0.6220),
    ("motion_blur", 64): (0.4545, 0.7602, 0.8000, 0.6219, 0.6619),
    ("zoom_blur", 32): (0.4531, 0.7484, 0.7306, 0.4395, 0.7058),
    ("zoom_blur", 64): (0.4511, 0.7557, 0.7595, 0.4854, 0.6960),
    ("snow", 32): (0.5594, 0.8173, 0.8860, 0.6407, 1.0000),
    ("snow", 64): (0.6968, 1.0000, 1.0000, 0.7927, 0.9120),
    ("frost", 32): (0.6313, 0.9031, 0.9142, 0.7927, 0.7248),
    ("frost", 64): (0.6170, 0.8603, 0.9236, 0.7323, 0.6690),
    ("fog", 32): (0.4639, 0.5157, 0.5178, 0.6004, 0.5007),
    ("fog", 64): (0.4656, 0.4800, 0.4732, 0.6060, 0.4695),
    ("brightness", 32): (0.5553, 0.8912, 0.8870, 0.6784, 0.8302),
    ("brightness", 64): (0.6271, 1.0000, 0.8870, 0.7579, 0.8812),
    ("contrast", 32): (0.4541, 0.5743, 0.6094, 0.4760, 0.5570),
    ("contrast", 64): (0.4545, 0.5192, 0.5447, 0.4482, 0.5105),
    ("elastic_transform", 32): (0.4576, 0.7487, 0.8000, 0.3953, 0.6475),
    ("elastic_transform", 64): (0.4581, 0.7504, 0.8000, 0.3909, 0.6684),
    ("pixelate", 32): (0.4541, 0.7412, 0.8000, 0.5618, 0.6980),
    ("pixelate", 64): (0.4545, 0.7490, 0.8000, 0.5882, 0.7098),
    ("jpeg_compression", 32): (0.4529, 0.7686, 0.6745, 0.5843, 0.6667),
    ("jpeg_compression", 64): (0.4547, 0.7412, 0.7294, 0.5686, 0.6824),
}


def picture(side=32):
    """Coloured waves with a bright square: smooth parts, edges, near black and near white."""
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    angle = 2 * np.pi * np.stack([columns, rows, rows + columns], axis=-1) / side
    image = 0.45 + 0.35 * np.sin(angle * np.array([1, 2, 1.5]) + np.array([0, 1, 2]))
    image[side // 4 : side // 2, side // 4 : side // 2] = (0.9, 0.8, 0.3)
    return (np.round(image * 255) / 255).astype("float32")


def textured(side=32):
    """The picture under a fine 8-bit pattern, which every blur and resampling loses."""
    pattern = np.random.default_rng(0).uniform(-0.08, 0.08, (side, side, 3))
    return np.clip(np.round((picture(side) + pattern) * 255) / 255, 0, 1).astype("float32")


def batch(side=32, count=4):
    return tf.constant(np.stack([np.roll(textured(side), 5 * i, axis=1) for i in range(count)]))


def test_the_fifteen_in_four_groups():
    assert len(CORRUPTIONS) == 15
    assert [len(GROUPS[group]) for group in ("noise", "blur", "weather", "digital")] == [3, 4, 4, 4]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_golden_values(name):
    for side in (32, 64):
        result = corrupt(tf.constant(picture(side))[None], name, 3, SEED)[0].numpy()
        # The mean of the image, and four of its values.
        found = [result.mean(), *(result[side * i // 32, side * j // 32, c] for i, j, c in PIXELS)]
        np.testing.assert_allclose(found, GOLDEN[name, side], atol=1e-3)


@pytest.mark.diagonal
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_grows(name, side):
    x = batch(side).numpy()
    results = [corrupt(tf.constant(x), name, severity, SEED).numpy() for severity in SEVERITIES]
    distances = [np.abs(result - x).mean() for result in results]
    if name == "frost":
        # The published weights darken the image while they brighten the ice, which may
        # cancel out in the distance: what is left of the image is what shrinks.
        distances = [1 - np.corrcoef(result.ravel(), x.ravel())[0, 1] for result in results]
    if name in ("elastic_transform", "glass_blur"):
        # The published parameters trade one part of these for the other: no order.
        assert min(distances) > 0.02
        return
    # At 32x32, motion blur at severities 3 and 4 differs in where the streak is cut off only.
    assert np.all(np.diff(distances) > -1e-4)
    assert distances[4] > 1.1 * distances[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_range_type_and_shape_inside_tf_data(name):
    x = batch(count=3)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    # Rewriting the source would take longer than all the rest, and it has no loop in Python.
    as_it_is = tf.autograph.experimental.do_not_convert
    mapped = data.map(as_it_is(lambda images: corrupt(images, name, 5, SEED)))
    assert mapped.element_spec == tf.TensorSpec([None, 32, 32, 3], tf.float32)
    results = [result.numpy() for result in mapped]
    assert [len(result) for result in results] == [2, 1]
    for result in results:
        assert result.min() >= 0
        assert result.max() <= 1
        assert np.isfinite(result).all()
    np.testing.assert_allclose(results[0], corrupt(x[:2], name, 5, SEED), atol=1e-5)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seeds(name):
    same = tf.repeat(tf.constant(picture())[None], 2, axis=0)
    first = corrupt(same, name, 4, SEED).numpy()
    assert np.array_equal(first, corrupt(same, name, 4, SEED))
    other = corrupt(same, name, 4, SEED + 1).numpy()
    assert np.array_equal(first, other) == (name in DETERMINISTIC)
    # Rows draw for themselves.
    assert np.array_equal(first[0], first[1]) == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_does_not_depend_on_its_batch(name):
    x, seeds = batch(), tf.constant([[1, 2], [3, 4], [5, 6], [7, 8]])
    whole = corrupt(x, name, 4, seeds).numpy()
    for i in (0, 3):
        alone = corrupt(x[i : i + 1], name, 4, seeds[i : i + 1])
        np.testing.assert_allclose(whole[i : i + 1], alone, atol=1e-5)
    turned = corrupt(x[::-1], name, 4, seeds[::-1])
    np.testing.assert_allclose(whole, turned[::-1], atol=1e-5)
    np.testing.assert_allclose(
        corrupt(x, name, 4, SEED)[:1], corrupt(x[:1], name, 4, SEED), atol=1e-5
    )


@pytest.mark.diagonal
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 100)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_sizes(name, height, width):
    x = tf.image.resize(picture(64)[None], [height, width])
    result = corrupt(x, name, 5, SEED).numpy()
    assert result.shape == (1, height, width, 3)
    assert np.isfinite(result).all()
    assert np.abs(result - x).mean() > 0.005


# What some of them do, in figures that follow from the definition.


def test_noise_has_the_published_size():
    grey = tf.fill([8, 32, 32, 3], 0.5019608)
    noise = corrupt(grey, "gaussian_noise", 3, SEED).numpy() - grey.numpy()
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.08], atol=2e-3)
    # Poisson of 100 photons at white: variance 0.502 / 100.
    noise = corrupt(grey, "shot_noise", 3, SEED).numpy() - grey.numpy()
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.0709], atol=2e-3)
    result = corrupt(grey, "impulse_noise", 5, SEED).numpy()
    np.testing.assert_allclose([(result == v).mean() for v in (0, 1)], [0.035] * 2, atol=4e-3)


@pytest.mark.parametrize("name", GROUPS["blur"])
def test_blurs_leave_a_flat_image_and_move_no_light(name):
    flat = tf.fill([1, 64, 64, 3], 0.6)
    np.testing.assert_allclose(corrupt(flat, name, 5, SEED), flat, atol=1 / 255)
    dot = np.zeros((1, 64, 64, 3), "float32")
    dot[:, 28:36, 28:36] = 1
    result = corrupt(tf.constant(dot), name, 4, SEED).numpy()
    # Glass draws its pixels, and zoom enlarges the dot.
    assert abs(result.sum() / dot.sum() - 1) < {"glass_blur": 0.3, "zoom_blur": 0.25}.get(
        name, 1e-4
    )
    assert result.max() <= 1 + 1e-6


def test_contrast_and_brightness_by_hand():
    x = np.zeros((1, 8, 8, 3), "float32")
    x[:, :4] = (0.2, 0.4, 0.5)
    # Means 0.1, 0.2, 0.25; factor 0.4: 0.1 + 0.4 * 0.1 and so on.
    result = corrupt(tf.constant(x), "contrast", 3, SEED).numpy()
    np.testing.assert_allclose(result[0, 0, 0], [0.14, 0.28, 0.35], atol=1e-6)
    np.testing.assert_allclose(result[0, 7, 0], [0.06, 0.12, 0.15], atol=1e-6)
    # The value 0.5 becomes 0.65, hue and saturation stay: all channels times 1.3.
    result = corrupt(tf.constant(x), "brightness", 3, SEED).numpy()
    np.testing.assert_allclose(result[0, 0, 0], [0.26, 0.52, 0.65], atol=1e-5)
    np.testing.assert_allclose(result[0, 7, 0], [0.15, 0.15, 0.15], atol=1e-5)


def test_pixelate_halves_the_resolution_of_64():
    x = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3)).astype("float32")
    # Severity 5 shrinks by 0.5: blocks of 2 x 2.
    result = corrupt(tf.constant(x), "pixelate", 5, SEED).numpy()
    means = x.reshape(1, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(result, means.repeat(2, axis=1).repeat(2, axis=2), atol=1e-5)


def test_fog_keeps_the_brightest_value_as_the_limit():
    x = tf.constant(picture())[None] * 0.5
    assert np.max(corrupt(x, "fog", 5, SEED)) <= np.max(x) + 1e-6


def test_elastic_is_affine_at_severity_1_and_bends_lines_after():
    # An image that grows evenly from left to right stays even where no edge is mirrored.
    ramp = np.broadcast_to(np.linspace(0, 1, 64)[None, None, :, None], (1, 64, 64, 3))

    def bend(severity):
        image = corrupt(tf.constant(ramp, tf.float32), "elastic_transform", severity, SEED)
        inner = image.numpy()[0, 16:48, 16:48, 0]
        return np.abs(np.diff(inner, n=2, axis=0)).max()

    assert bend(1) < 1e-5
    assert bend(4) > 1e-3


def test_snow_is_streaks_and_their_turned_copy():
    black = tf.zeros([1, 32, 32, 3])
    # From the whitening, black becomes (1 - 0.95) * 0.5; what is above is snow.
    flakes = corrupt(black, "snow", 1, SEED).numpy() - 0.025
    assert flakes.min() > -1e-6
    assert 0 < flakes.mean() < 0.1
    np.testing.assert_allclose(flakes, flakes[:, ::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("x", "name", "severity", "seed", "named"),
    [
        (tf.zeros([1, 32, 32, 3]), "fogg", 1, SEED, "fog"),
        (tf.zeros([1, 32, 32, 3]), "fog", 0, SEED, "severity"),
        (tf.zeros([1, 32, 32, 3]), "fog", 6, SEED, "severity"),
        (tf.zeros([1, 32, 32, 3], tf.uint8), "fog", 1, SEED, "float32"),
        (tf.zeros([1, 32, 32, 1]), "fog", 1, SEED, "B, H, W, 3"),
        (tf.zeros([1, 4, 4, 3]), "fog", 1, SEED, "8x8"),
        (tf.zeros([1, 32, 32, 3]), "fog", 1, tf.constant([1, 2, 3]), "seed"),
        (tf.zeros([1, 32, 32, 3]), "fog", 1, tf.constant([1.0, 2.0]), "seed"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(x, name, severity, seed, named):
    with pytest.raises(UsageError, match=named):
        corrupt(x, name, severity, seed)
