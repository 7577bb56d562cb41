"""The table of explanations on the page: every measure, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfrobust.explain.measure_names import COLUMNS, HEADS


@dataclass(frozen=True)
class Explanations:
    """How good a model's explanations are.

    Attributes:
      heads: headings of the measured columns.
      rows: text, starting with 'model, method' and the number of images.
      meanings: (heading, meaning) of each column.
    """

    heads: list[str]
    rows: list[list[str]]
    meanings: list[tuple[str, str]]


def explanations(rows: Sequence[dict[str, str]]) -> Explanations | None:
    """The table from the rows of `explanations.csv`; None if there are none."""
    if not rows:
        return None
    shown = [column for column in COLUMNS if any(row.get(column) for row in rows)]
    heads = [HEADS[column] for column in shown]
    return Explanations(
        heads,
        [[f"{row['model']}, {row['method']}", _images(row), *(_cell(row, c) for c in shown)]
         for row in rows],
        [(head, COLUMNS[column]) for head, column in zip(heads, shown, strict=True)],
    )  # fmt: skip


def _images(row: dict[str, str]) -> str:
    """The number of images; stability covers only the attacked ones, which may be fewer."""
    total, attacked = row["images"], row.get("attacked")
    return total if attacked in (None, "", total) else f"{total} ({attacked} attacked)"


def _cell(row: dict[str, str], column: str) -> str:
    if not row.get(column):
        return ""
    half = row.get(f"{column}_95")
    return f"{float(row[column]):.3f}" + (f" ±\N{NO-BREAK SPACE}{float(half):.3f}" if half else "")
