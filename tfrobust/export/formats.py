"""Export formats as frozen dataclasses: each writes a model, and reads it back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfrobust.io import write_bytes
from tfrobust.plugins import configured, parse
from tfrobust.settings import Checked, setting

if TYPE_CHECKING:
    from tfrobust.config import BackboneConfig
    from tfrobust.runtime import keras

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Format(Checked):
    """The base of all formats: images in [0, 1] in, logits out.

    Attributes:
      file: its file name, beside the SavedModel.
      needs_images: whether it calibrates the ranges of activations on training images.
      needs_backbone: whether it stores the settings that the network was built with.
    """

    file: ClassVar[str] = ""
    needs_images: ClassVar[bool] = False
    needs_backbone: ClassVar[bool] = False

    def write(
        self, model: keras.Model, target: Path, images: np.ndarray | None,
        backbone: BackboneConfig | None,
    ) -> None:  # fmt: skip
        """Writes `model` to `target`.

        Args:
          model: image in [0, 1], float32 [None, H, W, 3] -> logits.
          target: the file.
          images: float32 [N, H, W, 3], if the format needs them.
          backbone: the network's settings, if the format needs them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define write.")

    def load(self, path: Path) -> Run:
        """The written model as a function of images: float32 [N, H, W, 3] -> logits [N, K]."""
        raise NotImplementedError(f"{type(self).__name__} does not define load.")


@dataclass(frozen=True, kw_only=True)
class Weights(Format):
    """Weights only, for Python and this project: `weights.rebuild`."""

    file: ClassVar[str] = "model.weights.h5"
    needs_backbone: ClassVar[bool] = True

    def write(
        self, model: keras.Model, target: Path, images: np.ndarray | None,
        backbone: BackboneConfig | None,
    ) -> None:  # fmt: skip
        """Writes the settings beside them."""
        from tfrobust.export import weights

        assert backbone is not None  # checked by `convert`
        weights.write(model, backbone, target)

    def load(self, path: Path) -> Run:
        """Builds the network and loads these weights."""
        from tfrobust.export import weights

        model = weights.rebuild(path)
        return lambda x: model(x, training=False).numpy()


@dataclass(frozen=True, kw_only=True)
class TFLite(Format):
    """TensorFlow Lite with float32 weights and activations."""

    file: ClassVar[str] = "model.tflite"

    def write(
        self, model: keras.Model, target: Path, images: np.ndarray | None,
        backbone: BackboneConfig | None,
    ) -> None:  # fmt: skip
        """Writes a flat buffer."""
        from tfrobust.runtime import tf

        function, _ = logits_of(model)
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [function.get_concrete_function()], model
        )
        self.prepare(converter, images)
        write_bytes(target, bytes(converter.convert()))

    def prepare(self, converter: Any, images: np.ndarray | None) -> None:
        """Sets up TensorFlow's converter."""

    def load(self, path: Path) -> Run:
        """Uses TensorFlow's own interpreter."""
        from tfrobust.models.exported import open_exported

        return open_exported(path).outputs


@dataclass(frozen=True, kw_only=True)
class TFLiteInt8(TFLite):
    """TensorFlow Lite with integer weights and activations, and float inputs and outputs.

    Attributes:
      images: number of training images to calibrate the ranges of activations on.
    """

    file: ClassVar[str] = "model_int8.tflite"
    needs_images: ClassVar[bool] = True

    images: int = setting(200, "number of training images to calibrate ranges on", low=1)

    def prepare(self, converter: Any, images: np.ndarray | None) -> None:
        """Uses integers, with ranges calibrated on the images."""
        from tfrobust.runtime import tf

        assert images is not None  # checked by `convert`
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: (
            [images[i : i + 1]] for i in range(min(len(images), self.images))
        )


@dataclass(frozen=True, kw_only=True)
class ONNX(Format):
    """ONNX, written by tf2onnx and checked by onnxruntime.

    Attributes:
      opset: version of ONNX's operator set.
    """

    file: ClassVar[str] = "model.onnx"

    opset: int = setting(17, "version of ONNX's operator set", low=13)

    def write(
        self, model: keras.Model, target: Path, images: np.ndarray | None,
        backbone: BackboneConfig | None,
    ) -> None:  # fmt: skip
        """Writes a protocol buffer."""
        tf2onnx = importlib.import_module("tf2onnx")
        function, spec = logits_of(model)
        proto, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=self.opset)
        write_bytes(target, proto.SerializeToString())

    def load(self, path: Path) -> Run:
        """Uses onnxruntime on the CPU."""
        from tfrobust.models.exported import open_exported

        return open_exported(path).outputs


def logits_of(model: keras.Model) -> tuple[Any, Any]:
    """The logits only, as a graph, and its input."""
    from tfrobust.runtime import tf

    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="images")

    @tf.function(input_signature=[spec])
    def logits(images: Any) -> Any:
        return tf.cast(model(images, training=False), tf.float32)

    return logits, spec


def format_of(text: str) -> Format:
    """A format with its settings, as written on the command line: 'onnx:opset=15'.

    Raises:
      UsageError: the format or a setting is unknown, or a value is out of range.
    """
    from tfrobust.export import FORMATS

    name, settings = parse(text, FORMATS, "--formats")
    made: Format = configured(FORMATS[name], settings, f"Format {name}")
    return made
