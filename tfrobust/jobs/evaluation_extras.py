"""What an evaluation measures besides attacks: transfer, a conversion, corruption accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tfrobust.errors import UsageError
from tfrobust.progress import Tell

if TYPE_CHECKING:
    import numpy as np

    from tfrobust.data.corruption_sets import CorruptionSet
    from tfrobust.evaluation.report import RobustnessReport
    from tfrobust.jobs.opening import Subject
    from tfrobust.models.classifier import Classifier
    from tfrobust.typing import Attack
    from tfrobust.workers import Workers

_Found = TypeVar("_Found")


class Reference(NamedTuple):
    """A model that images are crafted on, to attack another, and its name in the report."""

    model: Classifier
    name: str


class PublishedSet(NamedTuple):
    """A published set of corrupted images, and the model's label of each label of the set."""

    images: CorruptionSet
    labels: np.ndarray


def original_of(subject: Subject, tell: Tell) -> Path | None:
    """The run of a converted file, whose model it was made from; None for other models."""
    from tfrobust.run import run_of

    run = run_of(subject.source) if subject.is_converted else None
    if run is None or not run.best_model.is_file():
        return None
    tell(
        f"Note: the file is in the run {run.path}: it is compared with the model of that run "
        "(skip this with --reference none)."
    )
    return run.path


def open_reference(path: Path, subject: Subject) -> Reference:
    """The model that images are crafted on, checked before any attack is run.

    Raises:
      UsageError: it has other classes, or no gradient.
      TFRobustError: it does not take the images.
    """
    from tfrobust.models.opening import load_any
    from tfrobust.models.pairs import classifier_for

    other = classifier_for(load_any(path), subject.test)
    if not other.has_gradient:
        raise UsageError(
            f"--reference: {path} has no gradient to craft images with: expected a model that has "
            "one, such as a run folder."
        )
    if other.classes != subject.model.classes:
        raise UsageError(
            f"--reference: {path} has {other.classes} classes, the model {subject.model.classes}: "
            "expected a model of the same classes."
        )
    return Reference(other, path.name)


def open_published_set(subject: Subject) -> PublishedSet | None:
    """The published set of corrupted images that the settings name; None if they name none.

    Raises:
      UsageError: it is no such set, or its classes or channels are not the model's.
    """
    settings = subject.config.evaluation
    if not settings.corruptions or not settings.corruption_set:
        return None
    from tfrobust.data.corruption_sets import labels_for, open_corruption_set

    if subject.test.image_shape[2] != 3:
        raise UsageError(
            "--corruptions DIR: expected a model of colour images, for published sets."
        )
    found = open_corruption_set(settings.corruption_set)
    labels = labels_for(found, subject.test.label_names, subject.model.classes)
    return PublishedSet(found, labels)


def with_extras(
    report: RobustnessReport,
    subject: Subject,
    attacks: Mapping[str, Attack],
    reference: Reference | None,
    published: PublishedSet | None,
    workers: Workers,
    tell: Tell,
) -> tuple[RobustnessReport, list[str]]:
    """The report with transfer and corruptions, as the settings say; and what failed of these."""
    failures: list[str] = []
    if reference:
        found, why = attempt(
            "transfer", lambda: _with_transfer(report, subject, attacks, reference)
        )
        report, failures = found or report, failures + why
    if subject.config.evaluation.corruptions:
        before = report
        found, why = attempt(
            "corruptions",
            lambda: (
                _with_published(before, subject, published, reference, tell)
                if published
                else _with_corruptions(before, subject, workers, tell)
            ),
        )
        report, failures = found or report, failures + why
    return report, failures


def attempt(what: str, part: Callable[[], _Found]) -> tuple[_Found | None, list[str]]:
    """The result of a part of the work, or None and why it failed; the rest goes on."""
    try:
        return part(), []
    except KeyboardInterrupt:
        raise
    except Exception as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        return None, [f"{what}: {sentence}"]


def _with_transfer(
    report: RobustnessReport,
    subject: Subject,
    attacks: Mapping[str, Attack],
    reference: Reference,
) -> RobustnessReport:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.attacks.transfer import transfer, transfer_scores

    other, name = reference
    settings, seed = subject.config.evaluation, subject.config.seed
    hits = transfer(
        other,
        [other, subject.model],
        subject.test,
        PGD(steps=settings.steps),
        report.threat_model,
        batch_size=settings.batch_size,
        seed=seed,
    )
    entry = transfer_scores(hits, (name, report.model), report.threat_model, name)
    report = dataclasses.replace(report, transfer=entry)
    if not subject.is_converted:
        return report
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.export.robustness import compare_robustness

    original = Evaluator(other, subject.test, batch_size=settings.batch_size, seed=seed)
    found = compare_robustness(report, original, attacks, hits, original_name=name)
    return dataclasses.replace(report, extra={**report.extra, "conversion": found})


def _with_corruptions(
    report: RobustnessReport, subject: Subject, workers: Workers, tell: Tell
) -> RobustnessReport:
    from tfrobust.evaluation.corrupted import corruption_accuracy
    from tfrobust.report.corruption_table import corruption_table

    config = subject.config
    found = corruption_accuracy(
        subject.model,
        subject.test,
        batch_size=config.evaluation.batch_size,
        seed=config.seed,
        workers=workers,
    )
    tell(f"\n{corruption_table(found)}")
    return dataclasses.replace(report, extra={**report.extra, "corruptions": found})


def _with_published(
    report: RobustnessReport,
    subject: Subject,
    published: PublishedSet,
    reference: Reference | None,
    tell: Tell,
) -> RobustnessReport:
    from tfrobust.evaluation.published_corruptions import published_accuracy
    from tfrobust.report.corruption_table import published_table

    settings, (height, width, _) = subject.config.evaluation, subject.test.image_shape
    found = published_accuracy(
        subject.model,
        published.images,
        published.labels,
        size=(width, height),
        batch_size=settings.batch_size,
        limit=settings.limit,
        seed=subject.config.seed,
        baselines={reference.name: reference.model} if reference else None,
    )
    tell(f"\n{published_table(found)}")
    return dataclasses.replace(report, extra={**report.extra, "corruptions": found})
