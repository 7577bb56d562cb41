"""Perturbed sets as training data: every float is kept, and no test image gets in."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from tfrobust.data.perturbed import SOURCES, Appended, digests, sources, with_augmentation
from tfrobust.data.pipeline import evaluation_batches, training_batches
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.errors import TFRobustError, UsageError

NAMES = ("cat", "dog")


def image_set(seed: int, count: int, prefix: str = "") -> ImageSet:
    """Random uint8 images of 4x4 pixels, named where a prefix is given."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    names = tuple(f"{prefix}/{i}.png" for i in range(count)) if prefix else ()
    return ImageSet(images, np.arange(count, dtype=np.int32) % 2, NAMES, names)


@pytest.fixture
def splits() -> Splits:
    return Splits(image_set(0, 10, "train"), image_set(1, 4, "val"), image_set(2, 6), ReadLog())


@pytest.fixture
def save(tmp_path):
    """Writes images as `pipelines.perturb` does; the classes and sources can be changed."""

    def write(x, **changes):
        arrays = {"x": x, "y": np.zeros(len(x), np.int32), "classes": np.array(NAMES), **changes}
        path = tmp_path / "set.npz"
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return path

    return write


def floats(count: int = 3) -> np.ndarray:
    return np.random.default_rng(9).random((count, 4, 4, 3), dtype=np.float32)


def test_a_digest_is_that_of_the_uint8_bytes_however_the_image_is_stored():
    data = image_set(0, 5)
    expected = [hashlib.sha256(image.tobytes()).hexdigest() for image in data.images]
    assert digests(data) == expected
    stored = ImageSet(data.images.astype(np.float32) / 255, data.labels, NAMES)
    assert digests(stored) == expected


def test_train_gives_no_image_with_the_pixels_of_one_in_test_or_select(splits):
    images = splits.train.images
    images[3], images[5], images[7] = splits.test.images[2], splits.select.images[0], images[6]
    found = sources(splits, seed=0)
    assert sorted(found["train"].order) == [0, 1, 2, 4, 6, 8, 9]
    assert found["train"].left_out == {"in_test": 1, "in_select": 1, "repeated": 1}
    assert sorted(found["test"].order) == list(range(6))
    assert found["test"].left_out == {"repeated": 0}
    assert found["train"].order.tolist() != sorted(found["train"].order)
    again = sources(splits, seed=0)["train"].order
    np.testing.assert_array_equal(found["train"].order, again)


def test_augmented_images_come_after_train_and_keep_every_bit(splits, save):
    x = floats()
    both = with_augmentation(splits, save(x)).train
    assert len(both) == 13 and both.image_shape == (4, 4, 3) and both.label_names == NAMES
    np.testing.assert_array_equal(both.labels, [*splits.train.labels, 0, 0, 0])
    np.testing.assert_array_equal(both.images[10:], x)
    assert both.names[0] == "train/0.png" and both.names[12] == "set.npz: x[2]"


@pytest.mark.parametrize("index", [
    4, -1, np.int64(10), slice(8, 12), slice(None), np.array([12, 0, 11, 0]), np.eye(13)[3] == 1,
])  # fmt: skip
def test_appended_images_are_read_like_one_array(index):
    first = image_set(0, 10)
    second = ImageSet(floats(), np.zeros(3, np.int32), NAMES)
    whole = np.concatenate([first.images.astype(np.float32) / np.float32(255), second.images])
    both = Appended(first, second)
    assert both.shape == whole.shape and len(both) == 13
    assert both[index].dtype == np.float32
    np.testing.assert_array_equal(both[index], whole[index])


def test_every_epoch_of_training_holds_them_once_and_exactly(splits, save):
    x = floats() / 1000  # below half a level: as uint8 they would all be 0
    both = with_augmentation(splits, save(x)).train
    batches = training_batches(both, batch_size=4, seed=1).as_numpy_iterator()
    epoch = np.concatenate([batch["image"] for batch in itertools.islice(batches, 4)])
    assert epoch.dtype == np.float32 and len(epoch) == 13
    for image in x:
        assert sum(np.array_equal(image, other) for other in epoch) == 1
    clean = splits.train.images.astype(np.float32) / 255
    for image in clean:
        assert np.isclose(epoch, image, atol=1e-6).all(axis=(1, 2, 3)).sum() == 1


def test_float_images_are_batched_as_they_are():
    data = ImageSet(floats(), np.zeros(3, np.int32), NAMES)
    found = np.concatenate([b["image"] for b in evaluation_batches(data, 2).as_numpy_iterator()])
    np.testing.assert_array_equal(found, data.images)


@pytest.mark.parametrize("split, place, named", [
    ("test", 4, "the test image number 4"), ("select", 1, "the select image val/1.png"),
])  # fmt: skip
def test_a_set_made_from_an_image_that_is_measured_on_is_refused(splits, save, split, place, named):
    measured = getattr(splits, split)
    own = ["0" * 64, digests(measured)[place], "1" * 64]
    path = save(floats(), **{SOURCES: np.array(own)})
    with pytest.raises(TFRobustError, match=rf"x\[1\] is made from {named}"):
        with_augmentation(splits, path)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_image_that_is_measured_on_is_refused_without_any_manifest(splits, save, dtype):
    x = splits.test.images[3:5]
    path = save(x if dtype == np.uint8 else x.astype(np.float32) / 255)
    with pytest.raises(TFRobustError, match=r"x\[0\] is the test image number 3"):
        with_augmentation(splits, path)


@pytest.mark.parametrize("changes, message", [
    ({"x": np.zeros((2, 5, 4, 3), np.float32)}, "expected images of 4x4 as in train, found 5x4"),
    ({"classes": np.array(["dog", "cat"])}, r"\(cat, dog\), found dog, cat"),
    ({"classes": None, "y": np.array([0, 2])}, r"\(cat, dog\), found 0, 1, 2"),
    ({SOURCES: np.array(["a"])}, "source_sha256: expected 2 strings"),
    ({SOURCES: np.array([1, 2])}, "source_sha256: expected 2 strings"),
])  # fmt: skip
def test_a_set_that_does_not_fit_is_refused(splits, save, changes, message):
    with pytest.raises(TFRobustError, match=message):
        with_augmentation(splits, save(**{"x": floats(2), **changes}))


def test_classes_without_names_fit_by_their_numbers(splits, save):
    path = save(floats(2), classes=None, y=np.array([1, 0]))
    np.testing.assert_array_equal(with_augmentation(splits, path).train.labels[-2:], [1, 0])


def test_a_missing_file_is_wrong_use(splits, tmp_path):
    with pytest.raises(UsageError, match="found no file"):
        with_augmentation(splits, tmp_path / "none.npz")
