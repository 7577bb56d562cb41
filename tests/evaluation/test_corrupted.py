"""Mean corruption accuracy is the mean over corruptions and severities of plain accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.data.corruptions import corrupt
from tfrobust.data.types import ImageSet
from tfrobust.evaluation.corrupted import corruption_accuracy
from tfrobust.report.corruption_table import corruption_table
from tfrobust.runtime import tf


@pytest.fixture
def case(small_cnn):
    model = small_cnn()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)).astype("uint8")
    y = np.argmax(model(pixels / np.float32(255), training=False), axis=1).astype("int32")
    return model, ImageSet(pixels, y, tuple("abcd"))


def test_each_figure_is_the_accuracy_on_the_corrupted_images(case):
    model, data = case
    found = corruption_accuracy(model, data, names=("gaussian_noise", "contrast"), seed=3)
    x = tf.constant(data.pixels(slice(None)))
    seeds = tf.stack([tf.fill([10], 3), tf.range(10)], axis=1)
    expected = {
        name: [
            float(np.mean(np.argmax(model(corrupt(x, name, s, seeds)), axis=1) == data.labels))
            for s in range(1, 6)
        ]
        for name in ("gaussian_noise", "contrast")
    }
    for name, row in expected.items():
        assert found["by_corruption"][name] == pytest.approx(row)
    assert found["mean_accuracy"] == pytest.approx(np.mean([*expected.values()]))
    text = corruption_table(found)
    assert f"{found['mean_accuracy']:.3f}" in text and "not comparable" in text


def test_batches_do_not_matter(case):
    model, data = case
    found = [corruption_accuracy(model, data, names=("shot_noise",), batch_size=b) for b in (3, 10)]
    assert found[0] == found[1]
