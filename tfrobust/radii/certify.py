"""Randomised smoothing: a radius within which no attack can succeed, with its confidence.

Cohen, Rosenfeld and Kolter (2019), "Certified adversarial robustness via randomized
smoothing", https://arxiv.org/abs/1902.02918.
"""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.cluster import Ray
from tfrobust.cluster.pool import opened_workers
from tfrobust.data.as_pixels import as_pixels
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.io import write_bytes
from tfrobust.models.classifier import Classifier
from tfrobust.models.inference import inference
from tfrobust.models.pairs import open_pair
from tfrobust.models.views import InputView
from tfrobust.progress import Progress
from tfrobust.radii.certificates import ABSTAINED, Certificates
from tfrobust.runtime import allow_concurrent_calls, tf
from tfrobust.typing import Model, Source, Tensor
from tfrobust.workers import Threads, Workers

#: Seconds between two saves of the certificates so far.
_SAVED_EVERY = 20.0
# Seeds of an image's draws come in two kinds, which never coincide.
_SELECTION, _ESTIMATION = 0, 1


def certify(
    model: Model | str | Path,
    data: Source,
    sigma: float,
    *,
    samples: int = 10_000,
    selection: int = 100,
    alpha: float = 0.001,
    batch_size: int = 500,
    seed: int = 42,
    name: str = "model",
    view: InputView | None = None,
    class_names: Sequence[str] | None = None,
    resume_from: Path | str | None = None,
    on: str | Ray | None = None,
) -> Certificates:
    """Certifies the classifier that returns the class `model` predicts most often under noise.

    Each image is evaluated on `selection` draws of Gaussian noise, which select the class, and on
    `samples` others, which bound the probability of that class from below (exactly, by Clopper
    and Pearson, at confidence 1 - alpha). The radius is sigma times the normal quantile of that
    bound; if the bound is at most a half, it abstains. The proof holds for any model, however it
    was trained, though few models withstand noise that they were not trained with
    (`--method noise`).

    Args:
      model: any classifier, as `evaluate` takes it.
      data: the images, as `evaluate` takes them.
      sigma: standard deviation of the noise, in pixels of [0, 1], more than 0. Noisy pixels are
        not clipped: the proof assumes unclipped noise.
      samples: noisy images per estimate; the radius of an image that is never misclassified
        grows with it.
      selection: noisy images that select the class.
      alpha: the probability, for each image, that the certificate is wrong; in (0, 0.5).
      batch_size: noisy images in a batch.
      seed: of the noise; the draws of image i do not depend on the other images.
      name: the model's name in the result.
      view: the model's input range; None detects it, falling back to [0, 1].
      class_names: the classes' names, by label.
      resume_from: a file for the certificates so far; if it is for the same model, images and
        settings, work resumes from it. It is removed at the end.
      on: distribute the images over a Ray cluster, as in `evaluate`.

    Raises:
      UsageError: a setting is out of range, or a cluster is given without Ray installed.
      TFRobustError: data and model do not match, or the disk is full.

    Examples:
      >>> found = tr.certify(model, (x[:4], y[:4]), sigma=0.1, samples=200)
      >>> bool(found.certified_accuracy(0.0) >= found.certified_accuracy(0.1))
      True
    """
    _check(sigma, samples, selection, alpha, batch_size)
    start = time.perf_counter()
    judge, images = open_pair(model, data, view=view, class_names=class_names)
    counts = Counts(judge, images.image_shape, str(images.images.dtype), sigma, batch_size)
    settings = f"{sigma!r} {samples} {selection} {alpha!r} {seed} {batch_size}"
    progress = _Saved(resume_from, images, settings, counts)
    allow_concurrent_calls()
    with opened_workers(on) as workers:
        shared = (sigma, samples, selection, alpha, seed)
        _certify_all(progress, counts, shared, images, workers or Threads())
    return Certificates(
        name, images.labels.astype(np.int32), progress.predictions, progress.radii, sigma,
        samples, selection, alpha, judge.classes, time.perf_counter() - start, judge.notes,
    )  # fmt: skip


def lower_bound(successes: int, total: int, alpha: float) -> float:
    """The exact one-sided lower confidence bound of a proportion, at confidence 1 - alpha.

    Clopper and Pearson (1934).

    Args:
      successes: 0 to `total`.
      total: 1 or more.
      alpha: in (0, 1).
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, successes, total - successes + 1)) if successes else 0.0


def radius_of(bound: float, sigma: float) -> float:
    """The certified L2 radius for a class with probability at least `bound`; 0 if none."""
    from scipy.stats import norm

    return sigma * float(norm.ppf(bound)) if bound > 0.5 else 0.0


def _certify_all(
    saved: _Saved, counts: Counts, settings: tuple[Any, ...], images: ImageSet, workers: Workers
) -> None:
    todo = np.flatnonzero(saved.predictions == _UNDONE)
    progress = Progress("certifying", len(images), done=len(images) - len(todo))
    pieces = ((int(index), images.images[index]) for index in todo)
    for some in workers.map(counts, "certify", pieces, settings):
        for index, prediction, radius in some:
            saved.predictions[index], saved.radii[index] = prediction, radius
        saved.note()
        done = saved.predictions != _UNDONE
        right = float(np.mean(saved.predictions[done] == images.labels[done]))
        progress.update(int(done.sum()), f"(certified {right:.3f})")
    progress.close()
    saved.close()


_UNDONE = -2


class _Saved:
    """The certificates so far, in memory and, if a file is given, on disk."""

    def __init__(
        self, path: Path | str | None, images: ImageSet, settings: str, counts: Any
    ) -> None:
        self.path = Path(path) if path is not None else None
        self.predictions = np.full(len(images), _UNDONE, np.int32)
        self.radii = np.zeros(len(images))
        self._when = time.monotonic()
        self._key = _key(images, settings, counts) if self.path else ""
        if self.path and self.path.is_file():
            self._read(self.path)

    def note(self) -> None:
        """Saves, if the last save is long enough ago."""
        if self.path and time.monotonic() - self._when >= _SAVED_EVERY:
            content = io.BytesIO()
            np.savez(content, key=np.array(self._key), predictions=self.predictions,
                     radii=self.radii)  # fmt: skip
            write_bytes(self.path, content.getvalue())
            self._when = time.monotonic()

    def close(self) -> None:
        """Removes the file: all images are certified."""
        if self.path:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as content:
                if str(content["key"]) != self._key:
                    return
                self.predictions, self.radii = content["predictions"], content["radii"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TFRobustError(
                f"{path} is not a certification's file ({type(error).__name__}): "
                "delete it, or name another file."
            ) from error


def _key(images: ImageSet, settings: str, counts: Any) -> str:
    """What a resumed certification must match: settings, images, and the model's own counts."""
    digest = hashlib.sha256(settings.encode())
    digest.update(images.labels.tobytes())
    for first in range(0, len(images), 256):
        digest.update(images.images[first : first + 256].tobytes())
    # The same model gives the same counts for the same draws.
    digest.update(counts(images.images[0], (0, 0), 64).tobytes())
    return digest.hexdigest()


class Counts:
    """How often a classifier predicts each class on noisy images; pickled by its arguments.

    Args:
      classifier: from `as_classifier`.
      shape: (H, W, C) of the images.
      dtype: of the stored images, 'uint8' or 'float32'.
      sigma: standard deviation of the noise, in pixels of [0, 1].
      size: noisy images in a batch.
    """

    def __init__(
        self, classifier: Classifier, shape: tuple[int, ...], dtype: str, sigma: float, size: int
    ) -> None:
        self._made_of = classifier, shape, dtype, sigma, size
        self._count = _counter(inference(classifier), shape, dtype, classifier.classes, sigma, size)

    def __reduce__(self) -> tuple[Any, ...]:
        return Counts, self._made_of

    def __call__(self, image: np.ndarray, seed: tuple[int, int], draws: int) -> np.ndarray:
        """int [K], for this many draws around an image [H, W, C]."""
        found = self._count(
            tf.constant(image), tf.constant(seed, tf.int32), tf.constant(draws, tf.int32)
        )
        return np.asarray(found)

    def certify(
        self, sigma: float, samples: int, selection: int, alpha: float, seed: int, index: int,
        image: np.ndarray,
    ) -> tuple[int, int, float]:  # fmt: skip
        """The image's index, its class or `ABSTAINED`, and its radius."""
        best = int(np.argmax(self(image, (seed, 2 * index + _SELECTION), selection)))
        found = self(image, (seed, 2 * index + _ESTIMATION), samples)
        radius = radius_of(lower_bound(int(found[best]), samples, alpha), sigma)
        return index, best if radius > 0 else ABSTAINED, radius


def _counter(
    logits: Callable[[Tensor], Tensor], shape: tuple[int, ...], dtype: str, classes: int,
    sigma: float, size: int,
) -> Callable[..., Tensor]:  # fmt: skip
    """(image, seed int32 [2], draws) -> how often each class is predicted, int [K]."""
    spec = (tf.TensorSpec(shape, tf.as_dtype(dtype)), tf.TensorSpec([2], tf.int32),
            tf.TensorSpec([], tf.int32))  # fmt: skip

    @tf.function(input_signature=spec, autograph=False)
    def count(x: Tensor, seed: Tensor, draws: Tensor) -> Tensor:
        image = as_pixels(x)[None]

        def some(done: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            many = tf.minimum(size, draws - done)
            own = tf.random.experimental.stateless_fold_in(seed, done)
            noise = tf.random.stateless_normal(tf.concat([[many], shape], axis=0), own)
            found = logits(tf.ensure_shape(image + sigma * noise, [None, *shape]))
            named = tf.argmax(found, axis=1, output_type=tf.int32)
            # Non-finite logits count for no class.
            finite = tf.reduce_all(tf.math.is_finite(found), axis=1)
            named = tf.where(finite, named, classes)
            return done + many, total + tf.math.bincount(
                named, minlength=classes + 1, maxlength=classes + 1
            )

        state = (tf.constant(0), tf.zeros(classes + 1, tf.int32))
        more = lambda done, _: done < draws  # noqa: E731 (a condition)
        return tf.while_loop(more, some, state, parallel_iterations=1)[1][:classes]

    made: Callable[..., Tensor] = count
    return made


def _check(sigma: float, samples: int, selection: int, alpha: float, batch_size: int) -> None:
    if not 0 < sigma < float("inf"):
        raise UsageError(f"sigma: expected more than 0, found {sigma!r}.")
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha: expected a number between 0 and 0.5, found {alpha!r}.")
    for name, value in (("samples", samples), ("selection", selection), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name}: expected 1 or more, found {value!r}.")
