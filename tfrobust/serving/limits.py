"""Limits on what a client may request, and the errors that reject it."""

from __future__ import annotations

from dataclasses import dataclass

from tfrobust.export.image_bytes import MAX_PIXELS, MAX_REQUEST_PIXELS


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of all open ones together.

    Pixels count as claimed by headers, each side at least as the model's.

    Attributes:
      body: bytes of a request; all open requests together may hold 16 times as many.
      seconds: that a client may take to send its body.
      instances: images in a request in TensorFlow Serving's format.
      pixels: of an image.
      request_pixels: of all images of a request.
      decoding: pixels of all requests that are being decoded or queued.
      queue: images queued for the decoder, and for the model.
      batch: maximum batch size.
      calls: running and queued explanations and attacks.
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
    """A rejected request: it is answered by one sentence.

    Args:
      status: HTTP status code.
      message: what was expected and what was found.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
