"""So much at a time, and no more; without TensorFlow, which Ray Serve's proxies do not load."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Busy(Exception):
    """More is under way than the limits allow: the caller is told to come again."""


class Gate:
    """So much at a time and no more: who comes on top is told so instead of waiting.

    What alone exceeds the limit still passes where nothing else is under way, or it would
    be sent away for ever. For one event loop; not for threads.

    Args:
      limit: of what is held at a time.

    Attributes:
      held: how much is held now.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.held = limit, 0

    def take(self, amount: int = 1) -> None:
        """Holds so much more.

        Raises:
          Busy: it does not fit.
        """
        if self.held and self.held + amount > self._limit:
            raise Busy
        self.held += amount

    def give(self, amount: int = 1) -> None:
        """Lets go of so much."""
        self.held -= amount

    @contextlib.contextmanager
    def holding(self, amount: int = 1) -> Iterator[None]:
        """Holds so much until the block ends.

        Raises:
          Busy: it does not fit.
        """
        self.take(amount)
        try:
            yield
        finally:
            self.give(amount)
