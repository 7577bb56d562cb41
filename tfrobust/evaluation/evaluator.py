"""Attacks a classifier and judges what comes back: the caller of every attack."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tfrobust.attacks.gradient import input_gradient
from tfrobust.attacks.runner import run
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError
from tfrobust.evaluation.batches import as_pixels, even_batches, judge_logits
from tfrobust.evaluation.calibration import Calibration, brier_of, expected_calibration_error
from tfrobust.evaluation.checkpoint import Checkpoint, Task
from tfrobust.evaluation.report import AttackResult, Outcome
from tfrobust.evaluation.sharing import Arrays, Share
from tfrobust.models.classifier import as_classifier
from tfrobust.models.counter import Counter
from tfrobust.models.inference import attackable, inference
from tfrobust.models.outside import told_plainly
from tfrobust.models.pairs import check_labels
from tfrobust.progress import Progress
from tfrobust.runtime import allow_concurrent_calls, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Model, Tensor


class Evaluator:
    """Runs attacks on one model and judges them.

    Every success is verified here: the returned image is projected onto the ball, and
    counts only if it is inside the ball and the bounds (to 1e-6) and misclassified by
    the model itself, whatever the attack was shown.

    Args:
      model: a Keras model or any callable, [0, 1] images float32 [B, H, W, C] ->
        logits [B, K], or what `as_classifier` makes logits of.
      data: the images; labels in 0..K-1.
      batch_size: images in a batch.
      seed: of random starts.
      checkpoint: keeps the outcomes so far, for an evaluation that is killed.
      share: this process's part of the work, where several evaluate together, each of which
        ends with all of the outcomes; and the devices that this one spreads it over.
    """

    def __init__(
        self,
        model: Model,
        data: ImageSet,
        *,
        batch_size: int = 128,
        seed: int = 42,
        checkpoint: Checkpoint | None = None,
        share: Share | None = None,
    ) -> None:
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.classifier = as_classifier(model, data.pixels(slice(0, 64)))
        self.logits = inference(self.classifier)
        self._model, self._counter = self.classifier, Counter()
        self._checkpoint, self._share = checkpoint or Checkpoint(), share or Share()
        images = tf.TensorSpec([None, *data.image_shape], tf.as_dtype(data.images.dtype))
        self._spec = (images, tf.TensorSpec([None], tf.int32))
        self._judges: dict[Any, Callable[..., Any]] = {}
        # Between small operations cores stand idle: on two of them two batches at once take
        # two thirds to all of the time of one after the other. A GPU is busy with one.
        alone = 1 if tf.config.list_logical_devices("GPU") else 2
        self._at_once = len(self._share.devices) or alone
        allow_concurrent_calls()
        self._judge_clean = self._traced(self._clean_batch, self._spec)
        self.clean = self._run_clean()

    def _run_clean(self) -> Outcome:
        check_labels(self.data.labels, self.classifier.classes)

        def clean(index: np.ndarray) -> list[np.ndarray]:
            return [value.numpy() for value in self._judge_clean(*self.batch(index))]

        every, columns = np.arange(len(self.data)), list[Arrays]()
        right = np.zeros((2, len(every)), bool)

        def so_far(done: int) -> str:
            return _accuracies(*right[:, :done])

        for wave in self._waves(clean, every, "clean accuracy", note=so_far):
            for index, column in wave:
                columns.append(column)
                right[:, index] = column[2:4]
        *outcome, squared = map(np.concatenate, zip(*columns, strict=True))
        found = Outcome(*outcome)
        error = expected_calibration_error(found.confidences, found.correct)
        self.calibration = Calibration(error, float(squared.mean()))
        return found

    def gradient_at(self, index: np.ndarray, loss: str) -> np.ndarray:
        """The input gradient of a loss at clean images, float32 [M, H, W, C]."""
        key = ("gradient", loss)
        if key not in self._judges:

            def gradient(x: Tensor, y: Tensor) -> Tensor:
                return input_gradient(self.logits, as_pixels(x), y, loss)[0]

            # In a graph: run eagerly, a gradient of one image computes weight gradients as well,
            # in which oneDNN is known to crash.
            self._judges[key] = self._traced(gradient, self._spec)
        return np.asarray(self._judges[key](*self.batch(index)))

    def run(
        self, name: str, attack: Attack, threat_model: ThreatModel, base: Outcome | None = None,
        robust: np.ndarray | None = None,
    ) -> AttackResult:  # fmt: skip
        """Attacks every image that still stands, restart after restart.

        Each restart works on what the one before left standing. Images that fell
        before keep their prediction, so `in_top5` is an upper bound: the attack does
        not aim at the top 5.

        Args:
          name: of the attack.
          attack: the attack.
          threat_model: the ball.
          base: the worst case of the attacks before; the clean outcome if None.
          robust: bool [N], images that are known to stand and are not attacked.
        """
        base = base or self.clean
        todo = base.correct if robust is None else base.correct & ~robust
        # All that the outcome depends on: the checkpoint may hold another run of that name.
        digest = hashlib.sha256(f"{attack} {threat_model!r}".encode() + base.correct.tobytes())
        digest.update(todo.tobytes() if robust is not None else b"")
        task = self._checkpoint.task(f"{name} {digest.hexdigest()[:16]}", base)
        judge = self._judge(attack, threat_model)
        eps = tf.constant(threat_model.eps, tf.float32)
        while task.restart < attack.restarts:
            try:
                self._one_restart(task, judge, eps, f"{name} {threat_model}", todo)
            except TFRobustError:
                # An address that fails: what it was asked for is not asked again.
                self._checkpoint.save()
                raise
        return AttackResult(
            name=name,
            threat_model=threat_model,
            parameters=dataclasses.asdict(attack),
            outcome=task.outcome,
            attacked=int(todo.sum()),
            spared=int((base.correct & ~todo).sum()),
            gradient_evaluations=task.backward,
            forward_evaluations=task.forward,
            seconds=task.seconds,
        )

    def _one_restart(
        self, task: Task, judge: Any, eps: Tensor, label: str, todo: np.ndarray
    ) -> None:
        if task.standing is None:
            task.standing = np.flatnonzero(task.outcome.correct & todo)
        label += f" restart {task.restart + 1}" if task.restart else ""

        def attacked(index: np.ndarray) -> list[np.ndarray]:
            seed = tf.constant([self.seed + task.restart, int(index[0])], tf.int32)
            return [value.numpy() for value in judge(*self.batch(index), seed, eps)]

        def standing(done: int) -> str:
            # Of all images, also those that are not attacked yet.
            return _accuracies(task.outcome.correct, task.outcome.in_top5)

        start = time.perf_counter()
        self._counter.take()
        for wave in self._waves(attacked, task.standing, label, task.position, standing):
            for index, found in wave:
                for item, new in zip(dataclasses.fields(Outcome), found, strict=True):
                    getattr(task.outcome, item.name)[index] = new
                task.position += len(index)
            counts = np.array(self._counter.take())
            parts = self._share.gather([counts])
            forward, backward = np.sum([part[0] for part in parts], axis=0)
            task.forward, task.backward = task.forward + int(forward), task.backward + int(backward)
            task.seconds, start = task.seconds + time.perf_counter() - start, time.perf_counter()
            self._checkpoint.note()
        task.restart, task.position, task.standing = task.restart + 1, 0, None

    def craft(self, attack: Attack, threat_model: ThreatModel, index: np.ndarray) -> np.ndarray:
        """Attacked images, float32 [M, H, W, 3], inside the ball, successful or not.

        An attack with restarts is repeated on what still stands.
        """
        made = self.data.pixels(index)
        todo = np.arange(len(index))
        for restart in range(attack.restarts):
            fell = []

            def crafted(chunk: np.ndarray, restart: int = restart) -> list[np.ndarray]:
                seed = tf.constant([self.seed + restart, int(chunk[0])], tf.int32)
                found = self._crafter(attack, threat_model)(*self.batch(index[chunk]), seed)
                return [value.numpy() for value in found]

            for wave in self._waves(crafted, todo, "crafting"):
                for chunk, (x_adv, success, _) in wave:
                    made[chunk] = x_adv
                    fell.append(success)
            todo = todo[~np.concatenate(fell)] if fell else todo
        return made

    def broken(
        self, attack: Attack, threat_model: ThreatModel, index: np.ndarray, run: int = 0
    ) -> np.ndarray:
        """Which of the images one run of an attack breaks, bool [M]; nothing is counted."""
        seed = tf.constant([self.seed - 1, run], tf.int32)
        eps = tf.constant(threat_model.eps, tf.float32)
        # The judge's trace, if the attack has been run, serves here too.
        judge = self._judge(attack, threat_model)

        def fell(chunk: np.ndarray) -> list[np.ndarray]:
            return [~judge(*self.batch(chunk), seed, eps)[2].numpy()]

        waves = self._waves(fell, index, "checking")
        found = [broken for wave in waves for _, (broken,) in wave]
        return np.concatenate(found) if found else np.zeros(0, bool)

    def _crafter(self, attack: Attack, threat_model: ThreatModel) -> Callable[..., Any]:
        key = ("craft", attack, threat_model)
        if key not in self._judges:

            def crafted(x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, ...]:
                return self._attacked(attack, threat_model, x, y, seed)

            spec = (*self._spec, tf.TensorSpec([2], tf.int32))
            self._judges[key] = self._traced(crafted, spec)
        return self._judges[key]

    def _judge(self, attack: Attack, threat_model: ThreatModel) -> Callable[..., Any]:
        """One compiled function per attack and ball; eps is an argument, so radii share it."""
        key = (attack, threat_model.norm, threat_model.bounds)
        if key not in self._judges:

            def judge(x: Tensor, y: Tensor, seed: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
                ball = dataclasses.replace(threat_model, eps=eps)
                _, success, logits = self._attacked(attack, ball, x, y, seed)
                predictions, confidences, _, in_top5 = judge_logits(logits, y)
                return predictions, confidences, ~success, in_top5

            seed_and_eps = (tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.float32))
            self._judges[key] = self._traced(judge, (*self._spec, *seed_and_eps))
        return self._judges[key]

    def _attacked(
        self, attack: Attack, threat_model: ThreatModel, x: Tensor, y: Tensor, seed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attacked images, whether each is a verified success, and their logits."""
        clean = as_pixels(x)
        # The attack sees the folded model, which is faster; the model itself is the judge.
        seen = self._counter.wrap(attackable(self._model))
        return run(attack, seen, self.logits, clean, y, threat_model, seed)

    def _clean_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        logits = self.logits(as_pixels(x))
        return *judge_logits(logits, y), brier_of(logits, y)

    def _traced(
        self, function: Callable[..., Any], signature: tuple[Any, ...]
    ) -> Callable[..., Any]:
        # Attacks are written in TensorFlow's own loops: AutoGraph would only make tracing slower.
        made = tf.function(function, input_signature=signature, autograph=False)
        return told_plainly(self.classifier, made)

    def batch(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """The images (as the data holds them) and labels at `index`, as tensors."""
        return tf.constant(self.data.images[index]), tf.constant(self.data.labels[index], tf.int32)

    def leave_others(self) -> None:
        """Goes on alone, without the processes that evaluated together."""
        self._share = Share(self._share.devices)

    def _waves(
        self, work: Callable[[np.ndarray], Arrays], index: np.ndarray, label: str, done: int = 0,
        note: Callable[[int], str] = lambda done: "",
    ) -> Iterator[list[tuple[np.ndarray, Arrays]]]:  # fmt: skip
        """What `work` returns for each batch of `index`, with it; a few batches at once.

        The first `done` of `index` are left out. What is in a batch does not depend on them,
        nor on how many processes share the work. `note`, of how many are done, is shown beside
        the progress, once the caller has taken in what was returned.
        """
        progress = Progress(label, len(index), done=done)
        batches = even_batches(index, self.batch_size)
        begin = np.cumsum([0, *map(len, batches)])
        batches = [batch for batch, first in zip(batches, begin[:-1], strict=True) if first >= done]
        at_once = self._at_once * self._share.worker.count
        with ThreadPoolExecutor(self._at_once) as pool:
            for first in range(0, len(batches), at_once):
                wave = batches[first : first + at_once]
                yield list(zip(wave, self._share.map(pool, work, wave), strict=True))
                done += sum(map(len, wave))
                progress.update(done, note(done))
        progress.close()


def _accuracies(correct: np.ndarray, in_top5: np.ndarray) -> str:
    """Of bool [N] each, as progress shows them."""
    return f"(top-1 {correct.mean():.3f}, top-5 {in_top5.mean():.3f})"
