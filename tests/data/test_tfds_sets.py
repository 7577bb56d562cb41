"""Any image classification data set of TFDS, prepared without a network."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfrobust.data import load
from tfrobust.errors import UsageError


class Tiles(tfds.core.GeneratorBasedBuilder):
    """Two classes of grey tiles, with a validation split and no test."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(None, None, 1)),
            "kind": tfds.features.ClassLabel(names=["dark", "light"]),
            "id": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(20), "validation": self._generate_examples(6)}

    def _generate_examples(self, count):
        for i in range(count):
            pixels = np.full((12, 12, 1), 30 + 180 * (i % 2), np.uint8)
            yield i, {"picture": pixels, "kind": i % 2, "id": str(i)}


def test_a_prepared_data_set_by_its_name(tmp_path):
    Tiles(data_dir=str(tmp_path)).download_and_prepare()
    splits = load("tfds:tiles", data_dir=str(tmp_path))
    assert splits.train.label_names == ("dark", "light")
    assert len(splits.test) == 6 and splits.log.notes and splits.test.image_shape == (12, 12, 3)
    assert len(splits.train) + len(splits.select) == 20
    for part in (splits.train, splits.test):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0] > 100, part.labels == 1)


def test_what_tfds_does_not_know_is_told(tmp_path):
    with pytest.raises(UsageError, match="tfds:no_such_set"):
        load("tfds:no_such_set", data_dir=str(tmp_path))
