"""Matches the labels of some images to the labels of a model by the class names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError

_LISTED = 12


def parse_class_map(text: str) -> dict[str, str]:
    """'cat=tabby,dog=3' -> {'cat': 'tabby', 'dog': '3'}.

    Raises:
      UsageError: the text has another form.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and equals and value for name, equals, value in pairs):
        raise UsageError(
            f"--class-map: expected DATA=MODEL pairs such as cat=tabby,dog=3, found {text!r}."
        )
    return {name.strip(): value.strip() for name, _, value in pairs}


def match_labels(
    data: ImageSet, names: Sequence[str] | None, classes: int, given: dict[str, str] | None = None
) -> tuple[ImageSet, list[str]]:
    """`data` with the model's labels, and what was done, in sentences.

    Args:
      data: images with their own classes.
      names: the model's classes, by label; None if it has no names.
      classes: K, number of the model's classes.
      given: class of the data -> class of the model, by name or number.

    Raises:
      UsageError: a class of the data is not one of the model's.
    """
    own = data.label_names
    if given is not None:
        if unknown := [name for name in given if name not in own]:
            raise UsageError(
                f"--class-map: the images have no class {unknown[0]!r}, but {_listed(own)}."
            )
        places = [_given(name, given, names, classes) for name in own]
        how = "by --class-map"
    elif names is not None and (not _are_numbers(own) or _are_numbers(names)):
        if tuple(own) == tuple(names):
            return data, []
        places, how = _by_name(data, own, names)
    elif tuple(own) == _numbers(len(own)):
        # Arrays without class names use the model's numbering.
        return (_unnamed(data, classes) if names is None else data), []
    elif _are_numbers(own):
        places, how = _by_number(own, classes)
    else:
        return _in_order(data, classes)
    table = np.array(places, np.int32)
    words = tuple(names) if names is not None else _words(own, places, classes)
    labels = table[data.labels]
    note = f"classes are matched {how}: {len(own)} of the model's {classes}"
    return dataclasses.replace(data, labels=labels, label_names=words), [note]


def _by_number(own: Sequence[str], classes: int) -> tuple[list[int], str]:
    """Labels of classes that are named by numbers."""
    values = [int(name) for name in own]
    if min(values) >= 1 and max(values) == classes:
        return [value - 1 for value in values], "by their numbers, from 1 on"
    if max(values) < classes:
        note = "by their numbers" + ("" if 0 in values else ", without 0")
        return values, note
    if len(own) == classes:
        return list(range(classes)), "in their order"
    raise UsageError(
        f"The images' classes are named {_listed(own)}, the model has {classes}, 0 to "
        f"{classes - 1}: map them with --class-map {own[0]}=NUMBER,..."
    )


def _in_order(data: ImageSet, classes: int) -> tuple[ImageSet, list[str]]:
    """Named classes of a model without names: in order, if the number is the same."""
    own = data.label_names
    if len(own) < classes:
        raise UsageError(
            f"The images have the classes {_listed(own)}, the model {classes} without names: map "
            f"them with --class-map {own[0]}=NUMBER,..."
        )
    return data, []


def _unnamed(data: ImageSet, classes: int) -> ImageSet:
    """With a name for every class of the model, including those without images."""
    own = data.label_names
    further = tuple(map(str, range(len(own), classes)))
    return dataclasses.replace(data, label_names=own + further)


def _words(own: Sequence[str], places: Sequence[int], classes: int) -> tuple[str, ...]:
    words = list(map(str, range(classes)))
    for name, place in zip(own, places, strict=True):
        words[place] = name
    return tuple(words)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isascii() and name.isdigit() for name in names)


def _by_name(data: ImageSet, own: Sequence[str], names: Sequence[str]) -> tuple[list[int], str]:
    for key, how in ((str, "by name"), (_loose, "by name, ignoring case and punctuation"),
                     (_first, "by the first of their names")):  # fmt: skip
        known = {key(name): place for place, name in enumerate(names)}
        if len(known) == len(names) and all(key(name) in known for name in own):
            return [known[key(name)] for name in own], how
    # Classes without images do not matter.
    known = {_loose(name): place for place, name in enumerate(names)}
    used = set(data.labels.tolist())
    missing = [name for label, name in enumerate(own) if _loose(name) not in known]
    if not any(own.index(name) in used for name in missing):
        return [known.get(_loose(name), 0) for name in own], "by name"
    raise UsageError(
        f"The images' classes are not the model's: {_listed(missing)} unknown to it. The images "
        f"have {_listed(own)}; the model has {_listed(names)}: rename them, or map them with "
        f"--class-map {missing[0]}=NAME_OR_NUMBER,..."
    )


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more


def _loose(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _first(name: str) -> str:
    return _loose(name.split(",")[0])


def _given(name: str, given: dict[str, str], names: Sequence[str] | None, classes: int) -> int:
    """The model's label of a class of the data."""
    wanted = given.get(name, name)
    if names is not None and wanted in names:
        return list(names).index(wanted)
    if wanted.isascii() and wanted.isdigit() and int(wanted) < classes:
        return int(wanted)
    expected = _listed(names) if names is not None else f"0 to {classes - 1}"
    raise UsageError(f"--class-map: {name!r} has no class of the model ({expected}): map it too.")
