"""An adversarial patch: one square that fools the model on any image at any position.

Brown et al. (2017), "Adversarial patch", https://arxiv.org/abs/1712.09665.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.attacks.ascent import input_gradient
from tfrobust.attacks.losses import cross_entropy
from tfrobust.attacks.universal import Fooled, opened, predicted, save_arrays
from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError
from tfrobust.models.inference import attackable, inference
from tfrobust.models.views import InputView
from tfrobust.runtime import tf
from tfrobust.typing import Function, Model, Source, Tensor

# A patch needs about this many steps to converge; few images give few steps per pass.
_STEPS = 300


@dataclass(frozen=True)
class Patch:
    """A square for any image, and its effect at random positions.

    Attributes:
      pixels: float32 [S, S, C] in [0, 1].
      target: the class that it leads to; None leads away from the right class.
      train: its effect on the images that it was trained on.
      test: its effect on held-out images.
      reached: share of the test images of other classes that the model assigns to `target`; None
        without a target or without such images.
      random: the effect of a patch of random values at the same positions of the test images,
        which separates the effect of the optimisation from that of covering the image.
      random_reached: `reached` of the random patch.
    """

    pixels: np.ndarray
    target: int | None
    train: Fooled
    test: Fooled
    reached: float | None
    random: Fooled
    random_reached: float | None

    def apply(self, x: np.ndarray, seed: int = 0) -> np.ndarray:
        """Images float32 [N, H, W, C], each with the patch at a random position by the seed."""
        pair = tf.constant([seed, 0], tf.int32)
        made: np.ndarray = pasted(tf.constant(x), tf.constant(self.pixels), pair).numpy()
        return made

    def as_dict(self) -> dict[str, Any]:
        """The JSON entry: size and target, and the effect on training and held-out images."""
        return {
            "size": len(self.pixels), "target": self.target, "reached": self.reached,
            "made_on": self.train.as_dict(), "measured_on": self.test.as_dict(),
            "random": {**self.random.as_dict(), "reached": self.random_reached},
        }  # fmt: skip

    def __str__(self) -> str:
        size = len(self.pixels)
        goal = "" if self.target is None else f", towards class {self.target}"
        lines = [f"One patch of {size} x {size} pixels for all images, at random positions{goal}",
                 f"trained on {self.train}", f"tested on  {self.test}",
                 f"random one {self.random}"]  # fmt: skip
        if self.reached is not None and self.random_reached is not None:
            lines.append(
                f"{self.reached:.1%} of the images of other classes are assigned to that class, "
                f"{self.random_reached:.1%} with a random patch"
            )
        return "\n".join(lines)

    def save(self, folder: Path | str) -> list[Path]:
        """Writes patch.json and patch.npz, which holds `pixels`.

        Raises:
          TFRobustError: the disk is full or the folder cannot be written.
        """
        return save_arrays(Path(folder) / "patch", self.as_dict(), pixels=self.pixels)


def adversarial_patch(
    model: Model | str | Path, data: Source, size: int, *, target: int | None = None,
    test: Source | None = None, epochs: int | None = None, step_size: float = 0.05,
    batch_size: int = 128, seed: int = 0, view: InputView | None = None,
) -> Patch:  # fmt: skip
    """Makes a square meant to fool the model on every image, at any position.

    Each batch pastes the square at a random position of each image and moves its values by
    `step_size` along the sign of a gradient: of the mean cross-entropy, or of the target's mean
    probability. The square is neither rotated nor scaled.

    Args:
      model: any classifier, as `evaluate` takes it.
      data: the images that it is trained on, as `evaluate` takes them.
      size: its side in pixels, at most that of the images.
      target: the class to lead to; None leads away from each image's own class.
      test: images to measure it on; None holds out half of `data`, at random by the seed.
      epochs: passes over the images, 1 or more; None makes about 300 steps.
      step_size: in pixel values of [0, 1], more than 0.
      batch_size: images in a batch.
      seed: of positions, the order of the images, and the held-out half.
      view: the model's input range; None detects it, falling back to [0, 1].

    Raises:
      UsageError: a setting is out of range, or there are too few images.
      TFRobustError: data and model do not fit.

    Examples:
      >>> found = tr.adversarial_patch(model, (x, y), size=4, epochs=2)
      >>> found.pixels.shape, found.apply(x).shape == x.shape
      ((4, 4, 3), True)
    """
    for name, value in (("size", size), ("epochs", epochs), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: expected 1 or more, found {value!r}.")
    if not step_size > 0:
        raise UsageError(f"step_size: expected more than 0, found {step_size!r}.")
    judge, (images, others), rows, random = opened(model, data, test, seed, view)
    shape = images.image_shape
    if size > min(shape[:2]):
        raise UsageError(f"size: expected at most {min(shape[:2])}, the image's side, got {size}.")
    if target is not None and not 0 <= target < judge.classes:
        raise UsageError(f"target: expected a class 0 to {judge.classes - 1}, found {target!r}.")
    climb = _ascent_step(attackable(judge), shape, size, target, step_size)
    patch, batches = tf.fill([size, size, shape[2]], 0.5), 0
    passes = epochs or math.ceil(_STEPS / math.ceil(len(rows[0]) / batch_size))
    for _ in range(passes):
        order = random.permutation(rows[0])
        for first in range(0, len(order), batch_size):
            part, batches = np.sort(order[first : first + batch_size]), batches + 1
            x, y = tf.constant(images.pixels(part)), tf.constant(images.labels[part], tf.int32)
            patch = climb(x, y, patch, tf.constant([seed, batches], tf.int32))
    look = _predictor(inference(judge), shape, size)
    train, _ = _measured(look, images, rows[0], patch, batch_size, target)
    unseen, reached = _measured(look, others, rows[1], patch, batch_size, target)
    noise = tf.random.stateless_uniform(tf.shape(patch), [seed, -1])
    random_one = _measured(look, others, rows[1], noise, batch_size, target)
    return Patch(patch.numpy(), target, train, unseen, reached, *random_one)


def pasted(x: Tensor, patch: Tensor, seed: Tensor) -> Tensor:
    """Images with the whole patch at a random position in each; like x.

    Args:
      x: float32 [B, H, W, C].
      patch: float32 [S, S, C], S at most H and W.
      seed: int32 [2].
    """
    return _paste(x, patch, _places(x, patch, seed))


def _places(x: Tensor, patch: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """For each row and column of an image, the patch's row or column there, int32 [B, H or W]."""
    size, found = tf.shape(patch)[0], []
    for axis, each in zip((1, 2), tf.unstack(tf.random.experimental.stateless_split(seed, 2)),
                          strict=True):  # fmt: skip
        side = tf.shape(x)[axis]
        first = tf.random.stateless_uniform([tf.shape(x)[0], 1], each, 0, side - size + 1, tf.int32)
        found.append(tf.range(side)[None] - first)
    return found[0], found[1]


def _paste(x: Tensor, patch: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
    size = tf.shape(patch)[0]
    rows, columns = (tf.clip_by_value(each, 0, size - 1) for each in places)
    spread = tf.gather(tf.gather(patch, rows), columns, axis=2, batch_dims=1)
    row, column = (tf.logical_and(each >= 0, each < size) for each in places)
    inside = (row[:, :, None] & column[:, None, :])[..., None]
    return tf.ensure_shape(tf.where(inside, spread, x), x.shape)


def _ascent_step(
    logits: Function, shape: tuple[int, ...], size: int, target: int | None, step_size: float
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """(x, y, patch, seed) -> the patch after one step, as a graph."""

    @partial(tf.function, input_signature=_specs(shape, size), autograph=False)
    def climb(x: Tensor, y: Tensor, patch: Tensor, seed: Tensor) -> Tensor:
        def loss(found: Tensor, labels: Tensor) -> Tensor:
            if target is None:
                return cross_entropy(found, labels)
            return _shared_log(-cross_entropy(found, tf.fill(tf.shape(labels), target)))

        with tf.GradientTape() as tape:
            tape.watch(patch)
            made = pasted(x, patch, seed)
        # By the image first, where non-finite gradients are dropped; then by the patch.
        grad, _ = input_gradient(logits, made, y, loss)
        pulled = tape.gradient(made, patch, output_gradients=grad)
        return tf.clip_by_value(patch + step_size * tf.sign(pulled), 0.0, 1.0)

    made: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = climb
    return made


def _shared_log(log_p: Tensor) -> Tensor:
    """Values [B] whose gradients sum to that of the log of the mean probability.

    The mean of the logs would be dominated by images that no patch can lead to the target.
    """
    # One image with non-finite logits must not affect the others.
    known = tf.where(tf.math.is_finite(log_p), log_p, tf.float32.min)
    return tf.stop_gradient(tf.nn.softmax(known)) * log_p


def _predictor(
    logits: Function, shape: tuple[int, ...], size: int
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(x, patch, seed) -> the predictions without and with it, int32 [B]; a graph."""
    x, _, patch, seed = _specs(shape, size)

    @partial(tf.function, input_signature=[x, patch, seed], autograph=False)
    def look(x: Tensor, patch: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        return predicted(logits(x)), predicted(logits(pasted(x, patch, seed)))

    made: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = look
    return made


def _specs(shape: tuple[int, ...], size: int) -> list[Any]:
    return [
        tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([size, size, shape[2]], tf.float32), tf.TensorSpec([2], tf.int32),
    ]  # fmt: skip


def _measured(
    look: Callable[..., tuple[Tensor, Tensor]], images: ImageSet, rows: np.ndarray,
    patch: Tensor, batch_size: int, target: int | None,
) -> tuple[Fooled, float | None]:  # fmt: skip
    parts = []
    for part in np.array_split(rows, -(-len(rows) // batch_size)):
        # Positions from a seed of their own, not used in training.
        seed = tf.constant([-1, int(part[0])], tf.int32)
        parts.append([each.numpy() for each in look(tf.constant(images.pixels(part)), patch, seed)])
    before, after = (np.concatenate(each) for each in zip(*parts, strict=True))
    y = images.labels[rows]
    shares = (before != after, before == y, after == y)
    others = after[y != target]
    reached = float(np.mean(others == target)) if target is not None and len(others) else None
    return Fooled(len(rows), *(float(np.mean(each)) for each in shares)), reached
