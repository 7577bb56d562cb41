"""A limit on concurrent work; without TensorFlow, which Ray Serve's proxies do not load."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Busy(Exception):
    """The limits are reached: the client is asked to retry later."""


class Gate:
    """A counting limiter that rejects instead of blocking.

    An amount that alone exceeds the limit still passes if nothing else is held; otherwise it
    would be rejected forever. For one event loop; not thread-safe.

    Args:
      limit: maximum amount held at a time.

    Attributes:
      held: the amount held now.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.held = limit, 0

    def take(self, amount: int = 1) -> None:
        """Acquires an amount.

        Raises:
          Busy: it would exceed the limit.
        """
        if self.held and self.held + amount > self._limit:
            raise Busy
        self.held += amount

    def give(self, amount: int = 1) -> None:
        """Releases an amount."""
        self.held -= amount

    @contextlib.contextmanager
    def holding(self, amount: int = 1) -> Iterator[None]:
        """Holds an amount until the block ends.

        Raises:
          Busy: it would exceed the limit.
        """
        self.take(amount)
        try:
            yield
        finally:
            self.give(amount)
