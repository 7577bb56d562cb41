"""Any TensorFlow classifier: opened from any file, asked for its classes, and its calls counted."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

# The layers are registered where they are defined; a model file may name them.
from tfrobust.backbones import grouped, position, unfold  # noqa: F401
from tfrobust.backbones.inference import Classifier, inference
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.evaluation.untrusted import keras_version, refuse_code
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, tf

Tensor = Any


def number_of_classes(model: Any, x: Tensor) -> int:
    """K, by what the model returns for images x float32 [B, H, W, 3].

    Raises:
      TFRobustError: the model does not take these images, or does not return logits [B, K].
    """
    try:
        found = inference(model)(x)
    # A model may raise whatever it likes; a tf_keras layer raises ValueError.
    except (ValueError, TypeError, tf.errors.OpError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise TFRobustError(
            f"The model does not take images of {' x '.join(map(str, x.shape[1:]))} "
            f"({lines[-1] if lines else type(error).__name__}): give it images of its own size, "
            "or have them resized by --image-size."
        ) from error
    if len(found.shape) != 2:
        raise TFRobustError(
            f"The model returns {list(found.shape)} for {len(x)} images, expected logits of "
            "shape [B, K], one for each class."
        )
    return int(found.shape[1])


def load_any(path: Path) -> Any:
    """The classifier in a run folder, SavedModel folder, or `.keras` or `.h5` file.

    A file of Keras 3 is opened with Keras 3, one of tf_keras with tf_keras. Nothing
    but the model's architecture and weights is read; a file that carries code is refused.

    Args:
      path: run folder, SavedModel (a folder with saved_model.pb), or model file.

    Raises:
      UsageError: there is no such file.
      TFRobustError: it is not a model that can be read, or it carries code.
    """
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return _SavedModel(path)
    path = RunFolder(path).best_model if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"Model {path} not found: expected a run folder with a trained model, a SavedModel "
            "folder, or a .keras or .h5 file; train one with 'python -m pipelines.train'."
        )
    return _load_file(path)


def _load_file(path: Path) -> Any:
    of_keras_3 = keras_version(path).startswith("3.")
    name, library = ("Keras 3", _keras_3) if of_keras_3 else ("tf_keras", lambda: keras)
    refuse_code(path)
    try:
        return library().models.load_model(path, compile=False)
    # Both raise whatever a broken file makes them run into.
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TFRobustError(
            f"Model {path} cannot be read by {name} ({first}): expected a whole model saved as "
            ".keras or .h5; a model with layers of your own goes through Python: "
            "tfrobust.evaluate(model, ...)."
        ) from error


def _keras_3() -> Any:
    # Keras 3 comes with TensorFlow and lives beside tf_keras.
    return importlib.import_module("keras")


class _SavedModel:
    """The serving signature of a SavedModel as a function of images.

    Its output is the one named 'logits', or else the only one. Gradients flow through
    it; it is always in inference mode.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._loaded = tf.saved_model.load(str(path))
            self._serve = self._loaded.signatures["serving_default"]
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TFRobustError(
                f"SavedModel {path} cannot be read ({first}): expected one with the signature "
                "serving_default."
            ) from error
        inputs = self._serve.structured_input_signature[1]
        outputs = self._serve.structured_outputs
        images = [name for name, spec in inputs.items() if spec.dtype.is_floating]
        logits = [name for name in outputs if name == "logits"] or list(outputs)
        if len(inputs) != 1 or not images or len(logits) != 1:
            raise TFRobustError(
                f"SavedModel {path}: expected one float input (images in [0, 1]) and one output, "
                f"or one named 'logits', found inputs {', '.join(inputs)} and outputs "
                f"{', '.join(outputs)}."
            )
        self._input, self._output = images[0], logits[0]
        #: (H, W, C) of the images; None where it takes any.
        self.image_shape = tuple(inputs[images[0]].shape[1:])

    def __call__(self, x: Tensor) -> Tensor:
        return self._serve(**{self._input: x})[self._output]


class Counter:
    """Counts what a model is asked for: examples forward, and examples backward."""

    def __init__(self) -> None:
        # int64: 5,000 queries on a million images pass 2^31.
        self._forward, self._backward = (
            tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(2)
        )

    def wrap(self, model: Classifier) -> Classifier:
        """`model`, counted; inside and outside of a `tf.function`."""

        @tf.custom_gradient
        def counted(logits: Tensor) -> tuple[Tensor, Classifier]:
            def grad(upstream: Tensor) -> Tensor:
                self._backward.assign_add(tf.shape(upstream, out_type=tf.int64)[0])
                return upstream

            return tf.identity(logits), grad

        def forward(x: Tensor) -> Tensor:
            self._forward.assign_add(tf.shape(x, out_type=tf.int64)[0])
            return counted(model(x))

        return forward

    def take(self) -> tuple[int, int]:
        """(forward, backward) since the last call, and back to 0."""
        counts = int(self._forward.numpy()), int(self._backward.numpy())
        self._forward.assign(0)
        self._backward.assign(0)
        return counts
