"""The job that measures the robustness of a model and writes the results to a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.attacks.named import make_attacks
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.jobs.evaluation_extras import (
    attempt,
    open_published_set,
    open_reference,
    original_of,
    with_extras,
)
from tfrobust.jobs.images import sample
from tfrobust.jobs.opening import Subject, as_subject
from tfrobust.models.rest import is_address
from tfrobust.progress import Tell, silent

if TYPE_CHECKING:
    from tfrobust.cluster import Ray
    from tfrobust.config import RunConfig
    from tfrobust.data.types import ImageSet
    from tfrobust.evaluation.checkpoint import Checkpoint
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.evaluation.report import RobustnessReport
    from tfrobust.report.runs import RunData
    from tfrobust.run import RunFolder
    from tfrobust.threat_model import ThreatModel
    from tfrobust.typing import Attack
    from tfrobust.workers import Workers


@dataclass(frozen=True)
class EvaluateResult:
    """The results of an evaluation, and their folder.

    Attributes:
      run: the folder with `evaluation.json`, `predictions.csv`, the model card and figures.
      report: the accuracies, the outcome of each image, and the flags of the checks.
      class_names: by label, one for each class of the model.
      figures: the figures that were drawn.
      evaluator: of the model and the images, with its traces.
    """

    run: RunFolder
    report: RobustnessReport
    class_names: tuple[str, ...]
    figures: tuple[Path, ...] = ()
    evaluator: Evaluator | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def values(self) -> dict[str, Any]:
        """The report as plain values, as in `evaluation.json`."""
        return {**self.report.as_dict(), "classes": list(self.class_names)}

    def page_data(self) -> RunData:
        """The data of a report page: this report, and what else is in the folder."""
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
    """Measures clean and robust accuracy, on all test images or a sample.

    Writes `evaluation.json`, `predictions.csv`, the model card and, if set, figures.

    Args:
      subject: from `open_subject`, with the settings of the evaluation; or a run folder.
      reference: a source model for a transfer attack: images crafted on it are shown to both
        models. For a `.tflite` or `.onnx` file in a run folder the default is the model of that
        run, and 'none' means none; such a file is also compared with it under the same attacks.
      resume: resume an evaluation of the same model, images and settings that was killed.
      strategy: distribute the work over all GPUs of this machine ('mirrored').
      on: distribute the work over a Ray cluster: 'ray', 'ray://HOST:PORT', or a `cluster.Ray`.
        Batches are sent with their images; results are the same as on one machine.
      tell: takes the table and notes, a line at a time.

    Raises:
      UsageError: a wrong setting, or a cluster without Ray or for a model that is an address.
      TFRobustError: the model does not take the images, or a part of the work after the
        attacks has failed: the rest is written all the same.
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
    origin = reference or original_of(subject, tell)
    known = open_reference(Path(origin), subject) if origin and str(origin) != "none" else None
    threat_model = ThreatModel.from_config(config.threat)
    attacks = make_attacks(settings, len(data.label_names), threat_model.norm)
    refuse_without_gradient(subject.model, attacks)
    _announce(attacks, data, threat_model, tell)
    published = open_published_set(subject)
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
        report, failures = with_extras(report, subject, attacks, known, published, workers, tell)
    evaluator.use_own_threads()
    found = EvaluateResult(subject.run, report, data.label_names, evaluator=evaluator)
    _publish(found, subject, tell)
    if settings.figures:
        figures, why = attempt("figures", lambda: _draw(found, evaluator, attacks, config, tell))
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
    """The subject with its sample of images, a name for every class, and a tried `Classifier`.

    Raises:
      UsageError: the images are too small to be corrupted.
      TFRobustError: the model does not take the images.
    """
    from tfrobust.models.pairs import classifier_for

    config = subject.config
    sampled = sample(subject.test, config.evaluation.limit, config.seed)
    model = classifier_for(subject.model, sampled)
    if config.evaluation.eot > 1:
        from tfrobust.models.randomised import in_expectation

        model = in_expectation(model, config.evaluation.eot)
    data = _named(model.classes, sampled)
    settings, (height, width, channels) = config.evaluation, data.image_shape
    corrupts = settings.corruptions and not settings.corruption_set
    if corrupts and (min(height, width) < 8 or channels != 3):
        raise UsageError(
            "--corruptions: expected colour images of at least 8x8 pixels, found "
            f"{height}x{width}x{channels}."
        )
    return dataclasses.replace(subject, model=model, test=data)


def _with_intake(report: RobustnessReport, subject: Subject) -> RobustnessReport:
    """The report with the digest of the images, and how images and model were read."""
    from tfrobust.data.digests import digest_of_all

    notes = [*subject.notes, *subject.model.notes]
    facts: dict[str, Any] = {"images_sha256": digest_of_all(subject.test)}
    facts |= {"notes": notes} if notes else {}
    facts |= {"skipped": list(subject.skipped)} if subject.skipped else {}
    return dataclasses.replace(report, extra={**report.extra, **facts})


def _check_place(subject: Subject, strategy: str, on: str | Ray | None) -> None:
    """Rejects a strategy or cluster that cannot run the evaluation.

    Raises:
      UsageError: both are given, the strategy is unknown, or the model is an address.
    """
    if strategy == "multiworker":
        raise UsageError(
            "--strategy multiworker is for training: use --on ray to evaluate on several machines."
        )
    if strategy not in ("none", "mirrored"):
        raise UsageError(f"--strategy: expected none or mirrored, found {strategy!r}.")
    if on is not None and strategy != "none":
        raise UsageError(f"--on and --strategy {strategy} exclude each other: give one of them.")
    if on is not None and is_address(subject.source):
        raise UsageError(
            "--on: the model is an address, which is queried from one process only, to respect its "
            "limits: omit --on, and raise --endpoint at_once=N."
        )


@contextlib.contextmanager
def _workers(strategy: str, on: str | Ray | None, tell: Tell) -> Iterator[Workers]:
    """The workers that run the batches."""
    from tfrobust.cluster.pool import opened_workers
    from tfrobust.distribution import local_devices
    from tfrobust.workers import Threads

    with opened_workers(on) as workers:
        own = Threads(local_devices() if strategy == "mirrored" else ())
        if strategy == "mirrored" and not own.devices:
            tell("--strategy mirrored: found one device, which does all the work.")
        yield workers or own


def _announce(
    attacks: Mapping[str, Attack], data: ImageSet, threat_model: ThreatModel, tell: Tell
) -> None:
    """Prints the remarks of attacks on their settings for these images."""
    for name, attack in attacks.items():
        remark = getattr(attack, "remark", lambda *_: "")(data.image_shape, threat_model)
        if remark:
            tell(f"{name}: {remark}")


def _checkpoint(
    subject: Subject, attacks: Mapping[str, Attack], resume: bool, tell: Tell
) -> Checkpoint:
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
    """Prints and writes the evaluation, its model card and its leaderboard entry."""
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
    # Figures of the previous evaluation; those of this one are drawn later, if at all.
    if removed := remove_evaluation_figures(run.figures):
        tell(f"Removed {removed} figures of the previous evaluation.")
    run.write_evaluation(found.values, report.as_csv(data.names, data.label_names))
    trained = to_dict(subject.trained) if subject.trained else {}
    known = read_run(run.path, found.values, trained)
    run.write_card(model_card(known), leaderboard_entry(known))


def _draw(
    found: EvaluateResult,
    evaluator: Evaluator,
    attacks: Mapping[str, Attack],
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


def _named(classes: int, data: ImageSet) -> ImageSet:
    """The data with a name for every class of the model, also for those without images."""
    further = tuple(map(str, range(len(data.label_names), classes)))
    return dataclasses.replace(data, label_names=data.label_names + further)


def _key(subject: Subject, attacks: Mapping[str, Attack]) -> str:
    """A digest of all that an evaluation depends on: it is resumed only if all is the same."""
    from tfrobust.settings import to_dict

    source, data, config = subject.source, subject.test, subject.config
    # Of a model behind an address nothing else is known.
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
