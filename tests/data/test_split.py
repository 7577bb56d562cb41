"""The split: stratified, disjoint, repeatable; rare classes stay in train."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrobust.data.split import split, stratified, table
from tfrobust.data.types import ImageSet, RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError


def image_set(labels, start=0):
    """Images that are all different: image i is filled with start + i."""
    fill = np.arange(start, start + len(labels), dtype=np.uint8)
    images = np.broadcast_to(fill[:, None, None, None], (len(labels), 2, 2, 3)).copy()
    names = tuple(f"image{start + i}" for i in range(len(labels)))
    return ImageSet(images, np.array(labels, np.int32), ("cat", "dog", "emu"), names)


def raw(labels, test=None):
    return RawData(image_set(labels), test, ReadLog())


def identities(part):
    return part.images[:, 0, 0, 0].tolist()


@given(st.lists(st.integers(0, 6), max_size=80), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_guarantees_hold_for_any_labels(labels, fraction, seed):
    labels = np.array(labels, int)
    kept, taken = stratified(labels, fraction, seed)
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    for label in np.unique(labels):
        total, part = np.sum(labels == label), np.sum(labels[taken] == label)
        assert part == (0 if total < 2 else np.clip(round(fraction * total), 1, total - 1))


def test_counts_by_hand():
    # cat: 20 images: test round(.2 * 20) = 4, of the 16 left select round(.1 * 16) = 2.
    # dog: 3 images: test round(.6) = 1, of the 2 left select max(1, round(.2)) = 1.
    # emu: 1 image: train.
    splits = split(raw([0] * 20 + [1] * 3 + [2]), ReadOptions())
    assert np.bincount(splits.train.labels).tolist() == [14, 1, 1]
    assert np.bincount(splits.select.labels).tolist() == [2, 1]
    assert np.bincount(splits.test.labels).tolist() == [4, 1]


def test_parts_are_disjoint_and_images_keep_label_and_name():
    labels = [0, 1] * 20
    splits = split(raw(labels), ReadOptions())
    parts = (splits.train, splits.select, splits.test)
    assert sorted(sum(map(identities, parts), [])) == list(range(40))
    for part in parts:
        assert part.labels.tolist() == [labels[i] for i in identities(part)]
        assert part.names == tuple(f"image{i}" for i in identities(part))
        assert part.label_names == ("cat", "dog", "emu")


def test_an_official_test_split_is_kept():
    official = image_set([2, 0, 1], start=100)
    splits = split(raw([0, 1, 2] * 10, official), ReadOptions(), select_fraction=0.2)
    assert splits.test is official
    # Each class has 10 images, of which select takes round(.2 * 10) = 2.
    assert np.bincount(splits.select.labels).tolist() == [2, 2, 2]
    assert np.bincount(splits.train.labels).tolist() == [8, 8, 8]


def test_the_seed_decides():
    data = raw([0, 1] * 50)
    default, same = split(data, ReadOptions()), split(data, ReadOptions(), seed=42)
    other = split(data, ReadOptions(), seed=43)
    assert identities(default.test) == identities(same.test)
    assert identities(default.select) == identities(same.select)
    assert identities(default.test) != identities(other.test)


def test_no_empty_split():
    with pytest.raises(TFRobustError, match="'test' would be empty"):
        split(raw([0, 1, 2]), ReadOptions())
    # Two images a class: one goes to test, the other has to stay in train.
    with pytest.raises(TFRobustError, match="'select' would be empty"):
        split(raw([0, 0, 1, 1]), ReadOptions())


def test_a_memory_map_stays_on_disk(tmp_path):
    data = image_set([0, 1] * 30)
    file = tmp_path / "images"
    file.write_bytes(data.images.tobytes())
    mapped = np.memmap(file, np.uint8, "r", shape=data.images.shape)
    on_disk = RawData(ImageSet(mapped, data.labels, data.label_names, data.names), None, ReadLog())
    cache = tmp_path / "cache"
    splits = split(on_disk, ReadOptions(cache_dir=str(cache)))
    expected = split(RawData(data, None, ReadLog()), ReadOptions())
    for part in ("train", "select", "test"):
        found, wanted = getattr(splits, part), getattr(expected, part)
        assert isinstance(found.images, np.memmap)
        assert np.array_equal(found.images, wanted.images)
        assert (found.names, found.label_names) == (wanted.names, wanted.label_names)
    assert list(cache.iterdir()) == []  # nothing is left behind


def test_table():
    # From test_counts_by_hand.
    text = table(split(raw([0] * 20 + [1] * 3 + [2]), ReadOptions()))
    assert [line.split() for line in text.splitlines()] == [
        ["class", "train", "select", "test"],
        ["cat", "14", "2", "4"],
        ["dog", "1", "1", "1"],
        ["emu", "1", "0", "0"],
        ["total", "16", "3", "5"],
    ]
    assert len({len(line) for line in text.splitlines()}) == 1
