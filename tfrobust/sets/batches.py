"""One batch of a perturbed set: predictions on its images, and the attack's results."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tfrobust.attacks.runner import run
from tfrobust.errors import TFRobustError
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import attackable, inference
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Tensor

_NORMS = ("linf", "l2", "l0")


class Judged(NamedTuple):
    """The model's predictions for images: classes [M] and confidences [M]."""

    predictions: np.ndarray
    confidences: np.ndarray


class Attacked(NamedTuple):
    """An attack's result for images [M]: the image, success, prediction, norms."""

    x_adv: np.ndarray
    success: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    linf: np.ndarray
    l2: np.ndarray
    l0: np.ndarray


class Attacker:
    """Attacks batches with one model, here or elsewhere; pickled as the classifier only.

    Args:
      classifier: from `as_classifier`.
      shape: (H, W, C) of the images.
    """

    def __init__(self, classifier: Classifier, shape: tuple[int, ...]) -> None:
        self._made_of = self._model, self._shape = classifier, shape
        self._attacks: dict[Any, Callable[..., Any]] = {}
        spec = tf.TensorSpec([None, *shape], tf.float32)
        self._classify = tf.function(self._classified, input_signature=[spec], autograph=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Attacker, self._made_of

    def batch(
        self, attack: Attack, ball: ThreatModel, seed: int, x: np.ndarray, y: np.ndarray, first: int
    ) -> tuple[Judged, Attacked]:
        """Predictions for clean images, and the attack's result for the correctly classified ones.

        Args:
          attack: repeated on the active rows.
          ball: the threat model.
          seed: of the draws, with `first`.
          x: float32 [M, H, W, C].
          y: int32 [M].
          first: index of the first image.

        Raises:
          TFRobustError: the model has too few classes, or does not accept the images.
        """
        clean = self._clean(x, y)
        # Misclassified ones keep their rows, so that one index serves all; they are not attacked.
        right = clean.predictions == y
        step = self._attack_of(attack, ball)
        best = Attacked(
            x.copy(), np.zeros(len(y), bool), y.copy(), *np.zeros((4, len(y)), np.float32)
        )
        for restart in range(attack.restarts):
            active = np.flatnonzero(right & ~best.success)
            if not len(active):
                break
            state = tf.constant([seed + restart, first], tf.int32)
            found = step(tf.constant(x[active]), tf.constant(y[active]), state)
            for whole, part in zip(best, found, strict=True):
                whole[active] = part.numpy()
        return clean, best

    def _clean(self, x: np.ndarray, y: np.ndarray) -> Judged:
        logits, *verdict = self._classify(tf.constant(x))
        if y.max() >= logits.shape[1]:
            raise TFRobustError(
                f"The data has labels up to {y.max()}, but the model has {logits.shape[1]} "
                "classes: use the data set that it was trained for."
            )
        if not np.isfinite(logits.numpy()).all():
            raise TFRobustError("The model returns NaN or infinity on clean images.")
        return Judged(*(value.numpy() for value in verdict))

    def _attack_of(self, attack: Attack, ball: ThreatModel) -> Callable[..., Any]:
        """One compiled function for all sets with the same attack and ball."""
        key = (attack, ball)
        if key not in self._attacks:
            specs = [
                tf.TensorSpec([None, *self._shape], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ]
            attacked = functools.partial(self._attack_and_judge, attack, ball)
            self._attacks[key] = tf.function(attacked, input_signature=specs, autograph=False)
        return self._attacks[key]

    def _attack_and_judge(
        self, attack: Attack, ball: ThreatModel, x: Tensor, y: Tensor, seed: Tensor
    ) -> tuple[Tensor, ...]:
        # The attack uses the folded model, which is faster; the model itself judges.
        seen, judge = attackable(self._model), inference(self._model)
        x_adv, success, logits = run(attack, seen, judge, x, y, ball, seed)
        predictions = tf.argmax(logits, axis=1, output_type=tf.int32)
        confidences = tf.reduce_max(tf.nn.softmax(logits), axis=1)
        norms = [ThreatModel(norm=norm).distance(x_adv, x) for norm in _NORMS]
        return x_adv, success, predictions, confidences, *norms

    def _classified(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = inference(self._model)(x)
        predictions = tf.argmax(logits, axis=1, output_type=tf.int32)
        return logits, predictions, tf.reduce_max(tf.nn.softmax(logits), axis=1)
