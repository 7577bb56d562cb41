"""Runs attacks on a classifier and verifies their successes."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator

import numpy as np

from tfrobust.attacks.results import AttackResult, Outcome
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError
from tfrobust.evaluation.batches import even_batches
from tfrobust.evaluation.calibration import Calibration
from tfrobust.evaluation.checkpoint import Checkpoint, Task
from tfrobust.evaluation.judge import Arrays, Judge
from tfrobust.models.pairs import check_labels, classifier_for
from tfrobust.progress import Progress
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Model, Tensor
from tfrobust.workers import Threads, Workers


class Evaluator:
    """Runs attacks on one model and counts their successes.

    Every success is verified: the returned image is projected onto the ball, and counts only if
    it is inside the ball and the bounds (to 1e-6) and the model itself misclassifies it, whatever
    function the attack was given.

    Args:
      model: a Keras model or any callable, [0, 1] images float32 [B, H, W, C] ->
        logits [B, K], or any model that `as_classifier` takes.
      data: the images; labels in 0..K-1.
      batch_size: images in a batch.
      seed: of random starts.
      checkpoint: saves the outcomes so far, to resume an evaluation that was killed.
      workers: who runs the batches; threads of this process if None.
    """

    def __init__(
        self,
        model: Model,
        data: ImageSet,
        *,
        batch_size: int = 128,
        seed: int = 42,
        checkpoint: Checkpoint | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.classifier = classifier_for(model, data)
        self._judge = Judge(self.classifier, data.image_shape, str(data.images.dtype))
        self.logits = self._judge.logits
        self._checkpoint, self._workers = checkpoint or Checkpoint(), workers or Threads()
        self.clean = self._run_clean()

    def _run_clean(self) -> Outcome:
        check_labels(self.data.labels, self.classifier.classes)

        every, columns = np.arange(len(self.data)), list[Arrays]()
        correct = np.zeros((2, len(every)), bool)

        def so_far(done: int) -> str:
            return _accuracies(*correct[:, :done])

        for wave in self._waves("clean", every, "clean accuracy", note=so_far):
            for index, column in wave:
                columns.append(column)
                correct[:, index] = column[2:4]
        *outcome, squared = map(np.concatenate, zip(*columns, strict=True))
        found = Outcome(*outcome)
        self.calibration = Calibration.of(found.confidences, found.correct, squared)
        return found

    def gradient_at(self, index: np.ndarray, loss: str) -> np.ndarray:
        """The input gradient of a loss at clean images, float32 [M, H, W, C]."""
        return self._judge.gradient(self.data.images[index], self.data.labels[index], loss)

    def run(
        self,
        name: str,
        attack: Attack,
        threat_model: ThreatModel,
        base: Outcome | None = None,
        robust: np.ndarray | None = None,
    ) -> AttackResult:
        """Attacks every image that is not broken yet, with all restarts of the attack.

        Each restart attacks what the one before did not break. Broken images keep their
        prediction, so `in_top5` is an upper bound: the attack does not aim at the top 5.

        Args:
          name: of the attack.
          attack: the attack.
          threat_model: the ball.
          base: the worst case of the attacks before; the clean outcome if None.
          robust: bool [N], images that are known to be robust and are not attacked.
        """
        base = base or self.clean
        todo = base.correct if robust is None else base.correct & ~robust
        # All that the outcome depends on: the checkpoint may have another run of that name.
        digest = hashlib.sha256(f"{attack} {threat_model!r}".encode() + base.correct.tobytes())
        digest.update(todo.tobytes() if robust is not None else b"")
        task = self._checkpoint.task(f"{name} {digest.hexdigest()[:16]}", base)
        while task.restart < attack.restarts:
            try:
                self._one_restart(task, (attack, threat_model), f"{name} {threat_model}", todo)
            except TFRobustError:
                # An endpoint failed: when resumed, answered queries are not repeated.
                self.save_progress()
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
        self, task: Task, attack: tuple[Attack, ThreatModel], label: str, todo: np.ndarray
    ) -> None:
        if task.active_rows is None:
            task.active_rows = np.flatnonzero(task.outcome.correct & todo)
        label += f" restart {task.restart + 1}" if task.restart else ""

        def so_far(done: int) -> str:
            # Of all images, also of those that are not attacked yet.
            return _accuracies(task.outcome.correct, task.outcome.in_top5)

        start, seed = time.perf_counter(), self.seed + task.restart
        for wave in self._waves(
            "attack", task.active_rows, label, task.position, so_far, attack, seed
        ):
            for index, (*found, counts) in wave:
                for item, new in zip(dataclasses.fields(Outcome), found, strict=True):
                    getattr(task.outcome, item.name)[index] = new
                task.position += len(index)
                task.forward, task.backward = (
                    task.forward + int(counts[0]),
                    task.backward + int(counts[1]),
                )
            task.seconds, start = task.seconds + time.perf_counter() - start, time.perf_counter()
            self._checkpoint.note()
        task.restart, task.position, task.active_rows = task.restart + 1, 0, None

    def craft(self, attack: Attack, threat_model: ThreatModel, index: np.ndarray) -> np.ndarray:
        """Attacked images, float32 [M, H, W, C], inside the ball, successful or not.

        Each restart of the attack is run on what the one before did not break.
        """
        made = self.data.pixels(index)
        todo = np.arange(len(index))
        for restart in range(attack.restarts):
            broken = []
            waves = self._waves(
                "craft",
                todo,
                "crafting",
                shared=(attack, threat_model),
                seed=self.seed + restart,
                rows=index,
            )
            for wave in waves:
                for chunk, (x_adv, success) in wave:
                    made[chunk] = x_adv
                    broken.append(success)
            todo = todo[~np.concatenate(broken)] if broken else todo
        return made

    def broken(
        self, attack: Attack, threat_model: ThreatModel, index: np.ndarray, run: int = 0
    ) -> np.ndarray:
        """Which of the images one run of an attack breaks, bool [M]; its passes are not counted."""
        seed = np.array([self.seed - 1, run], np.int32)
        # Uses the trace of the attack, if it has been run before.
        waves = self._waves("attack", index, "checking", shared=(attack, threat_model), seed=seed)
        found = [~found[2] for wave in waves for _, found in wave]
        return np.concatenate(found) if found else np.zeros(0, bool)

    def batch(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """The images (in the data's own type) and labels at `index`, as tensors."""
        return tf.constant(self.data.images[index]), tf.constant(self.data.labels[index], tf.int32)

    def save_progress(self) -> None:
        """Saves the outcomes so far, for an evaluation that cannot be completed now."""
        self._checkpoint.save()

    def use_own_threads(self) -> None:
        """Runs further batches in threads of this process, instead of the workers given."""
        self._workers = Threads()

    def _waves(
        self,
        method: str,
        index: np.ndarray,
        label: str,
        done: int = 0,
        note: Callable[[int], str] = lambda done: "",
        shared: tuple[Attack, ThreatModel] | tuple[()] = (),
        seed: int | np.ndarray | None = None,
        rows: np.ndarray | None = None,
    ) -> Iterator[list[tuple[np.ndarray, Arrays]]]:
        """Batches of `index`, each with what a method of `Judge` returns for it; a few at a time.

        Args:
          method: of `Judge`.
          index: int [M], positions of images, or in `rows` where that is given.
          label: of the progress line.
          done: how many of `index` to skip; batches do not depend on it, nor on who runs them.
          note: takes the number done; shown beside the progress, after the caller has processed
            what was returned.
          shared: the method's arguments before the images.
          seed: of the method's draws, combined with the first position of each batch; or
            int32 [2], the same for all batches; None for a method without draws.
          rows: int [N], the position of each image in the data.
        """
        progress = Progress(label, len(index), done=done)
        batches = even_batches(index, self.batch_size)
        begin = np.cumsum([0, *map(len, batches)])
        batches = [batch for batch, first in zip(batches, begin[:-1], strict=True) if first >= done]
        pieces = (
            self._piece(batch if rows is None else rows[batch], seed, batch) for batch in batches
        )
        left = iter(batches)
        for found in self._workers.map(self._judge, method, pieces, shared):
            # There are fewer results than batches left: `found` comes first, and ends the zip.
            wave = list(zip(found, left, strict=False))
            yield [(batch, arrays) for arrays, batch in wave]
            done += sum(len(batch) for _, batch in wave)
            progress.update(done, note(done))
        progress.close()

    def _piece(
        self, rows: np.ndarray, seed: int | np.ndarray | None, batch: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """The arguments of one call: images, labels, and the seed of its draws if it has any."""
        found = self.data.images[rows], self.data.labels[rows].astype(np.int32)
        if seed is None:
            return found
        own = seed if isinstance(seed, np.ndarray) else np.array([seed, batch[0]], np.int32)
        return *found, own


def _accuracies(correct: np.ndarray, in_top5: np.ndarray) -> str:
    """Top-1 and top-5 accuracy of bool [N], as the progress line shows them."""
    return f"(top-1 {correct.mean():.3f}, top-5 {in_top5.mean():.3f})"
