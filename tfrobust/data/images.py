"""The one place that decodes images: any size and mode in, uint8 RGB out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from tfrobust.errors import TFRobustError

# The formats that are decoded. Others are excluded on purpose: Pillow passes EPS to
# Ghostscript, for example.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM")

# Maximum number of pixels (width x height) of an image; above it the file is rejected as a
# decompression bomb.
MAX_PIXELS = 64_000_000

_ORIENTATION = 0x0112

Source: TypeAlias = "bytes | Path | Image.Image | np.ndarray"


class Decoded(NamedTuple):
    """A decoded image: uint8 [H, W, 3], with its original (width, height) and mode."""

    pixels: np.ndarray
    size: tuple[int, int]
    mode: str


def to_uint8(array: np.ndarray) -> np.ndarray:
    """Pixels of any supported type, scaled to 0..255.

    Args:
      array: uint8 (unchanged); bool; uint16 in 0..65535; or floats in [0, 1].

    Returns:
      uint8, the same shape.

    Raises:
      ValueError: another type, or floats outside of [0, 1]: their range is not guessed.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.rint(array / 257.0).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ValueError(f"pixels are {array.dtype}, expected uint8 or floats in [0, 1]")
    if not (array.size and array.min() >= 0 and array.max() <= 1):
        found = f"{array.min():g}..{array.max():g}" if array.size else "none"
        raise ValueError(f"float pixels range over {found}, expected [0, 1]")
    return np.rint(array * 255.0).astype(np.uint8)


def as_channels(where: str, images: np.ndarray, channels: int) -> np.ndarray:
    """Images with another number of channels: grey as RGB, or RGB as grey (ITU-R 601 luma).

    Args:
      where: their source, for messages.
      images: [N, H, W, C], uint8 or floats in [0, 1].
      channels: the number to convert to.

    Raises:
      TFRobustError: there is no such conversion.
    """
    found = images.shape[3]
    if found == channels:
        return images
    if found == 1:
        return np.repeat(images, channels, axis=3)
    if found == 3 and channels == 1:
        if images.dtype == np.uint8:
            # Rounded like Pillow, so that a grey file is unchanged.
            weights = np.array([19595, 38470, 7471], np.uint32)
            grey = (images.astype(np.uint32) @ weights + 0x8000) >> 16
        else:
            grey = images @ np.array([0.299, 0.587, 0.114], np.float32)
        return grey.astype(images.dtype)[..., None]
    raise TFRobustError(f"{where}: images have {found} channels, the model expects {channels}.")


def decode(source: Source, size: tuple[int, int] | None = None) -> Decoded:
    """Decodes one image to RGB.

    Greyscale and palette images become RGB; 16-bit and float ones are scaled to 8 bits;
    transparent ones are blended with white. A photograph with an EXIF orientation is rotated
    upright, as viewers show it. Of an animation the first frame is used.

    Args:
      source: an encoded file (bytes or path), a Pillow image, or an array [H, W] or [H, W, 1, 3
        or 4] as for `to_uint8`.
      size: (width, height) to resize to (bilinear, antialiased, aspect not kept).

    Raises:
      ValueError: the image is broken, truncated, unsupported or too large.
    """
    try:  # Pillow's parsers raise arbitrary exceptions on broken files
        with _open(source) as image:
            mode, found = image.mode, _checked_size(image)
            if size and isinstance(image, JpegImageFile):
                image.draft(None, (2 * max(size), 2 * max(size)))
            image.load()
            rgb = _to_rgb(ImageOps.exif_transpose(image) if _orientation(image) > 1 else image)
            if size and rgb.size != size:
                rgb = rgb.resize(size, Image.Resampling.BILINEAR)
            return Decoded(np.asarray(rgb), found, mode)
    except Exception as error:
        raise ValueError(reason(error)) from error


def measure(source: Source) -> tuple[int, int]:
    """The upright (width, height) of an image, from its header only.

    Args:
      source: as for `decode`.

    Raises:
      Exception: any exception of Pillow's parser; `decode` reports it properly.
    """
    with _open(source) as image:
        return _checked_size(image)


def _open(source: Source) -> Image.Image:
    """The image with only its header read."""
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return source
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return Image.open(file, formats=FORMATS)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ValueError(f"an array of shape {array.shape}, expected [H, W] or [H, W, 1, 3 or 4]")
    return Image.fromarray(np.ascontiguousarray(to_uint8(array)))


def _orientation(image: Image.Image) -> int:
    # Pillow rotates TIFF by itself; querying a PNG without EXIF would decode it.
    return int(image.getexif().get(_ORIENTATION, 1)) if "exif" in image.info else 1


def _checked_size(image: Image.Image) -> tuple[int, int]:
    """The upright size, if it is within the limits."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels, above the limit of {MAX_PIXELS:,}")
    if not width * height:
        raise ValueError(f"{width}x{height} pixels: the image is empty")
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I":
        image = Image.fromarray(to_uint8(_as_uint16(np.asarray(image))))
    elif image.mode == "F" or image.mode.startswith("I;16"):
        image = Image.fromarray(to_uint8(np.asarray(image)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _as_uint16(array: np.ndarray) -> np.ndarray:
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(f"integer pixels range over {array.min()}..{array.max()}, not 0..65535")
    return array.astype(np.uint16)


def reason(error: Exception) -> str:
    """Why an image is broken, in one line without a full stop."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image of a known format"
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
