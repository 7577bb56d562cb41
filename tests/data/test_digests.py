"""Images are known by their pixels, however they are stored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfrobust.data.digests import RunImages, digest_of_all, duplicates
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.errors import TFRobustError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3)).astype("uint8")


def images(rows, dtype=np.uint8):
    pixels = PIXELS[rows] if dtype == np.uint8 else PIXELS[rows].astype(dtype) / dtype(255)
    return ImageSet(pixels, np.zeros(len(rows), np.int32), ("a", "b"), tuple(map(str, rows)))


def splits(train, select, test):
    return Splits(*(images(rows) for rows in (train, select, test)), ReadLog())


def test_a_run_knows_its_images_again(tmp_path):
    RunImages.of(splits([0, 1, 2], [3], [4])).save(tmp_path / "split.npz")
    seen = RunImages.load(tmp_path / "split.npz")
    assert seen.classes == ("a", "b") and len(seen.train) == 3
    for dtype in (np.uint8, np.float32):
        rows, trained, chosen = seen.fresh(images([9, 2, 3, 0, 8], dtype))
        assert (rows.tolist(), trained, chosen) == ([0, 4], 2, 1)
    assert RunImages.load(tmp_path / "other.npz") is None
    (tmp_path / "split.npz").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(TFRobustError, match="damaged"):
        RunImages.load(tmp_path / "split.npz")


def test_images_in_two_splits_are_told():
    assert duplicates(splits([0, 1], [2], [3])) == []
    told = duplicates(splits([0, 1, 5], [2, 1], [3, 1, 2]))
    assert told == [
        "1 images of test are also in train: 1",
        "2 images of test are also in select: 1, 2",
        "1 images of select are also in train: 1",
    ]


def test_one_digest_of_the_same_images_in_any_order():
    first = images([3, 1, 2])
    assert digest_of_all(first) == digest_of_all(images([1, 2, 3], np.float32))
    assert digest_of_all(first) != digest_of_all(images([3, 1]))
    other = dataclasses.replace(first, labels=np.array([0, 1, 0], np.int32))
    assert digest_of_all(first) != digest_of_all(other)
