"""Adversarial patches: on linear models the best one is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks import patch
from tfrobust.attacks.patch import adversarial_patch, pasted
from tfrobust.errors import UsageError
from tfrobust.runtime import tf


@pytest.fixture
def problem(linear_model):
    """A linear model of three classes on 2x2x3 images, its weights, and images."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 3))
    x = rng.uniform(size=(24, 2, 2, 3)).astype("float32")
    model = linear_model(weights, np.zeros(3))
    return model, weights, (x, np.argmax(model(x), axis=1).astype("int32"))


def test_it_is_pasted_whole_at_every_place_and_nothing_else_changes():
    x, patch = tf.zeros([200, 4, 5, 1]), tf.reshape(tf.constant([1.0, 2.0, 3.0, 4.0]), [2, 2, 1])
    made = pasted(x, patch, tf.constant([1, 2])).numpy()[..., 0]
    assert (made.sum(axis=(1, 2)) == 10).all()
    corners = [np.argwhere(image == 1)[0] for image in made]
    for image, (row, column) in zip(made, corners, strict=True):
        np.testing.assert_array_equal(image[row : row + 2, column : column + 2], patch[..., 0])
    assert {tuple(each) for each in corners} == {(i, j) for i in range(3) for j in range(4)}


def test_over_the_whole_image_it_is_the_sign_of_the_weights(linear_model, monkeypatch):
    monkeypatch.setattr(patch, "_STEPS", 15)
    weights = np.random.default_rng(1).normal(size=(12, 2))
    model, x = linear_model(weights, np.zeros(2)), np.full((8, 2, 2, 3), 0.5, "float32")
    data = (x, np.zeros(8, "int32"))
    best = (weights[:, 1] > weights[:, 0]).astype("float32").reshape(2, 2, 3)
    for target in (None, 1):
        # Without a number of passes four images have enough of them.
        epochs = 15 if target is None else None
        found = adversarial_patch(model, data, 2, target=target, epochs=epochs)
        np.testing.assert_array_equal(found.pixels, best)
        np.testing.assert_array_equal(found.apply(x), np.tile(best, (8, 1, 1, 1)))
        assert found.test.accuracy == 0.0 and found.reached == (None if target is None else 1.0)
        assert found.random.clean_accuracy == found.test.clean_accuracy
        assert found.random.images == 4 and (found.random_reached is None) == (target is None)


def test_it_leads_where_a_patch_of_random_values_does_not(linear_model):
    # Class 2 likes brightness: of that a white square has the most, and noise too little.
    weights = np.zeros((48, 3))
    weights[:, 2] = 1.0
    x = np.random.default_rng(0).uniform(0.1, 0.3, (24, 4, 4, 3)).astype("float32")
    model = linear_model(weights, np.array([24.0, 0, 0]), 4)
    found = adversarial_patch(model, (x, np.zeros(24, "int32")), 3, target=2, epochs=20)
    assert found.pixels.min() > 0.95
    assert (found.reached, found.random_reached) == (1.0, 0.0)
    assert "random" in str(found) and found.as_dict()["random"]["reached"] == 0.0


def test_the_same_seed_gives_the_same_and_a_whole_patch_one_class(problem):
    model, _, data = problem
    one, two = (adversarial_patch(model, data, 1, epochs=3, batch_size=5, seed=2) for _ in "ab")
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert (one.train, one.test) == (two.train, two.test) and one.train.clean_accuracy == 1
    assert (one.train.images, one.test.images) == (12, 12)


@pytest.mark.parametrize("wrong", [
    {"size": 0}, {"size": 3}, {"target": 3}, {"epochs": 0}, {"step_size": 0.0}, {"batch_size": 0},
])  # fmt: skip
def test_values_out_of_range_are_refused(wrong, problem):
    with pytest.raises(UsageError):
        adversarial_patch(problem[0], problem[2], **{"size": 1, **wrong})
