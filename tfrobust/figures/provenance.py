"""Provenance of figures: those of explanations outlive the evaluation beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfrobust.figures import FIGURES, figure_of
from tfrobust.io import read_json, write_json

#: The attack that all of them show.
ATTACK = "PGD with 20 steps"
#: The table of measures, which depends on the ball like figures of attacked images.
TABLE = "explanations"


def shows_attack(name: str) -> bool:
    """Whether the content of a figure's file, or of the table, depends on the ball."""
    figure = figure_of(name)
    return name == TABLE or (figure is not None and FIGURES[figure].shows_attack)


def record(folder: Path, name: str, norm: str, eps: float) -> None:
    """Records in `made.json` the ball of a figure or of the table.

    Args:
      folder: of the figures.
      name: the figure's, without suffix; one without an attack is not recorded.
      norm: of the ball.
      eps: its radius.

    Raises:
      TFRobustError: the file cannot be written.
    """
    if shows_attack(name):
        entry = {"attack": ATTACK, "norm": norm, "eps": float(eps)}
        write_json(_file(folder), {**provenance(folder), name: entry})


def provenance(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> 'attack', 'norm' and 'eps'; empty if nothing is recorded or readable."""
    try:
        found = read_json(_file(folder))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file(folder: Path) -> Path:
    return folder / "made.json"
