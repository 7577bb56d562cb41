"""Measures a classifier against attacks: the caller of every attack, and its judge."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfrobust.attacks.gradient import input_gradient
from tfrobust.backbones.folding import fold
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError
from tfrobust.evaluation.checks import doubts, refuse_probabilities
from tfrobust.evaluation.report import AttackResult, Outcome, RobustnessReport
from tfrobust.progress import Progress
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel

Tensor = Any
Attack = Any


def inference(model: Any) -> Callable[[Tensor], Tensor]:
    """`model` as a plain function of images, in inference mode, with float32 logits."""
    return lambda x: tf.cast(model(x, training=False), tf.float32)


class Evaluator:
    """Runs attacks on one model and judges them.

    Every success is verified here: the returned image is projected onto the ball, and
    counts only if it is inside the ball and the bounds (to 1e-6) and misclassified.

    Args:
      model: [0, 1] images float32 [B, H, W, 3] -> logits [B, K].
      data: the images; labels in 0..K-1.
      batch_size: images in a batch.
      seed: of random starts.
    """

    def __init__(self, model: Any, data: ImageSet, *, batch_size: int = 128, seed: int = 42):
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self._model, self._logits = model, inference(model)
        self._spec = (
            tf.TensorSpec([None, *data.image_shape], tf.uint8),
            tf.TensorSpec([None], tf.int32),
        )
        self._judges: dict[Any, Callable[..., Any]] = {}
        self._judge_clean = tf.function(self._clean_batch, input_signature=self._spec)
        self.clean = self._run_clean()

    def _run_clean(self) -> Outcome:
        self._check_labels()
        columns = []
        for index in self._chunks(np.arange(len(self.data)), "clean accuracy"):
            logits, *column = self._judge_clean(*self._batch(index))
            refuse_probabilities(logits.numpy())
            columns.append([value.numpy() for value in column])
        return Outcome(*map(np.concatenate, zip(*columns, strict=True)))

    def _check_labels(self) -> None:
        x, _ = self._batch(np.arange(1))
        classes = int(self._logits(_pixels(x)).shape[-1])
        top = int(self.data.labels.max())
        if top >= classes:
            raise TFRobustError(
                f"The data has labels up to {top}, but the model knows {classes} classes "
                f"(0 to {classes - 1}): evaluate it on the data set that it was trained for."
            )

    def zero_gradients(self) -> float:
        """Part of the first batch whose input gradient is 0 everywhere."""
        x, y = self._batch(np.arange(min(len(self.data), self.batch_size)))
        grad, _ = input_gradient(self._logits, _pixels(x), y, "margin")
        return float(tf.reduce_mean(tf.cast(tf.reduce_all(grad == 0, axis=[1, 2, 3]), tf.float32)))

    def run(self, name: str, attack: Attack, threat_model: ThreatModel) -> AttackResult:
        """Attacks every image that is classified correctly, restart after restart.

        Each restart works on what still stands. Images that are misclassified without
        attack keep their clean prediction, so `in_top5` is an upper bound: the attack
        does not aim at the top 5.
        """
        start = time.perf_counter()
        outcome = Outcome(*(np.copy(v) for v in _fields(self.clean)))
        judge = self._judge(attack, threat_model)
        eps = tf.constant(threat_model.eps, tf.float32)
        gradients = 0
        for restart in range(attack.restarts):
            standing = np.flatnonzero(outcome.correct)
            label = f"{name} {threat_model}" + (f" restart {restart + 1}" if restart else "")
            for index in self._chunks(standing, label):
                seed = tf.constant([self.seed + restart, int(index[0])], tf.int32)
                found = judge(*self._batch(index), seed, eps)
                for values, new in zip(_fields(outcome), found, strict=True):
                    values[index] = new.numpy()
            gradients += len(standing) * attack.gradient_evaluations
        seconds = time.perf_counter() - start
        parameters = dataclasses.asdict(attack)
        return AttackResult(name, threat_model, parameters, outcome, gradients, seconds)

    def craft(self, attack: Attack, threat_model: ThreatModel, index: np.ndarray) -> np.ndarray:
        """Attacked images, float32 [M, H, W, 3], inside the ball, successful or not."""
        made = []
        for chunk in self._chunks(index, "crafting"):
            x, y = self._batch(chunk)
            seed = tf.constant([self.seed, int(chunk[0])], tf.int32)
            made.append(self._attacked(attack, threat_model, x, y, seed)[0].numpy())
        return np.concatenate(made)

    def _judge(self, attack: Attack, threat_model: ThreatModel) -> Callable[..., Any]:
        """One compiled function per attack and ball; eps is an argument, so radii share it."""
        key = (attack, threat_model.norm, threat_model.bounds)
        if key not in self._judges:

            def judge(x: Tensor, y: Tensor, seed: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
                ball = dataclasses.replace(threat_model, eps=eps)
                return self._attack_batch(attack, ball, x, y, seed)

            seed_and_eps = (tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.float32))
            self._judges[key] = tf.function(judge, input_signature=(*self._spec, *seed_and_eps))
        return self._judges[key]

    def _attack_batch(
        self, attack: Attack, threat_model: ThreatModel, x: Tensor, y: Tensor, seed: Tensor
    ) -> tuple[Tensor, ...]:
        _, ok, logits = self._attacked(attack, threat_model, x, y, seed)
        predictions, confidences, _, in_top5 = _judge_logits(logits, y)
        return predictions, confidences, ~ok, in_top5

    def _attacked(
        self, attack: Attack, threat_model: ThreatModel, x: Tensor, y: Tensor, seed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attacked images, whether each is a verified success, and their logits."""
        clean = _pixels(x)
        # The attack sees the folded model, which is faster; the model itself is the judge.
        x_adv = attack(fold(self._model), clean, y, threat_model, seed)
        x_adv = threat_model.project(x_adv, clean)
        logits = self._logits(x_adv)
        wrong = tf.argmax(logits, axis=1, output_type=tf.int32) != y
        return x_adv, wrong & threat_model.contains(x_adv, clean), logits

    def _clean_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        logits = self._logits(_pixels(x))
        return (logits, *_judge_logits(logits, y))

    def _batch(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        return tf.constant(self.data.images[index]), tf.constant(self.data.labels[index], tf.int32)

    def _chunks(self, index: np.ndarray, label: str) -> Any:
        progress = Progress(label, len(index))
        for first in range(0, len(index), self.batch_size):
            yield index[first : first + self.batch_size]
            progress.update(min(first + self.batch_size, len(index)))
        progress.close()


def evaluate(
    model: Any,
    data: ImageSet,
    threat_model: ThreatModel,
    attacks: Mapping[str, Attack],
    *,
    name: str = "model",
    sweep: tuple[float, ...] = (),
    batch_size: int = 128,
    seed: int = 42,
) -> RobustnessReport:
    """Clean accuracy, each attack's accuracy, and the worst case per example.

    Args:
      model: [0, 1] images float32 [B, H, W, 3] -> logits [B, K].
      data: the images to measure on.
      threat_model: the ball.
      attacks: name -> attack, each run on every correctly classified image.
      name: what the report calls the model.
      sweep: further radii to run the same attacks at.
      batch_size: images in a batch.
      seed: of random starts.

    Raises:
      TFRobustError: labels out of the model's range, outputs that are not logits.
    """
    start = time.perf_counter()
    evaluator = Evaluator(model, data, batch_size=batch_size, seed=seed)
    results = [evaluator.run(key, attack, threat_model) for key, attack in attacks.items()]
    further = []
    for eps in sweep:
        ball = dataclasses.replace(threat_model, eps=eps)
        further += [evaluator.run(key, attack, ball) for key, attack in attacks.items()]
    return RobustnessReport(
        model=name,
        threat_model=threat_model,
        labels=data.labels,
        clean=evaluator.clean,
        attacks=tuple(results),
        sweep=tuple(further),
        flags=doubts(evaluator.clean.predictions, evaluator.zero_gradients(), results),
        seconds=time.perf_counter() - start,
    )


def _fields(outcome: Outcome) -> tuple[np.ndarray, ...]:
    return outcome.predictions, outcome.confidences, outcome.correct, outcome.in_top5


def _pixels(x: Tensor) -> Tensor:
    return tf.cast(x, tf.float32) / 255


def _judge_logits(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    predictions = tf.argmax(logits, axis=1, output_type=tf.int32)
    confidences = tf.reduce_max(tf.nn.softmax(logits), axis=1)
    k = min(5, int(logits.shape[-1]))
    return predictions, confidences, predictions == y, tf.math.in_top_k(y, logits, k)
