"""Figures and measures are of images on which an attack has something to change."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.data.types import ImageSet
from tfrobust.explain.examples import choose
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

BALL = ThreatModel("linf", 0.1)


def brightness(threshold: float):
    """Class 1 above a mean brightness: PGD moves an image's mean by eps, and no further."""

    def model(x, training=False):
        margin = tf.reduce_mean(x, axis=[1, 2, 3]) - threshold
        return tf.stack([-margin, margin], axis=1)

    return model


@pytest.fixture
def data() -> ImageSet:
    levels = np.linspace(0.1, 0.9, 60, dtype=np.float32)
    x = np.tile(levels[:, None, None, None], (1, 4, 4, 3))
    order = np.random.default_rng(0).permutation(60)
    return ImageSet(x[order], (levels > 0.5).astype("int32")[order], ("dark", "bright"))


def test_only_what_all_models_get_right_is_chosen_while_there_is_any(data) -> None:
    models = {"fair": brightness(0.5), "strict": brightness(0.6)}
    chosen = choose(models, data, BALL, 30)
    level = chosen.x.mean(axis=(1, 2, 3))
    assert len(level) == chosen.right == 30 and not ((level > 0.5) & (level < 0.6)).any()
    # All of them, the wrong ones last.
    chosen = choose(models, data, BALL, 60)
    level = chosen.x.mean(axis=(1, 2, 3))
    wrong = (level > 0.5) & (level < 0.6)
    assert chosen.right == 60 - wrong.sum()
    assert wrong.any() and wrong[-wrong.sum() :].all()
    # Those that the strict one gets wrong are not attacked against it: they stay as they are.
    assert chosen.attacked["fair"].all()
    np.testing.assert_array_equal(chosen.attacked["strict"], ~wrong)
    moved = np.abs(chosen.adversarial["strict"] - chosen.x).max(axis=(1, 2, 3)) > 0
    np.testing.assert_array_equal(moved, ~wrong)


def test_adversarial_images_are_each_model_s_own(data) -> None:
    chosen = choose({"a": brightness(0.5), "b": brightness(0.45)}, data, BALL, 20)
    for x in chosen.adversarial.values():
        assert np.abs(x - chosen.x).max() <= 0.1 + 1e-6
    moved = chosen.adversarial["a"].mean(axis=(1, 2, 3)) - chosen.x.mean(axis=(1, 2, 3))
    # Towards the threshold, from either side.
    assert (np.sign(moved) == np.where(chosen.labels == 1, -1, 1)).all()


def test_mixed_shows_each_kind_in_turn(data) -> None:
    models = {"middle": brightness(0.5), "lower": brightness(0.42)}
    chosen = choose(models, data, BALL, 6, mixed=True)
    held = np.sum(
        [np.argmax(models[name](x), axis=1) == chosen.labels
         for name, x in chosen.adversarial.items()], axis=0,
    )  # fmt: skip
    assert [1 if n == 1 else n for n in held.tolist()] == [1, 2, 0, 1, 2, 0]
