"""A SavedModel for the server: predictions, saliency, attacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.json_format import MessageToDict

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.runner import run
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export.extras import FOLDER, LABELS, read_labels
from tfrobust.models.classifier import Classifier, as_classifier
from tfrobust.models.opening import load_any
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

#: Settings of the page's attack.
STEPS = 20


@dataclass(frozen=True)
class Prediction:
    """One class: its label, name and probability."""

    label: int
    name: str
    probability: float


class ServedModel:
    """The newest version of a SavedModel.

    Args:
      path: folder with numeric version folders (a run folder), or one version itself.

    Attributes:
      name: of the model, for its URL.
      version: the number of the version folder, or 1.
      shape: (H, W) of its images.
      label_names: the classes' names, by label.
      signatures: inputs and outputs, in the form of TensorFlow Serving's metadata.

    Raises:
      UsageError: there is no SavedModel.
      TFRobustError: it cannot be read, does not map RGB images of one size to logits, or its class
        names do not match.
    """

    def __init__(self, path: Path) -> None:
        folder = newest_version(path.resolve())
        numbered = _is_number(folder.name)
        self.name = (folder.parent.name if numbered else folder.name) or "model"
        self.version = int(folder.name) if numbered else 1
        loaded, self.shape = _loaded(folder)
        self._model = _tried(loaded, self.shape)
        self._logits = tf.function(self._model, autograph=False, reduce_retracing=True)
        self._probe = tf.function(self._input_gradient, autograph=False)
        self.label_names = _label_names(folder, self._model.classes)
        self.signatures = _signatures(folder)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """float32 [N, H, W, 3] in [0, 1] -> float32 [N, K]."""
        found: np.ndarray = self._logits(tf.constant(x)).numpy()
        return found

    def best(self, logits: np.ndarray, count: int = 5) -> list[Prediction]:
        """The most probable classes of one image, in descending order."""
        soft = softmax(logits)
        order = np.argsort(-soft, kind="stable")[:count]
        return [Prediction(int(i), self.label_names[i], float(soft[i])) for i in order]

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """The gradient of the predicted class's logit, [H, W, 3], for one image."""
        grad: np.ndarray = self._probe(tf.constant(image[None])).numpy()[0]
        return grad

    def attack(self, image: np.ndarray, eps: float, seed: int = 0) -> np.ndarray:
        """PGD's adversarial image within linf eps, against the class predicted now."""
        x = tf.constant(image[None])
        y = tf.argmax(self._logits(x), axis=-1, output_type=tf.int32)
        ball = ThreatModel("linf", eps)
        attack = PGD(steps=STEPS)
        seeds = tf.constant([seed, 0])
        return run(attack, self._logits, self._logits, x, y, ball, seeds).x_adv.numpy()[0]

    def _input_gradient(self, x: Any) -> Any:
        y = tf.argmax(self._model(x), axis=-1, output_type=tf.int32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            logit = tf.gather(self._model(x), y, batch_dims=1)
        return tape.gradient(logit, x)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of one image, float32 [K]."""
    powers = np.exp(logits - logits.max())
    found: np.ndarray = powers / powers.sum()
    return found


def newest_version(path: Path) -> Path:
    """The version folder with the highest number, or the folder itself if it is a version.

    Raises:
      UsageError: it contains no SavedModel.
    """
    if (path / "saved_model.pb").is_file():
        return path
    versions = [
        one for one in path.glob("*") if _is_number(one.name) and (one / "saved_model.pb").is_file()
    ]
    if not versions:
        raise UsageError(
            f"{path}: expected a SavedModel, or version folders such as {path / '1'} with one, "
            "found none: make one with 'python -m pipelines.export RUN'."
        )
    return max(versions, key=lambda one: int(one.name))


def _is_number(name: str) -> bool:
    # isdigit accepts digits such as superscript two, which int() does not.
    return name.isascii() and name.isdigit()


def _loaded(folder: Path) -> tuple[Any, tuple[int, int]]:
    """The model, and (H, W) of its images."""
    try:
        model = load_any(folder)
        shape = model.image_shape
    # TensorFlow's shape of unknown rank.
    except ValueError:
        model, shape = None, ()
    if len(shape) != 3 or None in shape or shape[2] != 3:
        raise TFRobustError(
            f"SavedModel {folder}: expected images of one fixed size [H, W, 3], found "
            f"{list(shape) if shape else 'none'}: export it with a fixed input shape."
        )
    return model, (int(shape[0]), int(shape[1]))


def _tried(model: Any, shape: tuple[int, int]) -> Classifier:
    """The model as a classifier, tested on a black and a grey image."""
    images = np.stack([np.zeros((*shape, 3), np.float32), np.full((*shape, 3), 0.5, np.float32)])
    return as_classifier(model, images)


def _label_names(folder: Path, classes: int) -> list[str]:
    file = folder / FOLDER / LABELS
    try:
        names = read_labels(folder)
    except ValueError as error:
        raise TFRobustError(f"{file}: expected a JSON list of names ({error}).") from error
    if names is None:
        return [f"class {i}" for i in range(classes)]
    if not isinstance(names, list) or len(names) != classes:
        found = f"{len(names)}" if isinstance(names, list) else "no list"
        raise TFRobustError(
            f"{file}: expected {classes} class names, one for each logit, found {found}: export "
            "the model again, or remove the file."
        )
    return [str(name) for name in names]


def _signatures(folder: Path) -> dict[str, Any]:
    # protobuf knows the message type since TensorFlow was imported.
    kind = descriptor_pool.Default().FindMessageTypeByName("tensorflow.SavedModel")
    saved: Any = message_factory.GetMessageClass(kind)()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    found = saved.meta_graphs[0].signature_def
    return {
        name: MessageToDict(signature, preserving_proto_field_name=True)
        for name, signature in sorted(found.items()) if not name.startswith("__")
    }  # fmt: skip
