"""The elbow: the epoch after which only the training loss improves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Elbow(NamedTuple):
    """Where the loss on 'select' is lowest.

    Attributes:
      epoch: counted from 1.
      turned: whether the training loss fell further in a later epoch: only then has validation
        turned; otherwise it may yet improve, or training itself has ended. Also False if the
        loss was lower before any epoch was kept.
      earlier: that earlier epoch with a lower loss, whose model is not kept, or None.
    """

    epoch: int
    turned: bool
    earlier: int | None = None


def find_elbow(rows: Sequence[dict[str, Any]], first: int) -> Elbow | None:
    """The epoch with the lowest 'select_loss' among those from `first` on.

    Args:
      rows: of the history, one per epoch, with 'select_loss'.
      first: the first epoch that is kept, from 1.

    Returns:
      The elbow, the earliest of equal ones; None before epoch `first`.
    """
    kept = [row for row in rows if row["epoch"] >= first]
    if not kept:
        return None
    low, lowest = (min(part, key=lambda row: row["select_loss"]) for part in (kept, rows))
    if lowest["epoch"] < first:
        return Elbow(low["epoch"], turned=False, earlier=lowest["epoch"])
    later = [row["loss"] for row in kept if row["epoch"] > low["epoch"]]
    return Elbow(low["epoch"], turned=any(loss < low["loss"] for loss in later))
