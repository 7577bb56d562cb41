"""The summary tells what is in the data, in numbers worked out by hand."""

from collections import Counter

import numpy as np
import pytest

from tfrobust.data.summary import data_summary, describe, imbalance, remarks
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.figures.dataset import DataSet
from tfrobust.testing import check_figure


def image_set(counts, names):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 10, 3)).astype(np.uint8)
    return ImageSet(images, labels, names)


def make(train, select, test, names, log=None):
    log = log or ReadLog(sizes=Counter({(10, 8): 9, (640, 480): 1200}), modes=Counter(L=1209))
    return Splits(*(image_set(part, names) for part in (train, select, test)), log)


def test_text():
    log = ReadLog(
        sizes=Counter({(i, 8): i for i in range(1, 8)}),
        modes=Counter({"RGB": 1200, "L": 9}),
        skipped=[f"{i}.png: truncated" for i in range(22)],
    )
    text = describe(make([6, 3], [2, 1], [4, 4], ("cat", "dog"), log), "pets")
    # 6 + 3 + 2 + 1 + 4 + 4 = 20 images; 6 cats for 3 dogs; of 7 sizes 5 are told, of
    # 22 skipped images 20.
    assert text.splitlines()[:6] == [
        "pets: 20 images of 10x8 in 2 classes",
        "  splits     train 9, select 3, test 8",
        "  sizes      7x8 (7), 6x8 (6), 5x8 (5), 4x8 (4), 3x8 (3) and 2 more",
        "  modes      RGB (1,200), L (9)",
        "  per class  3 to 6 training images, imbalance 2.00",
        "  skipped    22",
    ]
    assert text.splitlines()[6] == "    0.png: truncated"
    assert text.splitlines()[-2:] == ["    19.png: truncated", "    and 2 more"]


def test_imbalance():
    assert imbalance(image_set([10, 4], ("a", "b"))) == 2.5
    assert imbalance(image_set([10, 0], ("a", "b"))) == float("inf")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [1, 13, 200])
def test_figure_for_any_number_of_classes(classes):
    names = tuple(f"{i} a very long name of a $class^ {i}" for i in range(classes))
    # The last class has a single image, fewer than the rows of examples.
    train = [3] * (classes - 1) + [1]
    splits = make(train, [1] * classes, [2] * classes, names)
    data = data_summary(splits, "pets_$")
    check_figure(DataSet, data)
    counts = data.counts()
    assert [counts[part].sum() for part in ("train", "select", "test")] == [
        3 * classes - 2, classes, 2 * classes,
    ]  # fmt: skip


def test_remarks_tell_what_was_taken_for_what_and_what_is_twice():
    log = ReadLog(notes=["val/ is the test split, for there is no test"])
    splits = make([2, 1], [1, 1], [1, 1], ("cat", "dog"), log)
    # All images of these splits are black.
    told = remarks(splits)
    assert told[0] == log.notes[0] and "of test are also in train" in told[1]
