"""An imbalanced file of a balanced set: proportions, no image twice, read back as written."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.data.imbalanced import imbalanced, write_torch_file
from tfrobust.data.torch_file import read
from tfrobust.data.types import ImageSet, ReadOptions
from tfrobust.errors import TFRobustError, UsageError


def balanced(each: int = 40) -> ImageSet:
    """Every image another colour: each can be recognised."""
    count = 3 * each
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return ImageSet(images, np.repeat(np.arange(3, dtype=np.int32), each), ("a", "b", "c"))


def test_the_classes_have_the_counts_scaled_to_what_is_there():
    # The largest class has 40 of the 400 asked for: a tenth of 400, 100 and 4, at least 1.
    made = imbalanced(balanced(), (400, 100, 4), seed=1)
    assert np.bincount(made.labels).tolist() == [40, 10, 1]
    assert len({int(image[0, 0, 0]) for image in made.images}) == 51
    assert np.bincount(imbalanced(balanced(), (7, 5, 3), seed=1).labels).tolist() == [7, 5, 3]


def test_the_draw_depends_on_the_seed_alone():
    first, second, other = (imbalanced(balanced(), (9, 8, 7), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.images, second.images)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("counts", [(1, 2), (1, 2, 0)])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(UsageError, match="expected 3 numbers"):
        imbalanced(balanced(), counts, seed=0)


def test_the_file_reads_back_as_written_with_a_part_greyscale(tmp_path):
    data = balanced()
    path = write_torch_file(data, tmp_path / "set.pt", grey=0.25, seed=3)
    found = read(path, ReadOptions()).train
    np.testing.assert_array_equal(found.labels, data.labels)
    assert found.label_names == data.label_names
    grey = (np.ptp(found.images, axis=3) == 0).all(axis=(1, 2))
    assert 15 <= grey.sum() <= 45
    np.testing.assert_array_equal(found.images[~grey], data.images[~grey])


def test_floats_cannot_be_written(tmp_path):
    data = ImageSet(np.zeros((2, 2, 2, 3), np.float32), np.zeros(2, np.int32), ("a",))
    with pytest.raises(TFRobustError, match="uint8"):
        write_torch_file(data, tmp_path / "set.pt")
