"""The errors that files of other runtimes have in common."""

from __future__ import annotations

from pathlib import Path

from tfrobust.errors import TFRobustError, first_line


def unreadable(path: Path, runtime: str, why: Exception | str, expected: str) -> TFRobustError:
    """The error of a file that its runtime cannot read."""
    return TFRobustError(
        f"Model {path} cannot be read by {runtime} ({first_line(why)[:300]}): expected {expected}."
    )


def not_taken(path: Path, shape: tuple[int, ...], why: Exception | str) -> TFRobustError:
    """The error of images that a file does not take."""
    return TFRobustError(
        f"Model {path} does not take {list(shape)} ({first_line(why)[:300]}): give it images of "
        "its own size, or have them resized by --image-size."
    )
