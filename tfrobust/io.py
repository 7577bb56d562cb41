"""Files: written as a whole or not at all; JSON and CSV, each in one form."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, values: Any) -> None:
    """Writes JSON so that a reader never sees half of it; long lists take one line each.

    Raises:
      TFRobustError: the disk is full or the folder cannot be written.
    """
    write_text(path, _as_json(values) + "\n")


def _as_json(values: Any, indent: str = "") -> str:
    """Indented JSON in which a list of plain values stays on one line."""
    inner = indent + "  "
    if isinstance(values, dict) and values:
        rows = [f"{inner}{json.dumps(str(k))}: {_as_json(v, inner)}" for k, v in values.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(values, (list, tuple)) and any(isinstance(v, (dict, list)) for v in values):
        return "[\n" + ",\n".join(inner + _as_json(v, inner) for v in values) + f"\n{indent}]"
    return json.dumps(values, allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Writes a text file so that a reader never sees half of it.

    Raises:
      TFRobustError: the disk is full or the folder cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: a temporary file beside it, then a rename.

    Raises:
      TFRobustError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise TFRobustError(f"{path} cannot be written: {error}.") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file with a header: column -> text.

    Raises:
      OSError: it cannot be read.
      UnicodeDecodeError: it is no text.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
