"""What explanations are worth, worked by hand on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.errors import UsageError
from tfrobust.explain import measures
from tfrobust.explain.integrated_gradients import integrated_gradients
from tfrobust.explain.saliency import saliency
from tfrobust.explain.scorecard import COLUMNS, RANDOM, as_csv, as_text, measure
from tfrobust.runtime import keras, tf

SIDE = 4
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def one_pixel() -> keras.Model:
    """Logits (8 * red of the pixel at (1, 2), 0)."""
    image = keras.Input((SIDE, SIDE, 3))
    head = keras.layers.Dense(2, use_bias=False, name="logits")
    model = keras.Model(image, head(keras.layers.Flatten()(image)))
    kernel = np.zeros((SIDE, SIDE, 3, 2), np.float32)
    kernel[1, 2, 0, 0] = 8
    head.set_weights([kernel.reshape(-1, 2)])
    return model


@pytest.fixture(scope="module")
def lit() -> np.ndarray:
    """Two black images with that pixel white."""
    x = np.zeros((2, SIDE, SIDE, 3), np.float32)
    x[:, 1, 2] = 1
    return x


def sigmoid(value: float) -> float:
    return 1 / (1 + np.exp(-value))


def test_deletion_and_insertion_by_hand(one_pixel, lit) -> None:
    maps = np.zeros((2, SIDE, SIDE), np.float32)
    maps[0, 1, 2] = 1  # right
    maps[1] = np.arange(16).reshape(SIDE, SIDE)  # the pixel is number 6 from above: 9 are hotter
    target = np.array([0, 0])
    found = measures.deletion(one_pixel, lit, target, maps, steps=16)
    assert found.shape == (2, 17)
    # Removed, the pixel takes the image's mean, 1/16: the logit falls from 8 to 1/2.
    np.testing.assert_allclose(found[:, 0], sigmoid(8), rtol=1e-5)
    np.testing.assert_allclose(found[0, 1:], sigmoid(0.5), rtol=1e-5)
    np.testing.assert_allclose(found[1, :10], sigmoid(8), rtol=1e-5)
    np.testing.assert_allclose(found[1, 10:], sigmoid(0.5), rtol=1e-5)
    put_in = measures.insertion(one_pixel, lit, target, maps, steps=16)
    np.testing.assert_allclose(put_in[0, 1:], sigmoid(8), rtol=1e-5)
    # Blurred, the pixel has lost a part of its light; the second map puts it in as the tenth.
    assert put_in[0, 0] < sigmoid(7.9)
    np.testing.assert_allclose(put_in[1, :10], put_in[0, 0], rtol=1e-5)
    np.testing.assert_allclose(put_in[1, 10:], sigmoid(8), rtol=1e-5)
    assert measures.area(found)[0] < measures.area(found)[1]
    assert measures.area(put_in)[0] > measures.area(put_in)[1]


def test_area_is_the_trapezoids(one_pixel) -> None:
    # (1 + .5) / 2 and (.5 + 0) / 2, each half of the way.
    np.testing.assert_allclose(measures.area(np.array([[1.0, 0.5, 0.0]])), [0.5])


def test_stability_is_the_rank_correlation() -> None:
    maps = RNG.random((3, SIDE, SIDE))
    np.testing.assert_allclose(measures.stability(maps, maps), 1)
    # Any rising function keeps the ranks; a falling one turns them round.
    np.testing.assert_allclose(measures.stability(maps, np.exp(5 * maps)), 1)
    np.testing.assert_allclose(measures.stability(maps, 1 - maps), -1)
    assert not measures.stability(maps, np.ones_like(maps)).any()
    signed = RNG.normal(size=(3, SIDE, SIDE, 3))
    np.testing.assert_allclose(measures.stability(signed, -signed), 1)
    from scipy.stats import spearmanr

    other = RNG.random((3, SIDE, SIDE))
    expected = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(maps, other, strict=True)]
    np.testing.assert_allclose(measures.stability(maps, other), expected)


def test_randomisation_unmasks_a_map_of_the_image_alone(small_cnn) -> None:
    model = small_cnn()
    side = model.input_shape[1]
    x = RNG.random((4, side, side, 3), np.float32)
    before, target = model.get_weights(), np.zeros(4, int)
    edges = measures.randomisation(lambda model, x, target: x.copy(), model, x, target)
    gradient = measures.randomisation(saliency, model, x, target)
    assert list(edges) == list(gradient) == ["head", "half", "all"]
    for part in edges:
        np.testing.assert_allclose(edges[part], 1)
    assert gradient["all"].mean() < 0.6
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_integrated_gradients_are_complete(small_cnn) -> None:
    model = small_cnn()
    side = model.input_shape[1]
    x, target = RNG.random((3, side, side, 3), np.float32), np.array([0, 1, 2])
    maps = integrated_gradients(model, x, target, steps=300)
    assert measures.completeness(model, x, target, maps).max() < 0.02
    half = integrated_gradients(model, x, target, steps=300, baseline=0.5)
    # A part of a difference that may be small itself.
    assert np.median(measures.completeness(model, x, target, half, baseline=0.5)) < 0.02
    # What does not keep the promise is told: the sum of a mere gradient is another.
    assert measures.completeness(model, x, target, saliency(model, x, target)).max() > 0.1


def test_integrated_gradients_of_a_square_by_hand() -> None:
    image = keras.Input((2, 2, 3))
    model = keras.Model(image, tf.stack([tf.reduce_sum(image**2, (1, 2, 3))] * 2, axis=1))
    x = RNG.random((2, 2, 2, 3), np.float32)
    # The gradient on the way is 2 t x; its mean is x; times x: x squared, exactly (midpoints).
    found = integrated_gradients(model, x, np.array([0, 1]), steps=7)
    np.testing.assert_allclose(found, x**2, rtol=1e-5)


@pytest.mark.parametrize("options", [{"steps": 0}, {"baseline": 1.5}])
def test_integrated_gradients_refuse_impossible_settings(small_cnn, options) -> None:
    model = small_cnn()
    x = np.zeros((1, *model.input_shape[1:]), np.float32)
    with pytest.raises(UsageError, match="Expected a baseline in"):
        integrated_gradients(model, x, np.array([0]), **options)


def test_maps_that_do_not_fit_are_told(one_pixel, lit) -> None:
    with pytest.raises(UsageError, match=r"maps for \[2, 4, 4\] pixels.*found \[2, 3, 3\]"):
        measures.deletion(one_pixel, lit, np.array([0, 0]), np.zeros((2, 3, 3)))
    with pytest.raises(UsageError, match="two arrays of maps of one shape"):
        measures.stability(np.zeros((1, 4, 4)), np.zeros((2, 4, 4)))


def test_the_table_holds_every_method_and_a_random_map(one_pixel, lit) -> None:
    rows = measure(one_pixel, lit, 1 - lit, ["saliency", "integrated-gradients"], steps=8)
    assert [row.method for row in rows] == ["saliency", "integrated-gradients", RANDOM]
    gradient, integrated, random = rows
    # The gradient of a linear model is the same everywhere.
    assert gradient.mean("stability")[0] == pytest.approx(1)
    assert integrated.mean("completeness")[0] < 1e-5 and gradient.mean("completeness") is None
    assert gradient.mean("deletion")[0] < random.mean("deletion")[0]
    assert gradient.mean("insertion")[0] > random.mean("insertion")[0]
    assert random.mean("stability") is None
    lines = as_csv({"a": rows, "b": rows}).splitlines()
    assert len(lines) == 7 and lines[0].startswith("model,method,images,attacked,deletion,")
    assert lines[1].split(",")[:3] == ["a", "saliency", "2"]
    text = as_text({"a": rows})
    assert all(column in text for column in COLUMNS) and "random map" in text


def test_stability_is_that_of_the_attacked_images_alone(one_pixel) -> None:
    x = RNG.random((3, SIDE, SIDE, 3), np.float32)
    # The last one is wrong without an attack: its adversarial image is the clean one.
    x_adv = np.concatenate([RNG.random((2, *x.shape[1:]), np.float32), x[2:]])
    told = np.array([True, True, False])
    options = {"steps": 2, "explainers": {"saliency": lambda model, x, target: x.copy()}}
    every, some = (
        measure(one_pixel, x, x_adv, ["saliency"], attacked=one, **options)[0]
        for one in (None, told)
    )
    assert every.values["stability"][2] == pytest.approx(1) and every.images("stability") == 3
    # Left in, it would raise the mean by what it is more than the others.
    assert some.images("stability") == 2 and np.isnan(some.values["stability"][2])
    assert some.mean("stability")[0] == pytest.approx(every.values["stability"][:2].mean())
    assert some.mean("deletion") == every.mean("deletion") and some.images("deletion") == 3
    assert as_csv({"a": [some]}).splitlines()[1].startswith("a,saliency,3,2,")
    assert "a: stability is measured on 2 of the 3 images" in as_text({"a": [some]})
    assert "stability is measured" not in as_text({"a": [every]})


def test_stability_of_no_attacked_image_is_not_measured(one_pixel, lit) -> None:
    rows = measure(one_pixel, lit, lit, ["saliency"], steps=2, attacked=np.zeros(2, bool))
    assert rows[0].mean("stability") is None and rows[0].images("stability") == 0
    line = dict(
        zip(*(line.split(",") for line in as_csv({"a": rows}).splitlines()[:2]), strict=True)
    )
    assert (line["images"], line["attacked"], line["stability"]) == ("2", "0", "")
