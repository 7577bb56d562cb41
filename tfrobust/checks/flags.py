"""A flag: why an evaluation is unreliable, and what to do about it."""

from __future__ import annotations

from typing import TypedDict


class Flag(TypedDict):
    """One reason not to trust an evaluation.

    Attributes:
      name: as docs/checks.md lists it.
      meaning: what was found, and a remedy, in a sentence.
    """

    name: str
    meaning: str


def flag(name: str, meaning: str) -> Flag:
    """The flag of that name."""
    return {"name": name, "meaning": meaning}
