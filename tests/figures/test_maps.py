"""The overlay and model against model, worked by hand on models of one pixel."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.errors import UsageError
from tfrobust.explain.figure_data import maps_by_model, overlays
from tfrobust.explain.overlay import overlaid
from tfrobust.explain.saliency import saliency
from tfrobust.figures.maps import Maps
from tfrobust.figures.overlay import Overlay
from tfrobust.runtime import keras

SIDE = 4
NAMES = ("lit", "$ dark, US$")
RED = np.array([1.0, 0.0, 0.0])


def looking_at(row: int, column: int) -> keras.Model:
    """Logits (8 * red of that pixel - 4, 0)."""
    image = keras.Input((SIDE, SIDE, 3))
    return keras.Model(
        image,
        keras.layers.Lambda(
            lambda x: keras.backend.stack(
                [8 * x[:, row, column, 0] - 4, 0 * x[:, row, column, 0]], axis=1
            )
        )(image),
    )


@pytest.fixture(scope="module")
def one_pixel() -> keras.Model:
    return looking_at(1, 2)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A greenish image whose pixel (1, 2) is lit, and the same with that pixel put out."""
    x = np.full((1, SIDE, SIDE, 3), (0.2, 0.5, 0.2), np.float32)
    x[0, 1, 2] = 1
    x_adv = x.copy()
    x_adv[0, 1, 2] = 0
    return x, x_adv


def test_the_overlay_is_red_where_the_heat_is_and_leaves_the_rest(pair) -> None:
    heat = np.zeros((1, SIDE, SIDE), np.float32)
    heat[0, 1, 2] = 3e-7  # small gradients show as well
    found = overlaid(pair[0], heat)
    # A tenth of the white pixel, which has no colour to lose, and nine tenths of red.
    np.testing.assert_allclose(found[0, 1, 2], 0.1 + 0.9 * RED, atol=1e-6)
    rest = np.ones((SIDE, SIDE), bool)
    rest[1, 2] = False
    # Grey is .3: three quarters of it and a quarter of the colour, (.275, .35, .275).
    expected = 0.75 * 0.3 + 0.25 * np.array([0.2, 0.5, 0.2])
    np.testing.assert_allclose(found[0][rest], np.tile(expected, (15, 1)), atol=1e-6)
    # What speaks against the class counts as much as what speaks for it.
    signed = np.zeros((1, SIDE, SIDE, 3), np.float32)
    signed[0, 1, 2, 0] = -3e-7
    np.testing.assert_allclose(overlaid(pair[0], signed), found, atol=1e-6)


def test_the_overlay_figure_shows_what_decides_the_prediction(shown, said, one_pixel, pair) -> None:
    drawn = Overlay().draw(overlays(one_pixel, *pair, np.array([0]), NAMES))
    clean, red, attacked, attacked_red = shown(drawn)
    np.testing.assert_allclose(clean, pair[0][0])
    np.testing.assert_allclose(attacked, pair[1][0])
    np.testing.assert_allclose(red[1, 2], 0.1 + 0.9 * RED, atol=1e-6)
    # Put out, the logits are (-4, 0): the second class, whose logit has no gradient at all.
    grey = pair[1].mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(attacked_red, (0.75 * grey + 0.25 * pair[1])[0], atol=1e-6)
    # 1 / (1 + e^-4) = 98.2 % both times.
    assert {"✓ lit · 98%", "✗ $ dark, US$ · 98%", "clean", "adversarial"} <= set(said(drawn))


def test_models_stand_side_by_side_each_with_its_own_images(shown, said, one_pixel, pair) -> None:
    def warm(model, x, target):
        maps = np.zeros(x.shape[:3], np.float32)
        maps[:, 0, 0] = 1 + target
        return maps

    other = looking_at(3, 3)
    drawn = Maps().draw(maps_by_model(
        {"first": one_pixel, "second": other}, pair[0], {"first": pair[1], "second": pair[0]},
        np.array([0]), NAMES, {"Warm": warm, "Gradient": saliency},
    ))  # fmt: skip
    # In each half: a row for each model, with its image and the two maps.
    found = shown(drawn)
    assert len(found) == 12
    for place, image in ((0, pair[0]), (3, pair[0]), (6, pair[1]), (9, pair[0])):
        np.testing.assert_allclose(found[place], image[0])
    # The gradient of the first is at (1, 2), in red; the second says 'dark', without one:
    # 8 * .2 - 4 = -2.4.
    assert found[2][1, 2] == 1 and np.abs(found[2]).sum() == 1
    assert not found[5].any() and not found[8].any()
    # A class-activation map: the colour map's ends over a darkened grey image.
    from matplotlib import colormaps

    for place, value in (((0, 0), 1.0), ((0, 1), 0.0)):
        expected = 0.4 * 0.3 + 0.6 * np.array(colormaps["inferno"](value)[:3])
        np.testing.assert_allclose(found[1][place], expected, atol=1e-5)
    words = said(drawn)
    assert words[0] == "first and second" and words.count("Gradient") == words.count("Warm") == 2
    assert words.count("✓ lit · 98%") == 1 and words.count("✗ $ dark, US$ · 92%") == 2


def test_a_long_name_lies_on_no_image(beside, one_pixel, pair) -> None:
    name = "mobilenetv2_with_a_longer-name"
    models = {name: one_pixel, "other": looking_at(3, 3)}
    data = maps_by_model(
        models, pair[0], dict.fromkeys(models, pair[1]), np.array([0]), NAMES,
        {"Gradient": saliency},
    )  # fmt: skip
    assert beside(Maps().draw(data), name)


@pytest.mark.parametrize("labels", [[], [0, 1]])
def test_arrays_that_do_not_belong_together_are_refused(one_pixel, pair, labels) -> None:
    y = np.array(labels, int)
    with pytest.raises(UsageError, match=r"y as \[N\], N >= 1, found"):
        overlays(one_pixel, *pair, y, NAMES)
    with pytest.raises(UsageError, match=r"y as \[N\], N >= 1, found"):
        maps_by_model({"a": one_pixel}, pair[0], {"a": pair[1]}, y, NAMES, {})
