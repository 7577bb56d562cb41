"""Decodes images for the model, in separate threads and within limits."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
from PIL import Image

from tfrobust.data.images import decode, reason
from tfrobust.serving.gate import Gate
from tfrobust.serving.limits import Limits, Refused

Result = TypeVar("Result")
# The formats that a SavedModel accepts as bytes; every further parser adds attack surface.
_FORMATS = ("JPEG", "PNG")


class Decoder:
    """Decodes the images of requests in the same way as in training.

    Guarantees: no pixel is decoded before all headers of a request are read and within the
    limits; a request uses at most one thread; the queue is bounded in images and in pixels.

    Args:
      shape: (H, W) of the model.
      limits: see `Limits`.
    """

    def __init__(self, shape: tuple[int, int], limits: Limits) -> None:
        self._shape, self._limits = shape, limits
        self._images, self._pixels = Gate(limits.queue), Gate(limits.decoding)
        self._threads = ThreadPoolExecutor(2, "decode")

    @property
    def waiting(self) -> int:
        """Images of requests that are being decoded or queued."""
        return self._images.held

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in one of the threads without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def images(self, files: Sequence[bytes]) -> list[np.ndarray]:
        """JPEG and PNG files of one request -> float32 [H, W, 3] in [0, 1] each.

        Raises:
          Refused: a file is not such an image, or they claim too many pixels.
          Busy: too much is being decoded.
        """
        with self._images.holding(len(files)):
            opened = await self.in_thread(lambda: [self._opened(one) for one in files])
            pixels = sum(self._taken(one) for one in opened)
            if pixels > self._limits.request_pixels:
                most = self._limits.request_pixels
                raise Refused(413, f"Expected at most {most:,} pixels in all images of a request, "
                                   f"found {pixels:,}.")  # fmt: skip
            with self._pixels.holding(pixels):
                return [await self.in_thread(partial(self._decoded, one)) for one in opened]

    def stop(self) -> None:
        """Stops the threads."""
        self._threads.shutdown()

    def _taken(self, image: Image.Image) -> int:
        # Resizing passes through [the image's height, the model's width]: a narrow image takes more
        # than it claims.
        (width, height), (rows, columns) = image.size, self._shape
        return max(height, rows) * max(width, columns)

    def _opened(self, content: bytes) -> Image.Image:
        """An image of which only the header is read."""
        try:
            found = Image.open(io.BytesIO(content), formats=_FORMATS)
        # Pillow's parsers raise arbitrary exceptions on broken files.
        except Exception as error:
            why = reason(error).replace("a known format", "JPEG or PNG")
            raise _unreadable(why) from error
        if self._taken(found) > self._limits.pixels:
            width, height = found.size
            raise _unreadable(
                f"{width}x{height} pixels, above the limit of {self._limits.pixels:,}"
            )
        return found

    def _decoded(self, image: Image.Image) -> np.ndarray:
        height, width = self._shape
        try:
            pixels = decode(image, (width, height)).pixels
        except ValueError as error:
            raise _unreadable(str(error)) from error
        return np.asarray(pixels, np.float32) / np.float32(255)


def _unreadable(why: str) -> Refused:
    return Refused(400, f"The image cannot be read: {why}.")
