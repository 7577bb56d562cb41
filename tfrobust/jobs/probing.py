"""Jobs that measure a model outside of the balls of an evaluation.

How far the nearest adversarial images are, what rotation and translation do, and what one
perturbation or one patch does to all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.jobs.images import sample
from tfrobust.jobs.opening import Subject, as_subject
from tfrobust.progress import Tell, silent

if TYPE_CHECKING:
    from tfrobust.attacks.patch import Patch
    from tfrobust.attacks.spatial import SpatialAccuracy
    from tfrobust.attacks.universal import UniversalPerturbation
    from tfrobust.cluster import Ray
    from tfrobust.data.types import ImageSet
    from tfrobust.radii.distances import MinimalDistances
    from tfrobust.run import RunFolder

#: What a probe measures.
Found: TypeAlias = "SpatialAccuracy | UniversalPerturbation | Patch | tuple[MinimalDistances, ...]"


@dataclass(frozen=True)
class ProbeResult:
    """The results, and their files.

    Attributes:
      run: the folder that the results are in.
      found: a `SpatialAccuracy`, `UniversalPerturbation` or `Patch`, or a tuple of
        `MinimalDistances`.
      files: what was written.
    """

    run: RunFolder
    found: Found
    files: tuple[Path, ...]


def distances(
    subject: Subject | Path | str,
    attacks: Sequence[str] = ("fmn",),
    norms: Sequence[str] = (),
    *,
    on: str | Ray | None = None,
    tell: Tell = silent,
) -> ProbeResult:
    """How far the nearest adversarial image of each test image is, and accuracy against eps.

    Args:
      subject: from `open_subject`; or a run folder.
      attacks: minimal-norm attacks, as `tfrobust.minimal_distance` takes them.
      norms: of the distances; none is each attack's own.
      on: spread the images over a Ray cluster: 'ray', 'ray://HOST:PORT', or a `cluster.Ray`.
      tell: takes the tables.

    Raises:
      UsageError: an attack stops at the first image in a ball, or does not have a norm.
      TFRobustError: the model does not take the images, or the disk is full.
    """
    from tfrobust.figures.distances import MinimalDistancesFigure
    from tfrobust.radii.distances import distance_curves
    from tfrobust.radii.minimal_distance import minimal_distance, norm_of, open_attack

    pairs = [
        (text, norm_of(open_attack(text)[1], norm)) for text in attacks for norm in norms or (None,)
    ]
    subject, data, folder = _opened(subject, "distances", tell)
    found: list[MinimalDistances] = []
    files: list[Path] = []
    for text, norm in pairs:
        one = minimal_distance(
            subject.model,
            data,
            text,
            norm,
            name=subject.name,
            seed=subject.config.seed,
            batch_size=subject.config.evaluation.batch_size,
            on=on,
        )
        found.append(one)
        files += one.save(folder / f"{text.replace(':', '_')}_{norm}")
        tell(f"\n{one}")
    for norm in dict.fromkeys(norm for _, norm in pairs):
        together = [one for one in found if one.norm == norm]
        if len(together) > 1:
            figure = MinimalDistancesFigure()
            files.append(figure.save(distance_curves(together), folder / f"{norm}.png"))
    return _written(subject, tuple(found), files, folder, tell)


def spatial(subject: Subject | Path | str, *, tell: Tell = silent, **settings: Any) -> ProbeResult:
    """Accuracy where each test image is turned and shifted as its worst case would have it.

    Args:
      subject: from `open_subject`; or a run folder.
      tell: takes the accuracies.
      settings: degrees, pixels, grid, draws and on of `tfrobust.spatial_accuracy`.

    Raises:
      UsageError: a setting is out of range.
      TFRobustError: the model does not take the images, or the disk is full.
    """
    from tfrobust.attacks.spatial import moved, spatial_accuracy
    from tfrobust.runtime import tf

    subject, data, folder = _opened(subject, "spatial", tell)
    found = spatial_accuracy(
        subject.model,
        data,
        seed=subject.config.seed,
        name=subject.name,
        batch_size=subject.config.evaluation.batch_size,
        **settings,
    )
    tell(f"\n{found}")
    files = found.save(folder)
    rows = _shown(np.flatnonzero(found.clean & ~found.robust))
    if len(rows):
        places = found.broken_at[rows] * np.array([np.pi / 180, 1, 1], np.float32)
        changed = moved(tf.constant(data.pixels(rows)), tf.constant(places)).numpy()
        files.append(_draw(subject, data, rows, changed, folder, "Turned and shifted"))
    return _written(subject, found, files, folder, tell)


def universal(
    subject: Subject | Path | str, *, tell: Tell = silent, **settings: Any
) -> ProbeResult:
    """One perturbation in the configuration's ball, made on half of the test images.

    Args:
      subject: from `open_subject`; or a run folder.
      tell: takes its success rate on both halves.
      settings: epochs and step_size of `tfrobust.universal`.

    Raises:
      UsageError: a setting is out of range.
      TFRobustError: the model does not take the images, or the disk is full.
    """
    from tfrobust.attacks.universal import universal as made
    from tfrobust.threat_model import ThreatModel

    subject, data, folder = _opened(subject, "universal", tell)
    found = made(
        subject.model,
        data,
        ThreatModel.from_config(subject.config.threat),
        seed=subject.config.seed,
        batch_size=subject.config.evaluation.batch_size,
        **settings,
    )
    return _finish(subject, data, found, folder, "One perturbation for all", tell)


def patch(
    subject: Subject | Path | str,
    size: int,
    *,
    target: int | str | None = None,
    tell: Tell = silent,
    **settings: Any,
) -> ProbeResult:
    """One square for all images, at random places, made on half of the test images.

    Args:
      subject: from `open_subject`; or a run folder.
      size: its side, in pixels.
      target: the class to lead to, by name or number; None leads away from each image's own.
      tell: takes its success rate on both halves.
      settings: epochs and step_size of `tfrobust.adversarial_patch`.

    Raises:
      UsageError: a setting is out of range, or there is no such class.
      TFRobustError: the model does not take the images, or the disk is full.
    """
    from tfrobust.attacks.patch import adversarial_patch

    subject, data, folder = _opened(subject, "patch", tell)
    goal = _class_of(target, data.label_names)
    found = adversarial_patch(
        subject.model,
        data,
        size,
        target=goal,
        seed=subject.config.seed,
        batch_size=subject.config.evaluation.batch_size,
        **settings,
    )
    return _finish(subject, data, found, folder, "One patch for all", tell)


def _class_of(target: int | str | None, names: Sequence[str]) -> int | None:
    """The number of a class that is given by name or number.

    Raises:
      UsageError: there is no class of that name.
    """
    if target is None or isinstance(target, int):
        return target
    if target in names:
        return names.index(target)
    if target.isdigit():
        return int(target)
    shown = ", ".join(names[:20])
    raise UsageError(
        f"target: expected a class's name or number, one of {shown}, found {target!r}."
    )


def _opened(subject: Subject | Path | str, what: str, tell: Tell) -> tuple[Subject, ImageSet, Path]:
    """The model with the images to measure on, and the folder for the results."""
    subject = as_subject(subject, tell)
    data = sample(subject.test, subject.config.evaluation.limit, subject.config.seed)
    return subject, data, subject.run.path / what


def _finish(
    subject: Subject,
    data: ImageSet,
    found: UniversalPerturbation | Patch,
    folder: Path,
    title: str,
    tell: Tell,
) -> ProbeResult:
    """Prints and saves a perturbation for all images, and draws it on some."""
    tell(f"\n{found}")
    rows = _shown(np.arange(len(data)))
    files = found.save(folder)
    files.append(_draw(subject, data, rows, found.apply(data.pixels(rows)), folder, title))
    return _written(subject, found, files, folder, tell)


def _shown(rows: np.ndarray) -> np.ndarray:
    """Some of the rows, evenly spread: images are ordered by class."""
    from tfrobust.jobs.change_figures import SHOWN

    return rows[np.unique(np.linspace(0, len(rows) - 1, SHOWN).astype(int))] if len(rows) else rows


def _draw(
    subject: Subject,
    data: ImageSet,
    rows: np.ndarray,
    changed: np.ndarray,
    folder: Path,
    title: str,
) -> Path:
    from tfrobust.jobs.change_figures import changes_figure

    path = folder / f"{folder.name}.png"
    return changes_figure(subject.model, data, rows, changed, path, title)


def _written(
    subject: Subject, found: Found, files: Sequence[Path], folder: Path, tell: Tell
) -> ProbeResult:
    tell(f"Results: {len(files)} files in {folder}")
    return ProbeResult(subject.run, found, tuple(files))
