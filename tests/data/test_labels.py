"""Labels are matched by the classes' names, never by their place where both sides have names."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.data.labels import match_labels, parse_class_map
from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError

FRUIT = ("apple", "berry", "cherry", "date")


def images(names, labels):
    labels = np.array(labels, np.int32)
    return ImageSet(np.zeros((len(labels), 2, 2, 3), np.uint8), labels, tuple(names))


def matched(names, labels, model, classes=4, given=None):
    found, told = match_labels(images(names, labels), model, classes, given)
    return found.labels.tolist(), found.label_names, told


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (FRUIT, [0, 3], [0, 3]),
        (("berry", "date"), [0, 1, 1], [1, 3, 3]),
        (("date", "cherry", "berry", "apple"), [0, 1, 2, 3], [3, 2, 1, 0]),
        (("Berry", "DATE "), [0, 1], [1, 3]),
        (("berry, Rubus", "date, Phoenix"), [0, 1], [1, 3]),
    ],
)
def test_by_name(names, labels, expected):
    found, words, told = matched(names, labels, FRUIT)
    assert found == expected and words == FRUIT
    assert bool(told) == (names != FRUIT)


def test_a_name_that_the_model_does_not_know_is_an_error_that_shows_both_lists():
    with pytest.raises(UsageError, match="'plum' unknown.*'berry', 'plum'.*'apple', 'berry'"):
        matched(("berry", "plum"), [0, 1], FRUIT)
    # A class without images does not matter.
    assert matched(("berry", "plum"), [0, 0], FRUIT)[0] == [1, 1]


def test_a_map_says_which_is_which():
    given = parse_class_map("plum=cherry,pear=0")
    assert matched(("berry", "pear", "plum"), [0, 1, 2], FRUIT, given=given)[0] == [1, 0, 2]
    assert matched(("pear", "plum"), [0, 1], None, given={"pear": "3", "plum": "1"})[0] == [3, 1]
    with pytest.raises(UsageError, match="'kiwi' has no class"):
        matched(("kiwi", "pear", "plum"), [0, 1, 2], FRUIT, given=given)
    for text in ("plum", "plum=", "=cherry,a=b"):
        with pytest.raises(UsageError, match="--class-map"):
            parse_class_map(text)


def test_a_model_without_names_takes_numbers_as_its_labels():
    found, words, told = matched(("3", "7"), [0, 1, 0], None, 10)
    assert found == [3, 7, 3] and words == tuple("0123456789") and told
    # Up to K they begin at 1, also where some are missing.
    assert matched(("1", "2", "3", "4"), [0, 3], None)[0] == [0, 3]
    assert matched(("1", "2", "4"), [0, 2], None)[0] == [0, 3]
    # Numbers below K are labels, though it be odd that there is no 0.
    found, _, told = matched(("1", "2", "3"), [0, 2], None)
    assert found == [1, 3] and "without 0" in told[0]
    # A model with names has labels too.
    assert matched(("0", "1", "3"), [0, 2], FRUIT)[0] == [0, 3]


def test_what_a_model_without_names_leaves_open_is_refused():
    assert matched(("cat", "dog", "eel", "fox"), [0, 3], None)[0] == [0, 3]
    for names in (("cat", "dog"), ("2020", "2022")):
        with pytest.raises(UsageError, match="--class-map"):
            matched(names, [0, 1], None)
    assert matched(("cat", "dog"), [0, 1], None, given={"cat": "2", "dog": "0"})[0] == [2, 0]
    with pytest.raises(UsageError, match="no class 'cow'"):
        matched(("cat", "dog"), [0, 1], None, given={"cat": "2", "dog": "0", "cow": "1"})


def test_numbers_as_names_are_matched_by_name():
    # As a run of before sorted them: as text.
    names = tuple(sorted(map(str, range(11))))
    own = tuple(map(str, range(11)))
    found, _, _ = matched(own, [2, 10], names, 11)
    assert [names[k] for k in found] == ["2", "10"]
    # An array without names numbers its classes as the model does.
    assert matched(("0", "1", "2"), [2], FRUIT)[0] == [2]
