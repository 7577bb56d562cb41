"""The job that exports a model as a SavedModel, and in further formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export.formats import format_of
from tfrobust.jobs.images import load_splits, sample
from tfrobust.jobs.opening import Subject, as_subject, require_layers
from tfrobust.progress import Tell, silent
from tfrobust.run import RunFolder, doubt_of_learning, run_of

if TYPE_CHECKING:
    from tfrobust.data.types import ImageSet
    from tfrobust.export.portable import Compared
    from tfrobust.typing import Model


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
      run: its run folder.
      saved_model: the SavedModel, reloaded and found equal to the model.
      compared: each further format compared with the model on real images.
    """

    run: RunFolder
    saved_model: Path
    compared: tuple[Compared, ...] = ()


def export(
    subject: Subject | Path | str,
    *,
    version: int = 1,
    formats: Sequence[str] = (),
    images: int = 500,
    anyway: bool = False,
    tell: Tell = silent,
) -> ExportResult:
    """Exports a Keras model as a SavedModel, and in further formats.

    Args:
      subject: from `open_subject`, or a run folder.
      version: number of the SavedModel's folder.
      formats: further ones, of `FORMATS`.
      images: test images to compare them on.
      anyway: export even a model that is no better than guessing.
      tell: takes a line for each exported file, and how it compares.

    Raises:
      UsageError: a format is unknown or cannot be made of this model.
      TFRobustError: the model is no better than guessing, or what was exported differs from it.
    """
    from tfrobust.models.heads import is_keras

    subject = as_subject(subject, tell)
    check_export(_home(subject), formats, images, anyway=anyway)
    if not is_keras(subject.model.inner):
        raise UsageError(f"{subject.source} is a SavedModel already: export takes Keras models.")
    flag = f"--formats {','.join(formats)}"
    model: Model = subject.model
    if formats:
        model = require_layers(subject.model, subject.source, subject.test, flag)
    saved = export_saved_model(subject, version, tell, model=model)
    compared = _export_further(model, subject, formats, images, tell) if formats else ()
    return ExportResult(subject.run, saved, compared)


def _home(subject: Subject) -> Path:
    """The run folder of a subject that is a run, else its model's path."""
    run = run_of(subject.source) if subject.trained else None
    return run.path if run else subject.source


def check_export(model: Path, formats: Sequence[str], images: int, *, anyway: bool) -> None:
    """Refuses what cannot be exported, before anything is opened.

    Raises:
      UsageError: a format is unknown, or cannot be made of this model; or there are no images.
      TFRobustError: the model is no better than guessing, and is not wanted `anyway`.
    """
    forms = [format_of(text) for text in formats]
    run_folder = RunFolder(model).config.is_file()
    for text, form in zip(formats, forms, strict=True):
        if form.needs_backbone and not run_folder:
            raise UsageError(
                f"--formats {text}: expected a run folder, whose settings describe the network, "
                f"found {model}: omit {text}."
            )
    if images < 1:
        raise UsageError(f"--images: expected at least 1, found {images}.")
    if (doubt := doubt_of_learning(model)) and not anyway:
        raise TFRobustError(f"{model} is not exported: {doubt} (--export-anyway does it).")


def export_saved_model(
    subject: Subject, version: int = 1, tell: Tell = silent, *, model: Model | None = None
) -> Path:
    """Exports, checks the export against the model on real images, and prints its path."""
    from tfrobust.export import export as export_model

    images, names = subject.test.pixels(slice(0, 9)), subject.test.label_names
    chosen = subject.model if model is None else model
    target = export_model(chosen, subject.run.path, names, version=version, check_images=images)
    tell(f"SavedModel: {target} (reloaded, logits equal to the trained model's)")
    return target


def _export_further(
    model: Model, subject: Subject, formats: Sequence[str], wanted: int, tell: Tell
) -> tuple[Compared, ...]:
    """Converts, and compares each file with the model on the same images."""
    from tfrobust.export.portable import compare, convert

    test, seed = subject.test, subject.config.seed
    order = np.random.default_rng(seed).permutation(len(test))
    count = count_compared(len(test), wanted, formats, is_run=subject.trained is not None)
    images, rest = test.subset(order[:count]), test.subset(order[count:])
    needed = _calibrating(formats)
    calibration = _calibration(subject, rest, needed) if needed else None
    backbone = subject.trained.backbone if subject.trained else None
    x, found = images.pixels(slice(None)), []
    for name in formats:
        path = convert(model, name, subject.run.path, calibration, backbone)
        one = compare(name, path, lambda part: model(part, training=False), x, images.labels)
        tell(one.as_text())
        found.append(one)
    return tuple(found)


def count_compared(total: int, wanted: int, formats: Sequence[str], *, is_run: bool) -> int:
    """How many images to compare on: an int8 model without a run takes its ranges from others.

    Raises:
      UsageError: there are too few for both.
    """
    needed = _calibrating(formats)
    if not needed or is_run:
        return wanted
    if total < 2:
        raise UsageError(
            f"{', '.join(formats)}: expected at least 2 images, to take ranges from and to "
            f"compare on, found {total} in --data."
        )
    return min(wanted, total - max(1, min(needed, total // 4)))


def _calibrating(formats: Sequence[str]) -> int:
    """How many images the formats take ranges from; 0 where none does."""
    forms = map(format_of, formats)
    return max((getattr(one, "images", 1) for one in forms if one.needs_images), default=0)


def _calibration(subject: Subject, rest: ImageSet, count: int) -> np.ndarray:
    """Training images of the run; of a bare model test images that are not compared on."""
    if subject.trained is None:
        return rest.pixels(slice(0, count))
    splits = load_splits(subject.config.data, subject.config.seed, augmented=False)
    return sample(splits.train, count, subject.config.seed).pixels(slice(None))
