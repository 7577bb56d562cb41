"""mCE is the published ratio of errors, over the published corruptions alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfrobust.data.corruption_sets import ArraySet, FolderSet
from tfrobust.data.corruptions import CORRUPTIONS
from tfrobust.evaluation.published_corruptions import ALEXNET, published_accuracy
from tfrobust.models.classifier import as_classifier
from tfrobust.report.corruption_table import published_table
from tfrobust.runtime import tf

# How many of ten images are right, by corruption and severity.
RIGHT = {"gaussian_noise": (9, 8, 6, 4, 3), "fog": (10, 10, 8, 6, 6), "saturate": (0, 0, 0, 0, 0)}


class Made:
    """Images whose first pixel is the label that the model says, right for so many of ten."""

    def batches(self, name, severity, *, size, batch_size, limit, seed):
        assert size == (8, 8)
        y = np.arange(10, dtype=np.int32) % 2
        said = np.where(np.arange(10) < RIGHT[name][severity - 1], y, 1 - y)
        x = np.zeros((10, 8, 8, 3), np.uint8) + (255 * said).astype("uint8")[:, None, None, None]
        for first in range(0, 10, batch_size):
            yield x[first : first + batch_size], y[first : first + batch_size]


class Arrays(Made, ArraySet):
    pass


class Folders(Made, FolderSet):
    pass


def says(x):
    return tf.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], axis=1)


@pytest.fixture
def model():
    return as_classifier(says, np.zeros((2, 8, 8, 3), np.float32))


def measured(model, kind=Arrays, classes=2, names=tuple(RIGHT), **more):
    data = kind(Path("Some-C"), names, tuple(map(str, range(classes))))
    labels = np.arange(classes, dtype=np.int32)
    return published_accuracy(model, data, labels, size=(8, 8), batch_size=4, **more)


def test_means_count_the_published_corruptions_and_the_rest_is_told(model):
    found = measured(model)
    assert found["by_corruption"] == {name: [n / 10 for n in row] for name, row in RIGHT.items()}
    assert found["mean_accuracy"] == pytest.approx((0.6 + 0.8) / 2)
    assert found["mean_error"] == pytest.approx(0.3) and found["images"] == 10
    assert found["mce"] == [] and "saturate" in found["note"] and "13 of the 15" in found["note"]
    assert measured(model, names=("saturate",))["mean_error"] == 1
    assert "mean error" in published_table(found)


def test_mce_of_imagenet_c_is_relative_to_alexnet_s_published_errors(model):
    [mce] = measured(model, Folders, classes=1000)["mce"]
    noise, fog = 0.4 / 0.886428, 0.2 / 0.819324
    assert mce["by_corruption"] == pytest.approx({"gaussian_noise": noise, "fog": fog}, abs=1e-6)
    assert mce["value"] == pytest.approx((noise + fog) / 2, abs=1e-6)
    assert tuple(ALEXNET) == tuple(CORRUPTIONS)
    assert measured(model, Folders, classes=200)["mce"] == []


def test_mce_of_other_sets_is_relative_to_a_model_that_is_named(model):
    def worse(x):
        return says(1 - x)  # wrong where the other is right

    baseline = as_classifier(worse, np.zeros((2, 8, 8, 3), np.float32))
    found = measured(model, baselines={"plain": baseline, "itself": model})
    plain, own = found["mce"]
    assert plain["value"] == pytest.approx((0.4 / 0.6 + 0.2 / 0.8) / 2, abs=1e-6)
    assert own["value"] == 1 and "mCE relative to plain" in published_table(found)
    # A baseline that makes no error has no ratio.
    assert measured(model, names=("saturate",), baselines={"never wrong": baseline})["mce"][0] == {
        "baseline": "never wrong", "value": None, "by_corruption": {},
    }  # fmt: skip
