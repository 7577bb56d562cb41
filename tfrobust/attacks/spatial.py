"""Accuracy under rotation and translation: the worst of a grid, or of random draws.

Engstrom et al. (2019), "Exploring the landscape of spatial robustness",
https://arxiv.org/abs/1712.02779. A rotated image leaves every lp ball, so this is a separate
measure beside `evaluate`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.attacks.active_rows import all_rows, is_correct, keep, scatter
from tfrobust.cluster import Ray
from tfrobust.cluster.pool import opened_workers
from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError
from tfrobust.io import csv_text, write_json, write_text
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import inference
from tfrobust.models.pairs import open_pair
from tfrobust.models.views import InputView
from tfrobust.runtime import allow_concurrent_calls, tf
from tfrobust.typing import Function, Model, Source, Tensor
from tfrobust.workers import Threads


@dataclass(frozen=True)
class SpatialAccuracy:
    """The outcome for N images under rotation and translation.

    Attributes:
      labels: int32 [N].
      clean: bool [N], whether each image itself is classified correctly.
      robust: bool [N], whether each image is classified correctly in all positions tried.
      broken_at: float32 [N, 3], the first misclassified rotation in degrees (counter-clockwise)
        and shifts in pixels (right, down); 0 if the image itself is misclassified, or no position.
      degrees: the largest rotation either way.
      pixels: the largest shift in any direction.
      tried: positions per image, without the image itself.
      model: the model's name.
    """

    labels: np.ndarray
    clean: np.ndarray
    robust: np.ndarray
    broken_at: np.ndarray
    degrees: float
    pixels: float
    tried: int
    model: str = "model"

    @property
    def clean_accuracy(self) -> float:
        """The share of images that are classified correctly."""
        return float(np.mean(self.clean))

    @property
    def robust_accuracy(self) -> float:
        """The share that is classified correctly in all positions tried."""
        return float(np.mean(self.robust))

    def as_dict(self) -> dict[str, Any]:
        """The JSON entry: settings and shares."""
        return {
            "model": self.model, "degrees": self.degrees, "pixels": self.pixels,
            "tried": self.tried, "num_examples": len(self.labels),
            "clean_accuracy": round(self.clean_accuracy, 6),
            "robust_accuracy": round(self.robust_accuracy, 6),
        }  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.model}: {len(self.labels):,} images, rotated by up to {self.degrees:g} "
            f"degrees, shifted by up to {self.pixels:g} pixels, the worst of {self.tried:,} "
            f"positions\naccuracy {self.clean_accuracy:.3f} clean, {self.robust_accuracy:.3f} "
            "worst-case"
        )

    def save(self, folder: Path | str) -> list[Path]:
        """Writes spatial.json and spatial.csv, which has one row per image.

        Raises:
          TFRobustError: the disk is full or the folder cannot be written.
        """
        path = Path(folder) / "spatial"
        columns = zip(self.labels, self.clean, self.robust, self.broken_at, strict=True)
        rows = (
            [index, label, int(clean), int(robust), *(f"{value:.4g}" for value in at)]
            for index, (label, clean, robust, at) in enumerate(columns)
        )
        head = ["index", "label", "clean", "robust", "degrees", "right", "down"]
        write_json(path.with_suffix(".json"), self.as_dict())
        write_text(path.with_suffix(".csv"), csv_text(head, rows))
        return [path.with_suffix(".json"), path.with_suffix(".csv")]


def spatial_accuracy(
    model: Model | str | Path, data: Source, *, degrees: float = 30.0, pixels: float = 3.0,
    grid: tuple[int, int] = (31, 5), draws: int | None = None, seed: int = 0,
    batch_size: int = 128, view: InputView | None = None, name: str = "model",
    on: str | Ray | None = None,
) -> SpatialAccuracy:  # fmt: skip
    """Accuracy under each image's worst rotation and translation.

    Images are rotated around their centre, with bilinear interpolation, on black. Once
    misclassified, an image is skipped. Engstrom et al. (2019): a grid of 31 rotations and 5
    shifts each way, 775 positions; or the worst of k = 10 draws.

    Args:
      model: any classifier, as `evaluate` takes it.
      data: the images, as `evaluate` takes them.
      degrees: the largest rotation either way, 0 to 180.
      pixels: the largest shift in each direction, 0 or more.
      grid: numbers of rotations and of shifts per axis, evenly spaced; at least 1; 1 means 0 only.
      draws: use this many uniform draws per image instead of the grid.
      seed: of the draws.
      batch_size: images in a batch.
      view: what the model takes for pixels; None finds out, or else [0, 1].
      name: what the result calls the model.
      on: spread the images over a Ray cluster, as in `evaluate`.

    Raises:
      UsageError: a setting is out of range, or a cluster without Ray installed.
      TFRobustError: data and model do not fit.

    Examples:
      >>> found = tr.spatial_accuracy(model, (x, y), degrees=10, pixels=1, grid=(3, 3))
      >>> found.robust_accuracy <= found.clean_accuracy, found.tried
      (True, 27)
    """
    _check(degrees, pixels, grid, draws, batch_size)
    judge, images = open_pair(model, data, view=view)
    places = None if draws else _grid(degrees, pixels, grid)
    reach = (math.radians(degrees), pixels, pixels)
    search = _Search(judge, images.image_shape, places, draws, reach)
    starts = range(0, len(images), batch_size)
    pieces = (_piece(images, slice(first, first + batch_size), seed) for first in starts)
    allow_concurrent_calls()
    with opened_workers(on) as workers:
        waves = (workers or Threads()).map(search, "worst", pieces)
        parts = [found for wave in waves for found in wave]
    clean, robust, broken = (np.concatenate(each) for each in zip(*parts, strict=True))
    broken[:, 0] = np.degrees(broken[:, 0])
    tried = draws or len(_grid(degrees, pixels, grid))
    labels = images.labels.astype(np.int32)
    return SpatialAccuracy(labels, clean, robust, broken, degrees, pixels, tried, name)


def _piece(images: ImageSet, part: slice, seed: int) -> tuple[np.ndarray, ...]:
    """Images, labels and the seed of their draws."""
    own = np.array([seed, part.start], np.int32)
    return images.pixels(part), images.labels[part].astype(np.int32), own


class _Search:
    """Looks for the worst place of each image; pickled, it is the classifier and the places."""

    def __init__(
        self, classifier: Classifier, shape: tuple[int, ...], places: np.ndarray | None,
        draws: int | None, reach: tuple[float, float, float],
    ) -> None:  # fmt: skip
        self._made_of = classifier, shape, places, draws, reach
        self._graph = _searcher(inference(classifier), shape, places, draws, reach)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Search, self._made_of

    def worst(self, x: np.ndarray, y: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
        """Whether clean [B], whether robust [B], and where broken [B, 3]."""
        found = self._graph(tf.constant(x), tf.constant(y), tf.constant(seed))
        return [each.numpy() for each in found]


def moved(x: Tensor, places: Tensor) -> Tensor:
    """Images rotated around their centre and then shifted, bilinear, on black; like x.

    Args:
      x: float32 [B, H, W, C].
      places: float32 [B, 3], the rotation in radians (counter-clockwise), and the shifts in
        pixels to the right and down.
    """
    size = tf.cast(tf.shape(x)[1:3], tf.float32)
    middle_y, middle_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    angle, right, down = tf.unstack(places, axis=1)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # From a position in the result to the position that it is read from.
    far_x, far_y = middle_x + right, middle_y + down
    zero = tf.zeros_like(angle)
    rows = tf.stack([
        cos, -sin, middle_x - cos * far_x + sin * far_y,
        sin, cos, middle_y - sin * far_x - cos * far_y, zero, zero,
    ], axis=1)  # fmt: skip
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=x, transforms=rows, output_shape=tf.shape(x)[1:3], fill_value=0.0,
        interpolation="BILINEAR", fill_mode="CONSTANT",
    )  # fmt: skip
    return tf.ensure_shape(turned, x.shape)


def _grid(degrees: float, pixels: float, grid: tuple[int, int]) -> np.ndarray:
    """All positions of the grid, float32 [P, 3], in radians and pixels."""

    def spread(reach: float, count: int) -> np.ndarray:
        return np.linspace(-reach, reach, count) if count > 1 else np.zeros(1)

    turns, shifts = spread(math.radians(degrees), grid[0]), spread(pixels, grid[1])
    return np.array(list(itertools.product(turns, shifts, shifts)), np.float32)


def _searcher(
    logits: Function, shape: tuple[int, ...], places: np.ndarray | None, draws: int | None,
    reach: tuple[float, float, float],
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """(x, y, seed) -> whether clean [B], whether robust [B], where broken [B, 3]; a graph."""
    specs = [
        tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([2], tf.int32),
    ]  # fmt: skip
    count = draws or len(places if places is not None else ())

    def place(i: Tensor, y: Tensor, seed: Tensor) -> Tensor:
        """Position i of each example, [B, 3]; drawn for the whole batch."""
        if places is not None:
            return tf.repeat(tf.gather(tf.constant(places), [i]), tf.size(y), axis=0)
        seed = tf.random.experimental.stateless_fold_in(seed, i)
        return tf.constant(reach) * tf.random.stateless_uniform([tf.size(y), 3], seed, -1.0, 1.0)

    @functools.partial(tf.function, input_signature=specs, autograph=False)
    def worst(x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def step(i: Tensor, index: Tensor, broken: Tensor) -> tuple[Tensor, ...]:
            here = tf.gather(place(i, y, seed), index)
            right = is_correct(logits(moved(tf.gather(x, index), here)), tf.gather(y, index))
            broken = scatter(broken, *keep(index, ~right, here))
            return i + 1, keep(index, right)[0], broken

        clean = is_correct(logits(x), y)
        (index,) = keep(all_rows(y), clean)
        state = (tf.constant(0), index, tf.zeros([tf.size(y), 3]))
        shapes = (state[0].shape, tf.TensorShape([None]), tf.TensorShape([None, 3]))
        _, index, broken = tf.while_loop(
            lambda i, index, _: (i < count) & (tf.size(index) > 0), step, state, shapes,
            parallel_iterations=1,
        )  # fmt: skip
        robust = scatter(tf.zeros_like(clean), index, tf.ones_like(index, tf.bool))
        return clean, robust, broken

    made: Callable[..., tuple[Tensor, Tensor, Tensor]] = worst
    return made


def _check(
    degrees: float, pixels: float, grid: tuple[int, int], draws: int | None, batch_size: int
) -> None:
    if not 0 <= degrees <= 180:
        raise UsageError(f"degrees: expected 0 to 180, found {degrees!r}.")
    if not 0 <= pixels < math.inf:
        raise UsageError(f"pixels: expected 0 or more, found {pixels!r}.")
    if len(grid) != 2 or min(grid) < 1:
        raise UsageError(f"grid: expected (turns, shifts), 1 or more each, found {grid!r}.")
    for name, value in (("draws", draws), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: expected 1 or more, found {value!r}.")
