"""The calls of an evaluation to its classifier, by batch, in this process or another."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tfrobust.attacks import runner
from tfrobust.attacks.gradient import input_gradient
from tfrobust.data.as_pixels import as_pixels
from tfrobust.evaluation.batches import judge_logits
from tfrobust.evaluation.calibration import brier_of
from tfrobust.models.classifier import Classifier
from tfrobust.models.counter import Counter
from tfrobust.models.inference import attackable, inference
from tfrobust.models.outside import told_plainly
from tfrobust.runtime import allow_concurrent_calls, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Tensor

Arrays = list[np.ndarray]


class Judge:
    """A classifier with the graphs traced for it; only the classifier is pickled.

    Args:
      classifier: from `as_classifier`.
      image_shape: (H, W, C).
      dtype: of the images in the data, 'uint8' or 'float32'.
    """

    def __init__(self, classifier: Classifier, image_shape: tuple[int, ...], dtype: str) -> None:
        self._arguments = classifier, image_shape, dtype
        self.classifier, self.logits = classifier, inference(classifier)
        self._counter, self._counted, self._lock = Counter(), np.zeros(2, int), threading.Lock()
        images = tf.TensorSpec([None, *image_shape], tf.as_dtype(dtype))
        self._spec = (images, tf.TensorSpec([None], tf.int32))
        self._graphs: dict[Hashable, Callable[..., Any]] = {}
        allow_concurrent_calls()

    def __reduce__(self) -> tuple[type[Judge], tuple[Classifier, tuple[int, ...], str]]:
        return Judge, self._arguments

    def clean(self, x: np.ndarray, y: np.ndarray) -> Arrays:
        """Predictions, confidences, whether correct and in the top 5, Brier scores, each [B]."""
        return _arrays(self._graph("clean", self._clean)(x, y))

    def attack(
        self, attack: Attack, ball: ThreatModel, x: np.ndarray, y: np.ndarray, seed: np.ndarray
    ) -> Arrays:
        """One run: predictions, confidences, whether correct and in the top 5 [B], and counts.

        The counts, int [2], are the forward and backward passes, over examples, since the
        previous call returned. The counts of concurrent calls add up to their passes together.
        """
        _, *found = self._run(attack, ball, x, y, seed)
        return [*_arrays(found), self._newly_counted()]

    def craft(
        self, attack: Attack, ball: ThreatModel, x: np.ndarray, y: np.ndarray, seed: np.ndarray
    ) -> Arrays:
        """One run: images float32 [B, H, W, C], and whether each is a success, bool [B]."""
        x_adv, _, _, correct, _ = self._run(attack, ball, x, y, seed)
        # The passes of crafting are not counted.
        self._newly_counted()
        return _arrays([x_adv, ~correct])

    def gradient(self, x: np.ndarray, y: np.ndarray, loss: str) -> np.ndarray:
        """The input gradient of a loss, float32 [B, H, W, C]."""

        def gradient(x: Tensor, y: Tensor) -> Tensor:
            return input_gradient(self.logits, as_pixels(x), y, loss)[0]

        # In a graph: an eager gradient of one image computes weight gradients too, in which
        # oneDNN is known to crash.
        return np.asarray(self._graph(("gradient", loss), gradient)(x, y))

    def _newly_counted(self) -> np.ndarray:
        with self._lock:
            now = np.array(self._counter.total())
            new, self._counted = now - self._counted, now
        return new

    def _run(
        self, attack: Attack, ball: ThreatModel, x: np.ndarray, y: np.ndarray, seed: np.ndarray
    ) -> tuple[Tensor, ...]:
        """Attacked images, predictions, confidences, whether correct and in the top 5, each [B].

        The radius and the attack's own `tensors` are arguments of the graph, and this is one of
        the attack's restarts: attacks that differ only in these share a trace.
        """
        given = attack.tensors(ball) if isinstance(attack, runner.Attack) else {}

        def judged(
            x: Tensor, y: Tensor, seed: Tensor, eps: Tensor, *numbers: Tensor
        ) -> tuple[Tensor, ...]:
            within = dataclasses.replace(ball, eps=eps)
            one = _with(attack, dict(zip(given, numbers, strict=True)))
            x_adv, success, logits = self._attacked(one, within, x, y, seed)
            predictions, confidences, _, in_top5 = judge_logits(logits, y)
            return x_adv, predictions, confidences, ~success, in_top5

        fixed = _with(attack, dict.fromkeys((*given, "restarts")))
        numbers = (np.float32(ball.eps), *given.values())
        more = [tf.TensorSpec([], one.dtype) for one in numbers]
        graph = self._graph(
            (fixed, ball.norm, ball.bounds), judged, tf.TensorSpec([2], tf.int32), *more
        )
        return graph(x, y, seed, *numbers)

    def _attacked(
        self, attack: Attack, ball: ThreatModel, x: Tensor, y: Tensor, seed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adversarial images, whether each is a verified success, and their logits."""
        # The attack is given the folded model, which is faster; successes are verified on the
        # model itself.
        seen = self._counter.wrap(attackable(self.classifier))
        return runner.run(attack, seen, self.logits, as_pixels(x), y, ball, seed)

    def _clean(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        logits = self.logits(as_pixels(x))
        return *judge_logits(logits, y), brier_of(logits, y)

    def _graph(self, key: Hashable, function: Callable[..., Any], *more: Any) -> Callable[..., Any]:
        """The graph of that key; traced from `function` of images, labels and `more`, if new."""
        spec = (*self._spec, *more)
        with self._lock:
            if key not in self._graphs:
                # Attacks use TensorFlow's own loops: AutoGraph would only slow tracing down.
                made = tf.function(function, input_signature=spec, autograph=False)
                self._graphs[key] = told_plainly(self.classifier, made)
        graph = self._graphs[key]
        return lambda *arrays: graph(
            *(tf.constant(one, part.dtype) for one, part in zip(arrays, spec, strict=True))
        )


def _with(attack: Attack, settings: Mapping[str, object]) -> Attack:
    """The attack with the given values of those settings that it has, unchecked."""
    made = copy.copy(attack)
    for name in {item.name for item in dataclasses.fields(attack)} & settings.keys():
        object.__setattr__(made, name, settings[name])
    return made


def _arrays(tensors: Sequence[Tensor]) -> Arrays:
    return [value.numpy() for value in tensors]
