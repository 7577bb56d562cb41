"""A SavedModel as the server uses it: predictions, what decides them, what breaks them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.attacks.gradient import PGD
from tfrobust.errors import UsageError
from tfrobust.evaluation.models import load_any
from tfrobust.export.extras import read_labels
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

#: Of the attack that the page shows.
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
      name: of the model, for its address.
      version: the number of the version folder, or 1.
      shape: (H, W) of its images.
      label_names: the classes' names, by label.

    Raises:
      UsageError: there is no SavedModel.
      TFRobustError: it cannot be read, or does not take images.
    """

    def __init__(self, path: Path) -> None:
        folder = newest_version(path)
        self.name = path.name if folder != path else path.parent.name
        self.version = int(folder.name) if folder.name.isdigit() else 1
        self._model = load_any(folder)
        self.shape: tuple[int, int] = tuple(self._model.image_shape[:2])
        self._logits = tf.function(self._model, autograph=False, reduce_retracing=True)
        self._probe = tf.function(self._input_gradient, autograph=False)
        classes = int(self.probabilities(np.zeros((1, *self.shape, 3), np.float32)).shape[1])
        self.label_names = read_labels(folder) or [f"class {i}" for i in range(classes)]

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """float32 [N, H, W, 3] in [0, 1] -> float32 [N, K]."""
        found: np.ndarray = tf.nn.softmax(self._logits(tf.constant(x))).numpy()
        return found

    def best(self, probabilities: np.ndarray, count: int = 5) -> list[Prediction]:
        """The most probable classes of one image, the first first."""
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [Prediction(int(i), self.label_names[i], float(probabilities[i])) for i in order]

    def saliency(self, image: np.ndarray) -> np.ndarray:
        """The gradient of the predicted class's logit, [H, W, 3], for one image."""
        grad: np.ndarray = self._probe(tf.constant(image[None])).numpy()[0]
        return grad

    def attack(self, image: np.ndarray, eps: float, seed: int = 0) -> np.ndarray:
        """What PGD makes of one image within linf eps, against the class now predicted."""
        x = tf.constant(image[None])
        y = tf.argmax(self._logits(x), axis=-1, output_type=tf.int32)
        ball = ThreatModel("linf", eps)
        attack = PGD(steps=STEPS)
        found = attack(self._logits, x, y, ball, tf.constant([seed, 0]))
        return ball.project(found, x).numpy()[0]

    def _input_gradient(self, x: Any) -> Any:
        y = tf.argmax(self._model(x), axis=-1, output_type=tf.int32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            logit = tf.gather(self._model(x), y, batch_dims=1)
        return tape.gradient(logit, x)


def newest_version(path: Path) -> Path:
    """The version folder with the highest number, or the folder itself where it is one.

    Raises:
      UsageError: there is no SavedModel in it.
    """
    if (path / "saved_model.pb").is_file():
        return path
    versions = [
        one for one in path.glob("*") if one.name.isdigit() and (one / "saved_model.pb").is_file()
    ]
    if not versions:
        raise UsageError(
            f"{path}: expected a SavedModel, or version folders such as {path / '1'} with one, "
            "found none: make one with 'python -m pipelines.export RUN'."
        )
    return max(versions, key=lambda one: int(one.name))
