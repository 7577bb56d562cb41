"""The meaning of the numbers in an array of images: black, white, and everything between."""

from __future__ import annotations

import numpy as np

from tfrobust.data.images import as_channels
from tfrobust.data.mapped import convert, in_chunks
from tfrobust.data.types import ReadLog, ReadOptions
from tfrobust.errors import TFRobustError

# If the brightest pixel in 0..255 is below this, the images have another range.
DARK = 16
_HINT = "give their range with --pixel-range LOW,HIGH"


def checked_images(
    where: str, images: np.ndarray, options: ReadOptions, log: ReadLog
) -> np.ndarray:
    """An array of images as [N, H, W] or [N, H, W, C], uint8 or floats in [0, 1] (or NaN).

    Args:
      where: file and array, for messages.
      images: of any type and order of axes.
      options: the expected channels and the pixels' range, if known.
      log: receives a note on anything unusual.

    Raises:
      TFRobustError: they are not images, or their pixel range is ambiguous.
    """
    images = _channels_last(where, images, options.channels, log)
    channels = images.shape[3] if images.ndim == 4 else 1
    if not len(images):
        raise TFRobustError(f"{where}: expected images of shape [N, H, W, C], found none.")
    if images.ndim not in (3, 4) or channels not in (1, 3, options.channels) or not len(images):
        raise TFRobustError(
            f"{where}: expected images of shape [N, H, W], [N, H, W, 1] or [N, H, W, 3], found "
            f"{list(images.shape)}: bring the axes into this order (numpy.moveaxis)."
        )
    return scaled(where, images, options.pixel_range, log)


def _channels_last(where: str, images: np.ndarray, wanted: int | None, log: ReadLog) -> np.ndarray:
    """[N, C, H, W] as [N, H, W, C], if C cannot be a height."""
    if images.ndim != 4:
        return images
    known = (1, 3, wanted)
    first, last = images.shape[1], images.shape[3]
    if first in known and last not in known and min(images.shape[2:]) >= 8:
        log.notes.append(f"{where}: images are [N, C, H, W]: the channel axis is moved last")
        return np.moveaxis(images, 1, 3)
    return images


def plain_pixels(where: str, images: np.ndarray, channels: int | None, log: ReadLog) -> np.ndarray:
    """Checked images as [N, H, W, C], uint8 or float32 without NaN.

    Args:
      where: file and array, for messages.
      images: as returned by `checked_images`.
      channels: expected number; None is 3 if there are fewer.
      log: receives a note if the number of channels changes.

    Raises:
      TFRobustError: a pixel is NaN, or the channels cannot be converted.
    """
    if images.dtype != np.uint8:
        _reject_nan(where, images)
        if images.dtype != np.float32:
            images = convert(images, lambda rows: rows.astype(np.float32))
    images = images[..., None] if images.ndim == 3 else images
    wanted = channels or max(images.shape[3], 3)
    if wanted == images.shape[3]:
        return images
    log.notes.append(f"images of {images.shape[3]} channel(s) are converted to {wanted}")
    return convert(images, lambda rows: as_channels(where, rows, wanted))


def _reject_nan(where: str, images: np.ndarray) -> None:
    done = 0
    for rows in in_chunks(images):
        broken = np.isnan(rows).any(axis=tuple(range(1, rows.ndim)))
        if broken.any():
            raise TFRobustError(
                f"{where}[{done + int(broken.argmax())}]: expected floats in [0, 1], found NaN: "
                "remove the image."
            )
        done += len(rows)


def scaled(
    where: str, images: np.ndarray, given: tuple[float, float] | None, log: ReadLog
) -> np.ndarray:
    """Pixels as uint8 in 0..255 or floats in [0, 1]; NaN is left to the decoder of each image.

    Args:
      where: file and array, for messages.
      images: numbers of any type; a map of a file is scaled into another file.
      given: their range, (black, white); None accepts uint8 in 0..255, whole numbers in 0..255
        of any type, and floats in [0, 1].
      log: receives a note on anything unusual.

    Raises:
      TFRobustError: their range does not match their type, or is ambiguous.
    """
    if images.dtype == np.bool_:
        return convert(images, lambda rows: rows.astype(np.uint8) * np.uint8(255))
    if images.dtype.kind not in "iuf":
        raise TFRobustError(
            f"{where}: expected uint8 in 0..255 or floats in [0, 1], found {images.dtype}."
        )
    low = float(np.nanmin([np.nanmin(rows) for rows in in_chunks(images)]))
    high = float(np.nanmax([np.nanmax(rows) for rows in in_chunks(images)]))
    if given is not None:
        return _by_range(where, images, given, (low, high), log)
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return images
    return _whole_numbers(where, images, (low, high), log)


def _whole_numbers(
    where: str, images: np.ndarray, extent: tuple[float, float], log: ReadLog
) -> np.ndarray:
    """Pixels of 0..255 or 0..65535, of any type, as uint8."""
    low, high = extent
    found = f"{low:g}..{high:g}"
    if images.dtype == np.uint8 and high == 0:
        return images  # all black: no range would change it
    if low >= 0 and DARK < high <= 255 and _is_whole(images):
        if images.dtype != np.uint8:
            log.notes.append(f"{where}: {images.dtype} over {found} is read as pixels of 0..255")
            return convert(images, lambda rows: rows.astype(np.uint8))
        return images
    if images.dtype == np.uint16:
        if high <= 255:
            raise TFRobustError(f"{where}: uint16 pixels range over {found}: {_HINT}.")
        log.notes.append(f"{where}: uint16 is read as pixels of 0..65535")
        return convert(images, lambda rows: (rows / 257.0).round().astype(np.uint8))
    if images.dtype == np.uint8:
        raise TFRobustError(
            f"{where}: uint8 pixels range over {found}, which is nearly black in 0..255: {_HINT} "
            f"(--pixel-range 0,{high:g})."
        )
    raise TFRobustError(
        f"{where}: expected uint8 in 0..255 or floats in [0, 1], found {images.dtype} over "
        f"{found}: {_HINT}, or scale them."
    )


def _is_whole(images: np.ndarray) -> bool:
    return images.dtype.kind != "f" or all(
        bool((rows == np.rint(rows)).all()) for rows in in_chunks(images)
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

    def unit(rows: np.ndarray) -> np.ndarray:
        pixels = (rows.astype(np.float32) - low) / (high - low)
        return np.clip(pixels, 0, 1).astype(np.float32)

    return convert(images, unit)


def reject_dark(where: str, images: np.ndarray) -> None:
    """Rejects decoded images if no pixel of any is brighter than `DARK`.

    Args:
      where: the source, for messages.
      images: uint8 [N, H, W, C].

    Raises:
      TFRobustError: all of them are nearly black.
    """
    # If the range is right, a few images decide it.
    for first in range(0, len(images), 256):
        if int(images[first : first + 256].max(initial=0)) > DARK:
            return
    if len(images) and images.max():
        raise TFRobustError(
            f"{where}: no pixel is brighter than {int(images.max())} of 255, so the images are "
            f"nearly black: {_HINT} (--pixel-range 0,{int(images.max())})."
        )
