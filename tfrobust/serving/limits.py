"""What a client may ask for, and the ways to be told no."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tfrobust.export.image_bytes import MAX_PIXELS, MAX_REQUEST_PIXELS


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all open ones together.

    Pixels are counted as headers claim them, each side as the model's at least.

    Attributes:
      body: bytes of a request; all that are open hold 16 times as many.
      seconds: that a client may take to send its body.
      instances: images in a request of TensorFlow Serving's form.
      pixels: of an image.
      request_pixels: of all images of a request.
      decoding: pixels of all requests that are decoded or wait for it.
      queue: images that may wait for a decoder, and for the model.
      batch: images that run at once.
      calls: explanations and attacks that run or wait.
    """

    body: int = 16 * 2**20
    seconds: float = 20.0
    instances: int = 128
    pixels: int = MAX_PIXELS
    request_pixels: int = MAX_REQUEST_PIXELS
    decoding: int = 2 * MAX_REQUEST_PIXELS
    queue: int = 512
    batch: int = 32
    calls: int = 16


class Refused(Exception):
    """A request that gets no answer but a sentence.

    Args:
      status: of HTTP.
      message: what was expected, what was found.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


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
