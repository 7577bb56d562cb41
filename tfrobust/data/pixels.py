"""What the numbers of an array of images stand for: black, white, and all between."""

from __future__ import annotations

import numpy as np

from tfrobust.data.types import ReadLog
from tfrobust.errors import TFRobustError

# Pixels of 0..255 whose brightest is below this are no pictures: they have another range.
DARK = 16
_HINT = "say what they range over with --pixel-range LOW,HIGH"


def scaled(
    where: str, images: np.ndarray, given: tuple[float, float] | None, log: ReadLog
) -> np.ndarray:
    """Pixels as uint8 in 0..255 or floats in [0, 1]; NaN is left to whoever decodes an image.

    Args:
      where: file and array, for messages.
      images: numbers of any type.
      given: what they range over, (black, white); None takes uint8 in 0..255, whole numbers
        in 0..255 of any type, and floats in [0, 1] for what they are.
      log: takes a note of what was not plain.

    Raises:
      TFRobustError: their range does not fit their type, or leaves it open.
    """
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype.kind not in "iuf":
        raise TFRobustError(
            f"{where}: expected uint8 in 0..255 or floats in [0, 1], found {images.dtype}."
        )
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    if given is not None:
        return _by_range(where, images, given, (low, high), log)
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return images
    found = f"{low:g}..{high:g}"
    if images.dtype == np.uint8 and high == 0:
        return images  # black all over: no range would change it
    whole = images.dtype.kind != "f" or bool((images == np.rint(images)).all())
    if whole and low >= 0 and DARK < high <= 255:
        if images.dtype != np.uint8:
            log.notes.append(f"{where}: {images.dtype} over {found} is taken for pixels of 0..255")
            return images.astype(np.uint8)
        return images
    if images.dtype == np.uint16:
        if high <= 255:
            raise TFRobustError(f"{where}: uint16 pixels range over {found}: {_HINT}.")
        log.notes.append(f"{where}: uint16 is taken for pixels of 0..65535")
        return (images / 257.0).round().astype(np.uint8)
    if images.dtype == np.uint8:
        raise TFRobustError(
            f"{where}: uint8 pixels range over {found}, which is nearly black in 0..255: {_HINT} "
            f"(--pixel-range 0,{high:g})."
        )
    raise TFRobustError(
        f"{where}: expected uint8 in 0..255 or floats in [0, 1], found {images.dtype} over "
        f"{found}: {_HINT}, or scale them."
    )


def _by_range(
    where: str, images: np.ndarray, given: tuple[float, float], found: tuple[float, float],
    log: ReadLog,
) -> np.ndarray:  # fmt: skip
    low, high = given
    if found[0] < low - 1e-6 or found[1] > high + 1e-6:
        raise TFRobustError(
            f"{where}: expected pixels in {low:g}..{high:g} (--pixel-range), found {found[0]:g} to "
            f"{found[1]:g}."
        )
    if (low, high) == (0, 255) and images.dtype == np.uint8:
        return images
    log.notes.append(f"{where}: pixels of {low:g}..{high:g} are scaled to [0, 1]")
    return np.clip((images.astype(np.float32) - low) / (high - low), 0, 1).astype(np.float32)


def refuse_dark(where: str, images: np.ndarray) -> None:
    """Refuses decoded images none of which has a pixel brighter than `DARK`.

    Args:
      where: the source, for messages.
      images: uint8 [N, H, W, C].

    Raises:
      TFRobustError: all of them are nearly black.
    """
    # A few images decide it wherever the range is right.
    for first in range(0, len(images), 256):
        if int(images[first : first + 256].max(initial=0)) > DARK:
            return
    if len(images) and images.max():
        raise TFRobustError(
            f"{where}: no pixel is brighter than {int(images.max())} of 255, so the images are "
            f"nearly black: {_HINT} (--pixel-range 0,{int(images.max())})."
        )
