"""Errors that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TFRobustError(Exception):
    """A failure reported in one sentence: what was expected, what was found, what to do.

    The command line prints it without a traceback and exits with 1.

    Examples:
      >>> try:
      ...     tr.load_any("no/such/model.keras")
      ... except tr.TFRobustError as error:
      ...     print("reported in one sentence")
      reported in one sentence
    """


class UsageError(TFRobustError):
    """A wrong flag, name or configuration value; the command line exits with 2.

    Examples:
      >>> issubclass(tr.UsageError, tr.TFRobustError)
      True
    """


def first_line(error: object) -> str:
    """The first line of an error's message, or the name of its class if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest of the known words, " Did you mean 'sgd'?"; '' if none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
