"""One perturbation for all images, and the share of images that it fools, seen and unseen.

Moosavi-Dezfooli et al. (2017), https://arxiv.org/abs/1610.08401, optimised by gradient ascent
over batches as by Shafahi et al. (2020), https://arxiv.org/abs/1811.11304.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.attacks.active_rows import is_finite
from tfrobust.attacks.ascent import input_gradient
from tfrobust.attacks.losses import cross_entropy
from tfrobust.data.sources import as_images
from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError
from tfrobust.io import write_bytes, write_json
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import attackable, inference
from tfrobust.models.pairs import check_labels, open_pair
from tfrobust.models.views import InputView
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Function, Model, Source, Tensor

#: An image whose loss is above this is fooled already and contributes no gradient (Shafahi et al.).
_ENOUGH = 9.0


@dataclass(frozen=True)
class Fooled:
    """The effect of one perturbation on a set of N images.

    Attributes:
      images: N.
      fooling: the share of images whose predicted class it changes.
      clean_accuracy: without it.
      accuracy: with it.
    """

    images: int
    fooling: float
    clean_accuracy: float
    accuracy: float

    def as_dict(self) -> dict[str, float]:
        """The JSON entry."""
        return {key: round(value, 6) for key, value in dataclasses.asdict(self).items()}

    def __str__(self) -> str:
        return (
            f"{self.images:6,} images: accuracy {self.clean_accuracy:.3f} without, "
            f"{self.accuracy:.3f} with it; {self.fooling:.1%} change their class"
        )


@dataclass(frozen=True)
class UniversalPerturbation:
    """One perturbation for all images, and its effect.

    Attributes:
      delta: float32 [H, W, C], in the ball; perturbed images are clipped to the bounds.
      ball: the threat model.
      train: its effect on the images that it was trained on.
      test: its effect on held-out images.
    """

    delta: np.ndarray
    ball: ThreatModel
    train: Fooled
    test: Fooled

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Images float32 [N, H, W, C] with the perturbation, inside the bounds."""
        moved: np.ndarray = np.clip(x + self.delta, *self.ball.bounds)
        return moved

    def as_dict(self) -> dict[str, Any]:
        """The JSON entry: the ball, and the effect on training and held-out images."""
        return {
            "norm": self.ball.norm, "eps": self.ball.eps,
            "made_on": self.train.as_dict(), "measured_on": self.test.as_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        return (
            f"One perturbation for all images, {self.ball}\n"
            f"trained on {self.train}\ntested on  {self.test}"
        )

    def save(self, folder: Path | str) -> list[Path]:
        """Writes universal.json and universal.npz, which holds `delta`.

        Raises:
          TFRobustError: the disk is full or the folder cannot be written.
        """
        return save_arrays(Path(folder) / "universal", self.as_dict(), delta=self.delta)


def save_arrays(path: Path, values: dict[str, Any], **arrays: np.ndarray) -> list[Path]:
    """Writes PATH.json with the values and PATH.npz with the arrays.

    Raises:
      TFRobustError: the disk is full or the folder cannot be written.
    """
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_json(path.with_suffix(".json"), values)
    write_bytes(path.with_suffix(".npz"), content.getvalue())
    return [path.with_suffix(".json"), path.with_suffix(".npz")]


def universal(
    model: Model | str | Path, data: Source, ball: ThreatModel, *, test: Source | None = None,
    epochs: int = 10, step_size: float | None = None, batch_size: int = 128, seed: int = 0,
    view: InputView | None = None,
) -> UniversalPerturbation:  # fmt: skip
    """Makes one perturbation meant to fool the model on every image.

    Each batch moves it by one steepest step of the ball along the mean gradient of the
    cross-entropy; an image with a loss above 9 no longer counts.

    Args:
      model: any classifier, as `evaluate` takes it.
      data: the images that it is trained on, as `evaluate` takes them.
      ball: its norm, radius and bounds; any norm but 'l0'.
      test: images to measure it on; None holds out half of `data`, at random by the seed.
      epochs: passes over the images, 1 or more.
      step_size: for one batch, in the units of eps; None is eps / 10.
      batch_size: images in a batch.
      seed: of the order of the images, and of the held-out half.
      view: the model's input range; None detects it, falling back to [0, 1].

    Raises:
      UsageError: a setting is out of range, or there are too few images to hold half out.
      TFRobustError: data and model do not match.

    Examples:
      >>> found = tr.universal(model, (x, y), tr.Linf(0.1), epochs=2)
      >>> found.delta.shape == x.shape[1:], bool(np.abs(found.delta).max() <= 0.1 + 1e-6)
      (True, True)
      >>> found.train.images, found.test.images
      (32, 32)
    """
    _check(ball, epochs, step_size, batch_size)
    judge, (images, others), rows, random = opened(model, data, test, seed, view)
    shape = images.image_shape
    climb = _ascent_step(attackable(judge), shape, ball, step_size)
    delta = tf.zeros(shape)
    for _ in range(epochs):
        order = random.permutation(rows[0])
        for first in range(0, len(order), batch_size):
            part = np.sort(order[first : first + batch_size])
            x, y = tf.constant(images.pixels(part)), tf.constant(images.labels[part], tf.int32)
            delta = climb(x, y, delta)
    look = _predictor(inference(judge), shape, ball)
    train, unseen = (
        _fooled(look, each, which, delta, batch_size)
        for each, which in zip((images, others), rows, strict=True)
    )
    return UniversalPerturbation(delta.numpy(), ball, train, unseen)


def opened(
    model: Model | str | Path, data: Source, test: Source | None, seed: int, view: InputView | None
) -> tuple[
    Classifier, tuple[ImageSet, ImageSet], tuple[np.ndarray, np.ndarray], np.random.Generator
]:
    """The model; training and test images; their rows; the random generator.

    Raises:
      UsageError: there are too few images.
      TFRobustError: data and model do not match.
    """
    judge, images = open_pair(model, data, view=view)
    random = np.random.default_rng(seed)
    images, others, rows = _split(images, test, random)
    check_labels(others.labels, judge.classes)
    return judge, (images, others), rows, random


def _split(
    images: ImageSet, test: Any, random: np.random.Generator
) -> tuple[ImageSet, ImageSet, tuple[np.ndarray, np.ndarray]]:
    """The training and the test images, each with the rows that are used."""
    if test is not None:
        others = as_images(test, channels=images.image_shape[2])
        if others.image_shape != images.image_shape:
            raise UsageError(
                f"test: expected images {list(images.image_shape)} as in data, found "
                f"{list(others.image_shape)}."
            )
        return images, others, (np.arange(len(images)), np.arange(len(others)))
    if len(images) < 2:
        raise UsageError("data: expected at least 2 images to hold half out, or pass test=.")
    order = random.permutation(len(images))
    half = (len(images) + 1) // 2
    return images, images, (np.sort(order[:half]), np.sort(order[half:]))


def _ascent_step(
    logits: Function, shape: tuple[int, ...], ball: ThreatModel, step_size: float | None
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(x, y, delta) -> delta after one step, as a graph."""
    size = ball.eps / 10 if step_size is None else step_size
    # Only the size of the perturbation is limited; the bounds apply to the images with it.
    free = ThreatModel(ball.norm, ball.eps, (-np.inf, np.inf))
    specs = [*_batch(shape), tf.TensorSpec(shape, tf.float32)]

    def clipped(found: Tensor, y: Tensor) -> Tensor:
        return tf.minimum(cross_entropy(found, y), _ENOUGH)

    @partial(tf.function, input_signature=specs, autograph=False)
    def climb(x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        here = x + delta
        low, high = ball.bounds
        # Where a pixel is at a bound, a step there changes nothing: it does not count.
        grad, _ = input_gradient(logits, tf.clip_by_value(here, low, high), y, clipped)
        grad = grad * tf.cast((here >= low) & (here <= high), tf.float32)
        step = free.steepest_step(tf.reduce_mean(grad, axis=0, keepdims=True), size)
        return free.project(delta[None] + step, tf.zeros_like(delta)[None])[0]

    made: Callable[[Tensor, Tensor, Tensor], Tensor] = climb
    return made


def _predictor(
    logits: Function, shape: tuple[int, ...], ball: ThreatModel
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(x, delta) -> the predictions without and with it, int32 [B]; a graph."""
    specs = [_batch(shape)[0], tf.TensorSpec(shape, tf.float32)]

    @partial(tf.function, input_signature=specs, autograph=False)
    def look(x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        both = (logits(x), logits(tf.clip_by_value(x + delta, *ball.bounds)))
        return predicted(both[0]), predicted(both[1])

    made: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = look
    return made


def predicted(logits: Tensor) -> Tensor:
    """The class of each example, int32 [B]; -1 where logits are not finite."""
    return tf.where(is_finite(logits), tf.argmax(logits, axis=1, output_type=tf.int32), -1)


def _batch(shape: tuple[int, ...]) -> list[Any]:
    return [tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None], tf.int32)]


def _fooled(
    look: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], images: ImageSet, rows: np.ndarray,
    delta: Tensor, batch_size: int,
) -> Fooled:  # fmt: skip
    parts = [
        [each.numpy() for each in look(tf.constant(images.pixels(part)), delta)]
        for part in np.array_split(rows, -(-len(rows) // batch_size))
    ]
    before, after = (np.concatenate(each) for each in zip(*parts, strict=True))
    y = images.labels[rows]
    shares = (before != after, before == y, after == y)
    return Fooled(len(rows), *(float(np.mean(each)) for each in shares))


def _check(ball: ThreatModel, epochs: int, step_size: float | None, batch_size: int) -> None:
    if ball.norm == "l0":
        raise UsageError("ball: expected the norm linf, l2 or l1, found l0.")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name}: expected 1 or more, found {value!r}.")
    if step_size is not None and not step_size > 0:
        raise UsageError(f"step_size: expected more than 0, found {step_size!r}.")
