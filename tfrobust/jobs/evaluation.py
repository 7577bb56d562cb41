"""The job that measures how robust a model is, and leaves what it found in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.attacks.named import make_attacks
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.jobs.opening import Subject, as_subject, sample
from tfrobust.models.rest import is_address
from tfrobust.progress import Tell, silent

if TYPE_CHECKING:
    import numpy as np

    from tfrobust.cluster import Ray
    from tfrobust.config import RunConfig
    from tfrobust.data.corruption_sets import CorruptionSet
    from tfrobust.data.types import ImageSet
    from tfrobust.evaluation.checkpoint import Checkpoint
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.evaluation.report import RobustnessReport
    from tfrobust.report.runs import RunData
    from tfrobust.run import RunFolder
    from tfrobust.threat_model import ThreatModel
    from tfrobust.workers import Workers


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation found, and where it lies.

    Attributes:
      run: the folder with `evaluation.json`, `predictions.csv`, the model card and figures.
      report: the accuracies, image by image, and what casts doubt on them.
      class_names: by label, one for each class of the model.
      figures: the pictures that were drawn.
      evaluator: of the model and the images, with all that was traced for it.
    """

    run: RunFolder
    report: RobustnessReport
    class_names: tuple[str, ...]
    figures: tuple[Path, ...] = ()
    evaluator: Evaluator | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def values(self) -> dict[str, Any]:
        """The report as plain values, as `evaluation.json` has them."""
        return {**self.report.as_dict(), "classes": list(self.class_names)}

    def page_data(self) -> RunData:
        """What a page shows of it: this report, and what else is in the folder."""
        from tfrobust.report.runs import read_run

        return read_run(self.run.path, evaluation=self.values)


def evaluate(
    subject: Subject | Path | str,
    *,
    reference: Path | str | None = None,
    resume: bool = False,
    strategy: str = "none",
    on: str | Ray | None = None,
    tell: Tell = silent,
) -> EvaluateResult:
    """Measures accuracy clean and under attack, on all test images or those that are asked for.

    Writes `evaluation.json`, `predictions.csv`, the model card and, where the settings say so,
    figures.

    Args:
      subject: from `open_subject`, whose configuration says what to measure; or a run folder.
      reference: a model to attack instead, whose images both models are shown (transfer). Of a
        `.tflite` or `.onnx` file in a run folder the default is that run's model, and 'none' is
        none. A file is besides compared with it: both under the same attacks.
      resume: go on with an evaluation of the same model, images and settings that was killed.
      strategy: spread the work over all GPUs of this machine ('mirrored').
      on: spread the work over a Ray cluster: 'ray', 'ray://HOST:PORT', or a `cluster.Ray`. The
        images of a batch travel to whoever does it; results are those of one machine.
      tell: is told the table, and what was noted.

    Raises:
      UsageError: a wrong setting, or a cluster without Ray or for a model that is an address.
      TFRobustError: the model does not take the images, or a part of the work after the
        attacks has failed: what was measured before is written all the same.
    """
    from tfrobust.attacks.runner import refuse_without_gradient
    from tfrobust.evaluation.evaluate import measure
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.threat_model import ThreatModel

    subject = as_subject(subject, tell)
    config, settings = subject.config, subject.config.evaluation
    _check_place(subject, strategy, on)
    subject = _narrowed(subject)
    data = subject.test
    origin = reference or _origin(subject, tell)
    other = _reference(Path(origin), subject) if origin and str(origin) != "none" else None
    threat_model = ThreatModel.from_config(config.threat)
    attacks = make_attacks(settings, len(data.label_names), threat_model.norm)
    refuse_without_gradient(subject.model, attacks)
    _announce(attacks, data, threat_model, tell)
    published = _published_set(subject)
    checkpoint = _checkpoint(subject, attacks, resume, tell)
    with _workers(strategy, on, tell) as workers:
        evaluator = Evaluator(
            subject.model,
            data,
            batch_size=settings.batch_size,
            seed=config.seed,
            checkpoint=checkpoint,
            workers=workers,
        )
        report = measure(evaluator, threat_model, attacks, name=subject.name, sweep=settings.sweep)
        report = _with_intake(report, subject)
        report, failures = _completed(report, subject, attacks, other, published, workers, tell)
    evaluator.use_own_threads()
    found = EvaluateResult(subject.run, report, data.label_names, evaluator=evaluator)
    _publish(found, subject, tell)
    if settings.figures:
        figures, why = _tried("figures", lambda: _draw(found, evaluator, attacks, config, tell))
        found = dataclasses.replace(found, figures=figures or ())
        failures += why
    checkpoint.close()
    if failures:
        raise TFRobustError(
            f"The evaluation is written to {found.run.evaluation}, without what failed: "
            f"{'; '.join(failures)}"
        )
    return found


def _narrowed(subject: Subject) -> Subject:
    """With the images to measure on, a name for every class, and the model tried on them.

    Raises:
      UsageError: corruptions are asked for on images that are too small.
      TFRobustError: the model does not take the images.
    """
    config = subject.config
    sampled = sample(subject.test, config.evaluation.limit, config.seed)
    model = as_classifier_of(subject.model, sampled)
    if config.evaluation.eot > 1:
        from tfrobust.models.randomised import in_expectation

        model = in_expectation(model, config.evaluation.eot)
    data = _named(model.classes, sampled)
    asked = config.evaluation
    height, width, channels = data.image_shape
    if asked.corruptions and not asked.corruption_set and (min(height, width) < 8 or channels != 3):
        raise UsageError(
            "--corruptions: expected colour images of at least 8x8 pixels, found "
            f"{height}x{width}x{channels}."
        )
    return dataclasses.replace(subject, model=model, test=data)


def _with_intake(report: RobustnessReport, subject: Subject) -> RobustnessReport:
    """With what tells which images were seen, and how the model was taken."""
    from tfrobust.data.digests import digest_of_all

    notes = [*subject.notes, *subject.model.notes]
    facts: dict[str, Any] = {"images_sha256": digest_of_all(subject.test)}
    facts |= {"notes": notes} if notes else {}
    facts |= {"skipped": list(subject.skipped)} if subject.skipped else {}
    return dataclasses.replace(report, extra={**report.extra, **facts})


def _tried(what: str, part: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a part of the work returns, or None and why it failed: the rest is not lost."""
    try:
        return part(), []
    except KeyboardInterrupt:
        raise
    except Exception as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        return None, [f"{what}: {sentence}"]


def _reference(path: Path, subject: Subject) -> tuple[Any, str]:
    """The model that images are crafted on and its name, refused before the work if it is unfit.

    Raises:
      UsageError: it knows other classes, or gives no gradient to craft by.
      TFRobustError: it does not take the images.
    """
    from tfrobust.models.opening import load_any

    other = as_classifier_of(load_any(path), subject.test)
    if not other.has_gradient:
        raise UsageError(
            f"--reference: {path} shows its outputs alone: expected a model that images can be "
            "crafted on by its gradient, such as a run folder."
        )
    if other.classes != subject.model.classes:
        raise UsageError(
            f"--reference: {path} knows {other.classes} classes, the model "
            f"{subject.model.classes}: expected a model of the same classes."
        )
    return other, path.name


def as_classifier_of(model: Any, data: ImageSet) -> Any:
    """A model as a `Classifier`, tried on some of the images."""
    from tfrobust.models.classifier import as_classifier

    return as_classifier(model, data.pixels(slice(0, 64)))


def _check_place(subject: Subject, strategy: str, on: str | Ray | None) -> None:
    """Refuses places that the work cannot be done at.

    Raises:
      UsageError: two at once, one that is gone, or a cluster for a model that is an address.
    """
    if strategy == "multiworker":
        raise UsageError(
            "--strategy multiworker is for training: an evaluation goes over several machines "
            "with --on ray."
        )
    if strategy not in ("none", "mirrored"):
        raise UsageError(f"--strategy: expected none or mirrored, found {strategy!r}.")
    if on is not None and strategy != "none":
        raise UsageError(f"--on and --strategy {strategy} exclude each other: give one of them.")
    if on is not None and is_address(subject.source):
        raise UsageError(
            "--on: the model is an address, which is asked from one place, so that its limits "
            "hold: leave --on away, and raise --endpoint at_once=N."
        )


@contextlib.contextmanager
def _workers(strategy: str, on: str | Ray | None, tell: Tell) -> Iterator[Workers]:
    """Who does the batches."""
    from tfrobust.cluster.pool import opened_workers
    from tfrobust.distribution import local_devices
    from tfrobust.workers import Threads

    with opened_workers(on) as workers:
        own = Threads(local_devices() if strategy == "mirrored" else ())
        if strategy == "mirrored" and not own.devices:
            tell("--strategy mirrored: found one device, which does all of the work.")
        yield workers or own


def _completed(
    report: RobustnessReport,
    subject: Subject,
    attacks: dict[str, Any],
    other: tuple[Any, str] | None,
    published: tuple[CorruptionSet, np.ndarray] | None,
    workers: Workers,
    tell: Tell,
) -> tuple[RobustnessReport, list[str]]:
    """With transfer and corruptions, where they are asked for; and what failed of them."""
    failures: list[str] = []
    if other:
        found, why = _tried("transfer", lambda: _with_transfer(report, subject, attacks, *other))
        report, failures = found or report, failures + why
    if subject.config.evaluation.corruptions:
        before = report
        found, why = _tried(
            "corruptions",
            lambda: (
                _with_published(before, subject, *published, other, tell)
                if published
                else _with_corruptions(before, subject, workers, tell)
            ),
        )
        report, failures = found or report, failures + why
    return report, failures


def _announce(
    attacks: dict[str, Any], data: ImageSet, threat_model: ThreatModel, tell: Tell
) -> None:
    """Says what an attack's settings come to on these images."""
    for name, attack in attacks.items():
        remark = getattr(attack, "remark", lambda *_: "")(data.image_shape, threat_model)
        if remark:
            tell(f"{name}: {remark}")


def _checkpoint(subject: Subject, attacks: dict[str, Any], resume: bool, tell: Tell) -> Checkpoint:
    from tfrobust.evaluation.checkpoint import Checkpoint

    key = _key(subject, attacks)
    path = subject.run.path / "evaluation-progress.npz"
    checkpoint = Checkpoint(path, key, resume=resume)
    if checkpoint.resumed:
        tell("Resuming the evaluation.")
    elif resume and checkpoint.path is not None and checkpoint.path.is_file():
        tell("Found a partial evaluation with different settings; starting over.")
    return checkpoint


def _publish(found: EvaluateResult, subject: Subject, tell: Tell) -> None:
    """Tells and writes the evaluation, and the card and leaderboard entry made of it."""
    from tfrobust.report.leaderboard import leaderboard_entry
    from tfrobust.report.model_card import model_card
    from tfrobust.report.runs import read_run, remove_evaluation_figures
    from tfrobust.settings import to_dict

    report, data, run = found.report, subject.test, found.run
    size = f"{len(data)} test images"
    tell(f"\n{report.model}: {size}, {report.threat_model}\n{report.as_text()}")
    if compared := report.extra.get("conversion"):
        from tfrobust.export.robustness import as_text

        tell(f"\n{as_text(compared, report.model)}")
    # They show what the evaluation before found; figures of this one are drawn later, if at all.
    if removed := remove_evaluation_figures(run.figures):
        tell(f"Removed {removed} figures of the previous evaluation.")
    run.write_evaluation(found.values, report.as_csv(data.names, data.label_names))
    trained = to_dict(subject.trained) if subject.trained else {}
    known = read_run(run.path, found.values, trained)
    run.write_card(model_card(known), leaderboard_entry(known))


def _draw(
    found: EvaluateResult,
    evaluator: Evaluator,
    attacks: dict[str, Any],
    config: RunConfig,
    tell: Tell,
) -> tuple[Path, ...]:
    from tfrobust.jobs.evaluation_figures import evaluation_figures

    folder = found.run.figures
    files = evaluation_figures(
        evaluator, attacks, found.report, found.class_names, folder, seed=config.seed
    )
    tell(f"Figures: {', '.join(file.name for file in files)} in {folder}")
    return tuple(files)


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


def _published_set(subject: Subject) -> tuple[CorruptionSet, np.ndarray] | None:
    """The published set that is asked for, and what its labels are in the model's.

    Raises:
      UsageError: it is none, or its classes or channels are not the model's.
    """
    asked = subject.config.evaluation
    if not asked.corruptions or not asked.corruption_set:
        return None
    from tfrobust.data.corruption_sets import labels_for, open_corruption_set

    if subject.test.image_shape[2] != 3:
        raise UsageError("--corruptions DIR: published sets are of colour, the model is not.")
    found = open_corruption_set(asked.corruption_set)
    return found, labels_for(found, subject.test.label_names, subject.model.classes)


def _with_published(
    report: RobustnessReport,
    subject: Subject,
    data: CorruptionSet,
    labels: np.ndarray,
    other: tuple[Any, str] | None,
    tell: Tell,
) -> RobustnessReport:
    from tfrobust.evaluation.published_corruptions import published_accuracy
    from tfrobust.report.corruption_table import published_table

    settings, (height, width, _) = subject.config.evaluation, subject.test.image_shape
    found = published_accuracy(
        subject.model,
        data,
        labels,
        size=(width, height),
        batch_size=settings.batch_size,
        limit=settings.limit,
        seed=subject.config.seed,
        baselines={other[1]: other[0]} if other else None,
    )
    tell(f"\n{published_table(found)}")
    return dataclasses.replace(report, extra={**report.extra, "corruptions": found})


def _named(classes: int, data: ImageSet) -> ImageSet:
    """The data with a name for every class of the model, also those without images."""
    further = tuple(map(str, range(len(data.label_names), classes)))
    return dataclasses.replace(data, label_names=data.label_names + further)


def _key(subject: Subject, attacks: dict[str, Any]) -> str:
    """What an evaluation depends on, as a digest: it is resumed only where all is the same."""
    from tfrobust.settings import to_dict

    source, data, config = subject.source, subject.test, subject.config
    # Of a model that is only an address nothing else is known.
    digest = hashlib.sha256(str(source).encode() if is_address(source) else b"")
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    files += getattr(subject.model.inner, "further_files", ())
    for file in (file for file in files if file.is_file()):
        digest.update(file.read_bytes())
    digest.update(data.labels.tobytes())
    for first in range(0, len(data), 1024):
        digest.update(data.images[first : first + 1024].tobytes())
    settings = to_dict(config)
    texts = [settings["seed"], settings["threat"], settings["evaluation"], sorted(attacks)]
    digest.update(json.dumps(texts, sort_keys=True).encode())
    digest.update(repr(attacks).encode())
    return digest.hexdigest()


def _origin(subject: Subject, tell: Tell) -> Path | None:
    """The run that a converted model lies in, whose model it was made of; None for others."""
    from tfrobust.run import run_of

    run = run_of(subject.source) if subject.is_converted else None
    if run is None or not run.best_model.is_file():
        return None
    tell(
        f"Note: the file lies in the run {run.path}: it is compared with that model "
        "(--reference none leaves it out)."
    )
    return run.path


def _with_transfer(
    report: RobustnessReport, subject: Subject, attacks: dict[str, Any], other: Any, name: str
) -> RobustnessReport:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.attacks.transfer import transfer, transfer_scores

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
