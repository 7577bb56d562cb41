"""A model in a file of another runtime, TensorFlow Lite or ONNX.

The order of its axes, the range and type of its pixels, its batch size and its last activation
are determined here for all such files; every guess is reported in its notes.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from tfrobust.errors import TFRobustError
from tfrobust.models import heads
from tfrobust.models.ends import Ends
from tfrobust.models.outside import Outside
from tfrobust.models.views import InputView

#: The endings of such files.
SUFFIXES = (".tflite", ".onnx")
# Both are protocol or flat buffers, which end at 2 GB.
_LARGEST = 2 << 30
# The ranges that quantised inputs usually cover, and the part of a range that the images of the
# calibration may not have reached.
_RANGES, _SLACK = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)), 0.1
_CHANNELS = (1, 3, 4)


class Runtime(Protocol):
    """A file, opened by the library that runs it."""

    name: str
    ends: Ends
    further_files: tuple[Path, ...]

    def run(self, x: np.ndarray) -> np.ndarray:
        """Images as the file takes them -> its outputs as floats, a row for each."""


def is_exported(path: object) -> bool:
    """Whether a path names a file of TensorFlow Lite or ONNX."""
    return str(path).lower().endswith(SUFFIXES)


def open_exported(path: Path) -> ExportedModel:
    """The model in a `.tflite` or `.onnx` file.

    Args:
      path: the file.

    Raises:
      TFRobustError: it is broken, too large or unsafe, or the package that runs it is missing.
    """
    if path.stat().st_size > _LARGEST:
        raise TFRobustError(
            f"Model {path} has {path.stat().st_size:,} bytes: expected at most {_LARGEST:,}, "
            "beyond which neither TensorFlow Lite nor ONNX has files."
        )
    if path.suffix.lower() == ".tflite":
        from tfrobust.models.tflite_file import TFLiteFile

        return ExportedModel(path, TFLiteFile(path))
    from tfrobust.models.onnx_file import ONNXFile

    return ExportedModel(path, ONNXFile(path))


class ExportedModel(Outside):
    """A `.tflite` or `.onnx` file as a function: images float32 [B, H, W, C] -> outputs [B, K].

    Pixels are in the range that the file takes, `pixel_range`, which `as_classifier` reads.

    Args:
      path: the file.
      runtime: the opened file.

    Attributes:
      path: of the file.
      batch_shape: (None, H, W, C) of its images, None for any.
      pixel_range: the range of its pixels; None if unknown.
      activation: its last activation, '' for logits; None if unknown.

    Raises:
      TFRobustError: its input is no batch of images.
    """

    #: That it was converted from another model.
    converted = True

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self.path, self._runtime, self._lock = path, runtime, threading.Lock()
        ends = runtime.ends
        self._notes = [
            f"the model is a file, {path.name} ({runtime.name}): attacks see only its outputs, "
            "and the score is an upper bound that no gradient attack has tested"
        ]
        if len(ends.shape) != 4 or ends.dtype.kind not in "fiu":
            raise TFRobustError(
                f"Model {path} takes {ends.dtype.name} {_written(ends.shape)}: expected a batch of "
                "images, floats or whole numbers with four axes."
            )
        self._channels_first = self._settle_layout(ends)
        height, width, channels = self._moved(ends.shape[1:])
        self.batch_shape = (None, height, width, channels)
        self.activation = ends.activation
        self.pixel_range = self._settle_range(ends)
        # How many images it takes at once; 0 for any, None until it was tried.
        self._batch = ends.shape[0]

    @property
    def further_files(self) -> tuple[Path, ...]:
        """Further files, with its weights."""
        return self._runtime.further_files

    @property
    def notes(self) -> list[str]:
        """How it was adapted, a sentence each, for the report."""
        return list(self._notes)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """float32 [B, H, W, C] in `pixel_range` -> float32 outputs [B, K].

        Probabilities of whole numbers are never below half of their step, so that their
        logarithm is one.

        Raises:
          TFRobustError: the file does not take them, or does not return a row for each.
        """
        native = self._native(x)
        with self._lock:
            if self._batch is None and len(x):
                self._batch = self._tried(native.shape[1:])
                if self._batch:
                    self._tell_batch(self._batch)
            found = self._in_batches(native)
        step = self._runtime.ends.output_step
        if step and self.activation in (heads.SOFTMAX, heads.SIGMOID):
            found = np.clip(found, step / 2, 1 - step / 2)
        self.classes = self.classes or (found.shape[1] if len(x) else None)
        return found

    def _settle_layout(self, ends: Ends) -> bool:
        """Whether channels come before height and width, by the sizes or the first operation."""
        second, last = ends.shape[1] in _CHANNELS, ends.shape[3] in _CHANNELS
        first = second if second != last else bool(ends.channels_first)
        if first:
            how = "sizes" if second != last else "first operation"
            self._notes.append(f"it takes images [C, H, W], by its {how}: axes are moved for it")
        return first

    def _moved(self, sizes: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*sizes[1:], sizes[0]) if self._channels_first else sizes

    def _settle_range(self, ends: Ends) -> InputView | None:
        """The range of pixels, from the type or quantisation of the input."""
        if ends.dtype.kind == "f":
            return None
        whole = np.iinfo(ends.dtype)
        self._notes.append(f"its input is {ends.dtype.name}: pixels are rounded to its steps")
        if not ends.scale:
            is_signed = ends.dtype == np.int8
            return InputView((-128.0, 127.0) if is_signed else (0.0, 255.0))
        low, high = (ends.scale * (one - ends.zero) for one in (whole.min, whole.max))
        for usual in _RANGES:
            slack = _SLACK * (usual[1] - usual[0])
            if abs(low - usual[0]) <= slack and abs(high - usual[1]) <= slack:
                return InputView(usual)
        self._notes.append(
            f"its quantised input covers {low:.3g} to {high:.3g}, which is no usual "
            "range: give it with --input-range, --input-mean and "
            "--input-std"
        )
        return None

    def _native(self, x: np.ndarray) -> np.ndarray:
        """Images as the file takes them: its order of axes, its type."""
        ends = self._runtime.ends
        if self._channels_first:
            x = x.transpose(0, 3, 1, 2)
        if ends.dtype.kind != "f":
            whole = np.iinfo(ends.dtype)
            x = np.round(x / ends.scale + ends.zero) if ends.scale else np.round(x)
            x = np.clip(x, whole.min, whole.max)
        return np.ascontiguousarray(x.astype(ends.dtype))

    def _tried(self, shape: tuple[int, ...]) -> int:
        """0 if the outputs of an image do not depend on the rest of its batch, else 1."""
        rng, dtype = np.random.default_rng(0), self._runtime.ends.dtype
        pair = rng.uniform(size=(2, *shape)) * np.array([1.0, 0.1]).reshape(2, 1, 1, 1)
        if dtype.kind != "f":
            whole = np.iinfo(dtype)
            pair = np.round(whole.min + pair * (whole.max - whole.min))
        images = pair.astype(dtype)
        alone = np.concatenate([self._rows(images[i : i + 1]) for i in range(2)])
        try:
            together = self._rows(images)
        except TFRobustError:
            return 1
        tolerance = 1e-4 * max(1.0, float(np.abs(alone).max(initial=0)))
        return 0 if np.allclose(alone, together, rtol=1e-4, atol=tolerance) else 1

    def _tell_batch(self, size: int) -> None:
        self._notes.append(
            f"it takes images in batches of {size}: others are cut and filled up, which is slow"
        )

    def _in_batches(self, x: np.ndarray) -> np.ndarray:
        size = self._batch or max(len(x), 1)
        parts = []
        for first in range(0, len(x), size):
            part = x[first : first + size]
            filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
            parts.append(self._rows(filled)[: len(part)])
        return np.concatenate(parts) if parts else np.zeros((0, self.classes or 0), np.float32)

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """The outputs of a batch, float32 [B, K].

        Raises:
          TFRobustError: they are no row for each image.
        """
        found = self._runtime.run(x)
        if len(found) != len(x) or sum(size > 1 for size in found.shape[1:]) > 1:
            raise TFRobustError(
                f"Model {self.path} returns {_written(found.shape)} for {len(x)} images: expected "
                "a row of outputs for each, one for each class."
            )
        return found.reshape(len(x), -1).astype(np.float32)


def _written(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
