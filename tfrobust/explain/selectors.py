"""Explainers, layers and classes, selected by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tfrobust.errors import UsageError
from tfrobust.explain.table import EXPLAINERS
from tfrobust.plugins import chosen, split

if TYPE_CHECKING:
    from tfrobust.explain.explainers import Explainer
    from tfrobust.runtime import keras


def select_methods(text: str) -> dict[str, Explainer]:
    """Comma-separated explainers with settings, such as 'smoothgrad:samples=50,gradcam'.

    Returns:
      The text of each selection -> the explainer.

    Raises:
      UsageError: an explainer or one of its settings is unknown, or the text is empty.
    """
    return chosen(split(text) or [""], EXPLAINERS, "--methods")


def titles(explainers: Mapping[str, Explainer]) -> dict[str, str]:
    """The names of explainers in figures: their titles, with the settings that were given."""
    return {
        name: ":".join([one.title or name.partition(":")[0], *name.split(":")[1:]])
        for name, one in explainers.items()
    }


def select_layers(text: str, model: keras.Model) -> list[str]:
    """Comma-separated layers whose channels can be drawn, in the order given.

    Raises:
      UsageError: a name is not a convolution or dense layer with a map larger than 1x1.
    """
    from tfrobust.explain.feature_maps import channel_layers

    known, names = channel_layers(model), _split(text)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise UsageError(
            f"--layers {', '.join(wrong) or 'without a name'}: expected convolutions of "
            f"{model.name} with a map larger than 1x1: {', '.join(known) or 'it has none'}."
        )
    return list(dict.fromkeys(names))


def select_classes(text: str, label_names: Sequence[str]) -> list[int]:
    """Comma-separated classes, by name or by number, as labels, in the order given.

    A class with several synonyms ('goldfish, Carassius auratus') matches any of them, ignoring
    case. A text that is both a name and a number counts as the name.

    Raises:
      UsageError: there is no such class, or several classes share the name.
    """
    if not _split(text):
        raise UsageError("--classes: expected names or numbers, comma-separated, found none.")
    return list(dict.fromkeys(_class(one, label_names) for one in _split(text)))


def _class(text: str, label_names: Sequence[str]) -> int:
    wanted = text.casefold()
    named = [label for label, name in enumerate(label_names) if wanted in _synonyms(name)]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        numbers = ", ".join(map(str, named))
        raise UsageError(f"--classes: several classes are {text!r}: expected one of {numbers}.")
    if text.isdecimal() and int(text) < len(label_names):
        return int(text)
    raise UsageError(
        f"--classes: expected a number in 0..{len(label_names) - 1} or a name such as "
        f"{label_names[0].split(',')[0]!r}, found {text!r}."
    )


def _synonyms(name: str) -> list[str]:
    return [part.strip().casefold() for part in name.split(",")]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
