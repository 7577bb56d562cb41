"""The job that classifies single images."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfrobust.data.folder import is_clutter
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.io import csv_text, read_json

if TYPE_CHECKING:
    from tfrobust.models.classifier import Classifier
    from tfrobust.models.views import InputView
    from tfrobust.typing import Model


# Images that are decoded and shown to the model at once.
BATCH = 64

Size = tuple[int, int]


class Prediction(NamedTuple):
    """The most probable classes of one image, the first first."""

    file: str
    classes: list[int]
    probabilities: list[float]


@dataclass(frozen=True)
class PredictResult:
    """What a model takes images for.

    Attributes:
      predictions: of the sound images, in the order of the files.
      class_names: by label; numbers if names are unknown.
      notes: what was found out about the model, a sentence each.
      skipped: skipped broken images, 'file: reason'.
    """

    predictions: tuple[Prediction, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def as_text(self) -> str:
        """The table for people: a line per image, the most probable class first."""
        return _as_text(self.predictions, self.class_names)

    def as_csv(self) -> str:
        """The table as CSV: number, word and probability of each class."""
        return _as_csv(self.predictions, self.class_names)


def predict(
    path: Path | str,
    images: Sequence[Path | str],
    *,
    model: Model | None = None,
    top: int = 5,
    skip_broken: bool = False,
    view: InputView | None = None,
) -> PredictResult:
    """What a model takes images for.

    Args:
      path: run folder, SavedModel folder, or .keras or .h5 file; classes' names come from it.
      images: files of any size and mode, or folders of such files, however deep. They are
        resized to the model's H and W; a model that takes any size sees them as they are.
      model: what `load_any` has read from the path; None reads it.
      top: how many of the most probable classes to name, K at most.
      skip_broken: skip broken images instead of failing on the first.
      view: what the model takes for pixels; None finds out, or else [0, 1].

    Raises:
      UsageError: an image is not there, or `top` is none.
      TFRobustError: an image is broken, or all are; or the model does not take them, or does
        not return finite logits.
    """
    from tfrobust.models.opening import load_any
    from tfrobust.runtime import import_quietly, setup

    check_top(top)
    files = files_of(images)
    import_quietly()
    model = load_any(Path(path)) if model is None else model
    setup()
    skipped: list[str] | None = [] if skip_broken else None
    notes: list[str] = []
    found, classes = _predictions(model, files, top, skipped, view, notes)
    words = _class_words(Path(path), classes)
    return PredictResult(tuple(found), tuple(words), tuple(notes), tuple(skipped or ()))


def check_top(top: int) -> None:
    """Refuses to name no class.

    Raises:
      UsageError: it is below 1.
    """
    if top < 1:
        raise UsageError(f"--top: expected at least 1, found {top}.")


def files_of(images: Sequence[Path | str]) -> list[Path]:
    """The files of images and folders, in their order.

    Raises:
      UsageError: there is no such path, or a folder has no file.
    """
    return [file for name in images for file in _files(Path(name).expanduser())]


def _files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder that data reading would take for images, sorted.

    Raises:
      UsageError: there is no such path, or the folder has no file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"Image {path} not found: expected an image file or a folder of images.")
    inside = (file for file in path.rglob("*") if not is_clutter(file.relative_to(path).parts))
    found = sorted(file for file in inside if file.is_file())
    if not found:
        raise UsageError(f"Folder {path}: expected images in it, found no file.")
    return found


def _predictions(
    model: Model,
    files: Sequence[Path],
    top: int,
    skipped: list[str] | None,
    view: InputView | None,
    notes: list[str],
) -> tuple[list[Prediction], int]:
    """The predictions of the sound images, and K; `skipped` and `notes` get what was found."""
    from tfrobust.progress import Progress

    found: list[Prediction] = []
    classes, classifier = 0, _Probabilities(model, view)
    progress = Progress("predicting", len(files))
    for done, names, x in _batches(files, *_size(model), skipped):
        probabilities = classifier(x)
        classes = probabilities.shape[1]
        found += [_best(name, row, top) for name, row in zip(names, probabilities, strict=True)]
        progress.update(done)
    progress.close()
    notes += classifier.notes
    if view is None and classifier.unsure:
        notes.append("the model is given pixels of [0, 1] (--input-range takes another range)")
    if not found:
        raise TFRobustError(f"No image can be read: {'; '.join((skipped or [])[:3])}.")
    return found, classes


def _size(model: Model) -> tuple[Size | None, int]:
    """(width, height) of the images that a model takes, None for any size; its channels."""
    from tfrobust.models.inputs import input_shape

    height, width, channels = input_shape(model) or (None, None, 3)
    return ((width, height) if width and height else None), channels or 3


def _batches(
    files: Sequence[Path], size: Size | None, channels: int, skipped: list[str] | None
) -> Iterator[tuple[int, list[str], np.ndarray]]:
    """How many files are done, the names of a batch's sound ones, and their pixels."""
    # Images of different sizes make no batch.
    count = BATCH if size else 1
    for first in range(0, len(files), count):
        part = files[first : first + count]
        read = ((_readable(file), _decoded(file, size, channels, skipped)) for file in part)
        sound = [(name, x) for name, x in read if x is not None]
        if sound:
            names, pixels = zip(*sound, strict=True)
            yield first + len(part), list(names), np.stack(pixels)


def _readable(file: Path) -> str:
    # A file name may have bytes that are not text.
    return str(file).encode(errors="replace").decode()


def _decoded(
    file: Path, size: Size | None, channels: int, skipped: list[str] | None
) -> np.ndarray | None:
    """float32 [H, W, C] in [0, 1]; None for a broken image that is skipped."""
    from PIL import Image

    from tfrobust.data.images import as_channels, decode

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = as_channels(str(file), decode(file, size).pixels[None], channels)[0]
            return pixels.astype(np.float32) / np.float32(255)
    except ValueError as error:
        if skipped is None:
            raise TFRobustError(
                f"{file}: {error}: fix or delete it, or pass --skip-broken to skip "
                "unreadable images."
            ) from error
        skipped.append(f"{_readable(file)}: {error}")
        return None


class _Probabilities:
    """A model's probabilities, once it was tried on images of their size."""

    def __init__(self, model: Model, view: InputView | None = None) -> None:
        self._model, self._view = model, view
        self._classifier: Classifier | None = None
        #: Whether the range of pixels that the model takes is unknown.
        self.unsure = False
        #: What was found out about the model.
        self.notes: tuple[str, ...] = ()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32 [B, H, W, C] in [0, 1] -> float32 [B, K]."""
        from tfrobust.models.classifier import as_classifier
        from tfrobust.runtime import tf

        if self._classifier is None:
            self._classifier = as_classifier(self._model, x, self._view)
            self.notes = self._classifier.notes
            self.unsure = not self._classifier.range_known
        try:
            logits = self._classifier(tf.constant(x))
            found: np.ndarray = self._classifier.probabilities(logits).numpy()
        except (ValueError, TypeError, tf.errors.OpError) as error:
            size = " x ".join(map(str, x.shape[1:]))
            raise TFRobustError(
                f"The model does not take images of {size}: give it images of its own size."
            ) from error
        if not np.isfinite(found).all():
            raise TFRobustError("The model returns NaN or infinity: check its weights.")
        return found


def _best(file: str, probabilities: np.ndarray, top: int) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return Prediction(file, order.tolist(), probabilities[order].tolist())


def _class_words(path: Path, classes: int) -> list[str]:
    """The names of the classes in the run or SavedModel; their numbers if there are none."""
    for words in _known_words(path):
        if isinstance(words, list) and len(words) == classes:
            return [str(word) for word in words]
    return [str(number) for number in range(classes)]


def _known_words(path: Path) -> Iterator[Any]:
    """The class names of a SavedModel, or a run's newest; then of the run's evaluation."""
    from tfrobust.export.extras import read_labels
    from tfrobust.run import RunFolder
    from tfrobust.serving.model import newest_version

    # A run may have neither, and a model file has none: then there are no words.
    with contextlib.suppress(OSError, ValueError, UsageError):
        yield read_labels(newest_version(path))
    with contextlib.suppress(OSError, ValueError):
        yield read_json(RunFolder(path).evaluation).get("classes")


def _as_text(found: Sequence[Prediction], words: Sequence[str]) -> str:
    """The table for people: a line per image, the most probable class first."""
    count = max(len(one.classes) for one in found)
    rows = [["file", *(f"top {place + 1}" for place in range(count))]]
    for one in found:
        pairs = zip(one.classes, one.probabilities, strict=True)
        rows.append([one.file, *(f"{words[label]} {part:.3f}" for label, part in pairs)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _as_csv(found: Sequence[Prediction], words: Sequence[str]) -> str:
    """The table as CSV: number, word and probability of each class."""
    heads = ("class", "word", "probability")
    places = range(1, len(found[0].classes) + 1)
    rows = []
    for one in found:
        cells: list[Any] = [one.file]
        for label, part in zip(one.classes, one.probabilities, strict=True):
            cells += [label, words[label], f"{part:.6f}"]
        rows.append(cells)
    return csv_text(["file", *(f"{head}_{place}" for place in places for head in heads)], rows)
