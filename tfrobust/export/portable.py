"""The classifier in portable formats for phones and other runtimes, compared with the original."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.errors import TFRobustError, UsageError, first_line
from tfrobust.export.formats import Run, format_of
from tfrobust.runtime import keras

if TYPE_CHECKING:
    from tfrobust.config import BackboneConfig


@dataclass(frozen=True)
class Compared:
    """A portable model compared with the original on the same images.

    Attributes:
      name: of the format.
      path: the file.
      images: number of images.
      agreement: fraction of images with the same predicted class.
      accuracy: of the portable model.
      original_accuracy: of the original.
      difference: the largest absolute difference of a logit.
    """

    name: str
    path: Path
    images: int
    agreement: float
    accuracy: float
    original_accuracy: float
    difference: float

    def as_text(self) -> str:
        """One line."""
        size = self.path.stat().st_size / 2**20
        return (
            f"{self.name}: {self.path} ({size:.1f} MB); on {self.images} images, same class as the "
            f"SavedModel on {self.agreement:.1%}, accuracy {self.accuracy:.3f} against "
            f"{self.original_accuracy:.3f}, largest logit difference {self.difference:.3g}"
        )


def convert(
    model: keras.Model, name: str, folder: Path, calibration: np.ndarray | None = None,
    backbone: BackboneConfig | None = None,
) -> Path:  # fmt: skip
    """Writes a model in a portable format; images in [0, 1] in, logits out, as everywhere.

    Args:
      model: image in [0, 1], float32 [None, H, W, 3] -> logits.
      name: in `FORMATS`, optionally with settings: 'onnx:opset=15'.
      folder: for the file.
      calibration: float32 [N, H, W, 3] in [0, 1], N >= 1, training images on which int8
        calibrates its ranges.
      backbone: the settings that `build` made the model with, for 'weights'.

    Raises:
      UsageError: an unknown format, int8 without images, or weights without settings.
      TFRobustError: a package is missing, or the network cannot be converted.
    """
    form = format_of(name)
    if form.needs_images and (calibration is None or not len(calibration)):
        raise UsageError(f"{name}: expected training images to calibrate on, found none.")
    if form.needs_backbone and backbone is None:
        raise UsageError(
            f"{name}: expected the settings that the network was built with, found none: export a "
            "run folder."
        )
    target = folder / form.file
    try:
        with _quiet():
            form.write(model, target, calibration, backbone)
    except (TFRobustError, OSError):
        raise
    except ImportError as error:
        raise TFRobustError(
            f"{name} needs the package {error.name}: pip install 'tfrobust[portable]' "
            "-c constraints.txt."
        ) from error
    # Converters raise arbitrary exceptions on operations that they do not know.
    except Exception as error:
        first = first_line(error)
        raise TFRobustError(f"{model.name} cannot be converted to {name}: {first}") from error
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the converters' notes, of which there are hundreds."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def load(name: str, path: Path) -> Run:
    """The portable model as a function of images: float32 [N, H, W, 3] -> logits [N, K].

    Raises:
      TFRobustError: the runtime is not installed, or weights do not match their settings.
    """
    return format_of(name).load(path)


def compare(name: str, path: Path, original: Run, x: np.ndarray, y: np.ndarray) -> Compared:
    """Runs both on the same images.

    Args:
      name: in `FORMATS`.
      path: of the portable model.
      original: the model that it was converted from.
      x: float32 [N, H, W, 3] in [0, 1].
      y: int [N].

    Raises:
      TFRobustError: the portable model's logits are not finite, or its runtime is missing.
    """
    run = load(name, path)
    parts = [slice(i, i + 64) for i in range(0, len(x), 64)]
    found, expected = (
        np.concatenate([np.asarray(f(x[p])) for p in parts]) for f in (run, original)
    )
    if not np.isfinite(found).all():
        raise TFRobustError(f"{path} returns NaN or infinity and must not be used.")
    classes, originals = found.argmax(axis=1), expected.argmax(axis=1)
    return Compared(
        name, path, len(x), float((classes == originals).mean()), float((classes == y).mean()),
        float((originals == y).mean()), float(np.abs(found - expected).max()),
    )  # fmt: skip
