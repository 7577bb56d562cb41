"""The same classifier as weights alone, for phones and for other runtimes, and how it compares."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export import FORMATS, weights
from tfrobust.run import write_bytes
from tfrobust.runtime import keras, tf

if TYPE_CHECKING:
    from tfrobust.config import BackboneConfig

# Images that int8 takes the ranges of its activations from.
CALIBRATION = 200
_OPSET = 17

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Compared:
    """How a portable model does against the one it was made from, on the same images.

    Attributes:
      name: of the format.
      path: the file.
      images: how many.
      agreement: part of the images with the same predicted class.
      accuracy: of the portable model.
      original_accuracy: of the original.
      difference: the largest difference of a logit.
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
            f"{self.name}: {self.path} ({size:.1f} MB); on {self.images} images the same class as "
            f"the SavedModel on {self.agreement:.1%}, accuracy {self.accuracy:.3f} against "
            f"{self.original_accuracy:.3f}, logits up to {self.difference:.3g} apart"
        )


def convert(
    model: keras.Model, name: str, folder: Path, calibration: np.ndarray | None = None,
    backbone: BackboneConfig | None = None,
) -> Path:  # fmt: skip
    """Writes a model in a portable format; images in [0, 1] in, logits out, as everywhere.

    Args:
      model: image in [0, 1], float32 [None, H, W, 3] -> logits.
      name: in `FORMATS`. 'tflite-int8' has whole-number weights and activations, with
        floats at both ends. 'weights' is for Python and this project: `weights.rebuild`.
      folder: where the file goes.
      calibration: float32 [N, H, W, 3] in [0, 1], N >= 1, training images that int8 takes
        its ranges from.
      backbone: the settings that `build` made the model with, for 'weights'.

    Raises:
      UsageError: an unknown format, int8 without images, or weights without settings.
      TFRobustError: a package is missing, or the network cannot be converted.
    """
    if name not in FORMATS:
        raise UsageError(f"Format {name!r}: expected one of {', '.join(FORMATS)}.")
    if name == "tflite-int8" and (calibration is None or not len(calibration)):
        raise UsageError("tflite-int8: expected training images to take ranges from, found none.")
    target = folder / FORMATS[name]
    if name == "weights":
        if backbone is None:
            raise UsageError(
                "weights: expected the settings that the network was built with, found none: "
                "export a run folder."
            )
        weights.write(model, backbone, target)
        return target
    try:
        with _quiet():
            content = (
                _onnx(model) if name == "onnx"
                else _tflite(model, calibration if name == "tflite-int8" else None)
            )  # fmt: skip
    except ImportError as error:
        raise TFRobustError(
            f"{name} needs the package {error.name}: pip install 'tfrobust[portable]' "
            "-c constraints.txt."
        ) from error
    # Both converters raise whatever an operation that they do not know makes them run into.
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TFRobustError(f"{model.name} cannot be converted to {name}: {first}") from error
    write_bytes(target, content)
    return target


def _graph(model: keras.Model) -> tuple[Any, Any]:
    """The logits alone, as a graph, and what it takes."""
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="images")

    @tf.function(input_signature=[spec])
    def logits(images: Any) -> Any:
        return tf.cast(model(images, training=False), tf.float32)

    return logits, spec


def _tflite(model: keras.Model, calibration: np.ndarray | None) -> bytes:
    function, _ = _graph(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], model
    )
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: (
            [calibration[i : i + 1]] for i in range(min(len(calibration), CALIBRATION))
        )
    return bytes(converter.convert())


def _onnx(model: keras.Model) -> bytes:
    tf2onnx = importlib.import_module("tf2onnx")
    function, spec = _graph(model)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=_OPSET)
    return proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converters' notes, of which there are hundreds."""
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
      TFRobustError: the runtime is not installed, or weights do not fit their settings.
    """
    return {"onnx": _load_onnx, "weights": _load_weights}.get(name, _load_tflite)(path)


def _load_weights(path: Path) -> Run:
    model = weights.rebuild(path)
    return lambda x: model(x, training=False).numpy()


def _load_tflite(path: Path) -> Run:
    with warnings.catch_warnings():
        # TensorFlow tells that a later one than ours goes without.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(model_path=str(path), num_threads=2)
    where = interpreter.get_input_details()[0]["index"]
    out = interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        rows = []
        for image in x:
            interpreter.resize_tensor_input(where, [1, *image.shape])
            interpreter.allocate_tensors()
            interpreter.set_tensor(where, image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(out)[0])
        return np.stack(rows)

    return run


def _load_onnx(path: Path) -> Run:
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise TFRobustError(
            f"onnx needs the package {error.name} to be checked: pip install "
            "'tfrobust[portable]' -c constraints.txt."
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def compare(name: str, path: Path, original: Run, x: np.ndarray, y: np.ndarray) -> Compared:
    """Runs both on the same images.

    Args:
      name: in `FORMATS`.
      path: of the portable model.
      original: what it was made from.
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
        raise TFRobustError(f"{path} returns NaN or infinity: it is not to be used.")
    classes, originals = found.argmax(axis=1), expected.argmax(axis=1)
    return Compared(
        name, path, len(x), float((classes == originals).mean()), float((classes == y).mean()),
        float((originals == y).mean()), float(np.abs(found - expected).max()),
    )  # fmt: skip
