"""Any TensorFlow classifier, opened from any file."""

from __future__ import annotations

import importlib
import re
import tempfile
from pathlib import Path
from typing import Any

# The layers are registered where they are defined; a model file may name them.
from tfrobust.backbones import grouped, position, unfold  # noqa: F401
from tfrobust.errors import TFRobustError, UsageError, first_line
from tfrobust.models.endpoint import Endpoint
from tfrobust.models.exported import is_exported, open_exported
from tfrobust.models.rest import is_address
from tfrobust.models.safe_open import keras_version, refuse_code, refuse_operations
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, tf
from tfrobust.typing import Tensor

# How both libraries speak of a class that is not theirs.
_UNKNOWN = (
    r"Could not locate class '([^']+)'",
    r"object of type `([^`]+)`",
    r"Could not locate function '([^']+)'",
    r"[Uu]nknown layer:? '([^']+)'",
    r"[Uu]nknown object:? '([^']+)'",
    r"Unknown [a-z ]+: '?([\w>]+)'?",
)


def load_any(path: Path | str) -> Any:
    """The classifier in a run folder, SavedModel folder or model file, or at an address.

    A file of Keras 3 is opened with Keras 3, one of tf_keras with tf_keras. Nothing
    but the model's architecture and weights is read; a file with code is rejected.

    Args:
      path: run folder, SavedModel (a folder with saved_model.pb), or model file: `.keras` or
        `.h5`; `.tflite` or `.onnx`, which show their outputs and no gradient; or the address
        of a model that is served, ``http://HOST/v1/models/NAME``, as an `Endpoint`.

    Raises:
      UsageError: there is no such file.
      TFRobustError: it is not a model that can be read, or it carries code; or nothing answers
        at the address.

    Examples:
      >>> model.save(folder / "mine.keras")
      >>> opened = tr.load_any(folder / "mine.keras")
      >>> bool(np.allclose(opened(x), model(x), atol=1e-6))
      True
    """
    if is_address(path):
        return Endpoint(str(path))
    path = Path(path)
    if path.is_dir() and (path / "saved_model.pb").is_file():
        refuse_operations(path)
        return _SavedModel(path)
    path = RunFolder(path).best_model if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"Model {path} not found: expected a run folder with a trained model, a SavedModel "
            "folder, or a .keras, .h5, .tflite or .onnx file; train one with 'python -m "
            "pipelines.train'."
        )
    if is_exported(path):
        return open_exported(path)
    return _load_file(path)


def _load_file(path: Path) -> Any:
    of_keras_3 = keras_version(path).startswith("3.")
    name, library = ("Keras 3", _keras_3) if of_keras_3 else ("tf_keras", lambda: keras)
    refuse_code(path)
    try:
        return library().models.load_model(path, compile=False)
    # Both may raise anything on a broken file.
    except Exception as error:
        raise TFRobustError(
            f"Model {path} cannot be read by {name} ({_why(error)}): expected a whole model saved "
            "as .keras or .h5; open a model with custom layers in Python: "
            "tfrobust.evaluate(model, ...)."
        ) from error


def _why(error: Exception) -> str:
    """Why a library cannot read a file, in one line; for an unknown layer, its name."""
    text = " ".join(str(error).split()) or type(error).__name__
    for pattern in _UNKNOWN:
        if found := re.search(pattern, text):
            return f"it does not know the layer or function {found[1]!r}"
    return first_line(error)


def _keras_3() -> Any:
    # Keras 3 comes with TensorFlow, and is independent of tf_keras.
    return importlib.import_module("keras")


class _SavedModel:
    """The serving signature of a SavedModel as a function of images.

    Its output is the one named 'logits', or else the only one. Gradients flow through
    it; it is always in inference mode.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._loaded = tf.saved_model.load(str(path))
            self._serve = self._loaded.signatures["serving_default"]
        except Exception as error:
            first = first_line(error)
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
        #: The shape of its input, batch axis first, None for any size.
        self.batch_shape = tuple(inputs[images[0]].shape)
        #: (H, W, C) of the images, None for any size.
        self.image_shape = self.batch_shape[1:]

    def __reduce__(self) -> tuple[Any, ...]:
        files = (file for file in sorted(self._path.rglob("*")) if file.is_file())
        return _unpacked, (
            {str(file.relative_to(self._path)): file.read_bytes() for file in files},
        )

    def __call__(self, x: Tensor) -> Tensor:
        return self._serve(**{self._input: x})[self._output]


def _unpacked(files: dict[str, bytes]) -> _SavedModel:
    """The SavedModel of these files, which are inspected again."""
    with tempfile.TemporaryDirectory(prefix="tfrobust-") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        refuse_operations(Path(folder))
        return _SavedModel(Path(folder))
