"""The saliency figure: what it says and shows, worked by hand on a model of mean colours."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfrobust.errors import UsageError
from tfrobust.explain.figure_data import Examples, pick, saliency_maps
from tfrobust.figures.saliency import GROUPS, Saliency
from tfrobust.runtime import keras

SIDE = 8
NAMES = ("European fire salamander, Salamandra salamandra", "German shepherd, $ in US$", "cat")


def test_pick_draws_from_each_group_in_order() -> None:
    y = np.zeros(9, int)
    clean = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0])
    adv = np.array([0, 0, 0, 1, 1, 0, 0, 1, 1])
    # right twice: 0 1 2 5; broken by the attack: 3 4 8; wrong from the start: 6 7
    found = pick(y, clean, adv, per_group=3, seed=0)
    assert len(found) == 8 and len(set(found)) == 8
    assert set(found[:3]) < {0, 1, 2, 5} and found[3:].tolist() == [3, 4, 8, 6, 7]
    np.testing.assert_array_equal(found, pick(y, clean, adv, per_group=3, seed=0))
    draws = {tuple(pick(y, clean, adv, per_group=1, seed=seed)) for seed in range(20)}
    assert len(draws) > 5


@pytest.mark.parametrize(("labels", "per_group"), [(2, 1), (3, 0)])
def test_pick_refuses_what_does_not_fit(labels: int, per_group: int) -> None:
    with pytest.raises(UsageError, match=f"found {labels}, 3, 3 and {per_group}"):
        pick(np.zeros(labels, int), np.zeros(3, int), np.zeros(3, int), per_group)


@pytest.fixture(scope="module")
def colour_model() -> keras.Model:
    """logits = 10 * (mean red, mean green, mean blue)."""
    image = keras.Input((SIDE, SIDE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, mean * 10)


@pytest.fixture(scope="module")
def examples() -> Examples:
    x = np.zeros((2, SIDE, SIDE, 3), np.float32)
    x[0, ..., 0], x[1, ..., 2] = 0.5, 0.25
    x[0, 2, 5] = (0.2, 0.4, 0.6)
    x_adv = x.copy()
    x_adv[1, ..., 1] += 8 / 255
    return Examples(x, np.array([0, 1]), x_adv)


@pytest.fixture(scope="module")
def drawn(colour_model, examples, tmp_path_factory):
    """The figure as drawn, and its PNG."""
    data = saliency_maps(colour_model, examples, NAMES)
    path = Saliency().save(data, tmp_path_factory.mktemp("new") / "figures" / "saliency.png")
    with Image.open(path) as image:
        return Saliency().draw(data), np.asarray(image.convert("RGB"))


def test_figure_names_classes_confidences_groups_and_factor(drawn, beside) -> None:
    texts = [text.get_text() for text in drawn[0].texts]
    # Row 1: logits 10 * (63 * .5 + .2, .4, .6) / 64 = (4.953, .0625, .09375), of whose
    # softmax the first is 1 / (1 + e^-4.891 + e^-4.859) = 98.5 %; alike under attack.
    assert texts.count("✓ European fire salamander · 98%") == 2
    # Row 2: logits (0, 0, 2.5): e^2.5 / (e^2.5 + 2) = 85.9 %; under attack (0, .314, 2.5):
    # 12.18 / (12.18 + 1.369 + 1) = 83.7 %.
    assert "✗ cat · 86%" in texts and "✗ cat · 84%" in texts
    assert beside(drawn[0], "German\nshepherd, $ in\nUS$")
    assert [text for text in texts if text in GROUPS] == [GROUPS[0], GROUPS[2]]
    # Half the range over the largest change: .5 / (8 / 255) = 15.9.
    assert "amplified 15×" in texts


def test_figure_shows_pixels_unblurred(drawn) -> None:
    # The first cell starts 1.6 inches from the left and 1.3 + .42 from the top, 200 dots
    # each; its 256 dots are 32 for each of 8 pixels. The pixel (2, 5) is (.2, .4, .6) * 255.
    cell = drawn[1][344 : 344 + 256, 320 : 320 + 256]
    inside = cell[2 * 32 + 2 : 3 * 32 - 2, 5 * 32 + 2 : 6 * 32 - 2].reshape(-1, 3)
    assert np.unique(inside, axis=0).tolist() == [[51, 102, 153]]
    around = cell[2 * 32 + 2 : 3 * 32 - 2, 4 * 32 + 2 : 5 * 32 - 2].reshape(-1, 3)
    assert np.unique(around, axis=0).tolist() in ([[127, 0, 0]], [[128, 0, 0]])


def test_figure_maps_are_those_of_the_predicted_class(drawn) -> None:
    maps = [np.asarray(axes.images[0].get_array()) for axes in drawn[0].axes[:-1]]
    clean, positive, negative, smooth, *_, difference = maps[:9]
    # The gradient of a mean is one positive constant: full strength, and nothing negative.
    assert clean.shape == (SIDE, SIDE, 3) and (positive == 1).all() and not negative.any()
    np.testing.assert_allclose(smooth, 1)
    assert (difference == 0.5).all()  # row 1 was not changed: grey
    np.testing.assert_allclose(maps[17][..., 1], 0.5 + 15 * 8 / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        ({"y": np.array([0])}, NAMES, r"y as \[N\], N >= 1, found.*\[1\]"),
        ({"y": np.array([0, 3])}, NAMES, "labels 0 to 3"),
        ({}, NAMES[:2], "Expected 3 class names.*found 2 names"),
        ({"x": np.zeros((2, 4, 4, 3)), "x_adv": np.zeros((2, 4, 4, 3))}, NAMES, r"\[8, 8, 3\]"),
    ],
)
def test_figure_refuses_what_does_not_fit(colour_model, examples, change, names, message) -> None:
    fields = {"x": examples.x, "y": examples.y, "x_adv": examples.x_adv, **change}
    with pytest.raises(UsageError, match=message):
        saliency_maps(colour_model, Examples(**fields), names)
