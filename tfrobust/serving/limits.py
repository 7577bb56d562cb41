"""What a client may ask for, and the ways to be told no."""

from __future__ import annotations

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
