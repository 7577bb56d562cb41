"""Measures how robust any TensorFlow classifier is.

python -m pipelines.evaluate saved_models/RUN --eps 2/255 --steps 50
python -m pipelines.evaluate model.keras --data images.npz --eps 8/255 --attack autoattack
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli import add_settings, main_of, new_parser
from pipelines.loading import add_intake
from tfrobust.attacks import ATTACKS, SUITES
from tfrobust.attacks.named import make_attacks
from tfrobust.data import DATASETS
from tfrobust.errors import TFRobustError, UsageError

if TYPE_CHECKING:
    from tfrobust.config import RunConfig
    from tfrobust.data.types import ImageSet
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.evaluation.ledger import Ledger
    from tfrobust.evaluation.report import RobustnessReport
    from tfrobust.evaluation.sharing import Share
    from tfrobust.run import RunFolder
    from tfrobust.threat_model import ThreatModel

REFERENCE_HELP = (
    "run folder or model file: attack this model, and show the same images to it and to the "
    "evaluated one (transfer)"
)


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.evaluate`."""
    parser = new_parser("evaluate", "Measure a model's accuracy, clean and under attack.")
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL",
        help="run folder, SavedModel folder, or .keras or .h5 file of tf_keras or Keras 3",
    )  # fmt: skip
    parser.add_argument("--reference", default=None, help=REFERENCE_HELP)
    parser.add_argument(
        "--output",
        default=None,
        help="folder for the results (default: the run folder, or MODEL-results beside the model)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an evaluation that was killed"
    )
    parser.add_argument(
        "--strategy", default="none", choices=("none", "mirrored", "multiworker"),
        help="spread the work over all GPUs of this machine, or over the workers in TF_CONFIG, "
        "which run the same command",
    )  # fmt: skip
    add_intake(parser)
    add_settings(parser, ["", "threat", "evaluation", "data"], {})
    parser.epilog = (
        f"Attacks: {', '.join([*ATTACKS, *SUITES])}. Built-in data sets: {', '.join(DATASETS)}."
    )
    return parser


def work(args: argparse.Namespace) -> None:
    """Evaluates a run folder or a bare model."""
    from pipelines.loading import open_with_images

    opened, test = open_with_images(args)
    evaluate_run(
        opened.model, test, opened.config, opened.run, args.reference, opened.name,
        trained=opened.trained, source=opened.source, resume=args.resume, strategy=args.strategy,
        intake={"notes": opened.notes, "skipped": opened.skipped},
    )  # fmt: skip


def evaluate_run(
    model: Any,
    test: ImageSet,
    config: RunConfig,
    run: RunFolder,
    reference: str | None,
    name: str,
    *,
    trained: RunConfig | None,
    source: Path | None = None,
    resume: bool = False,
    strategy: str = "none",
    intake: Mapping[str, Sequence[str]] | None = None,
) -> RobustnessReport | None:
    """Evaluates on the test images; writes `evaluation.json` and `predictions.csv`.

    `trained` are the settings that the model was trained with, where they are known. A
    killed evaluation of the model file `source` can be resumed. Of several workers the
    chief alone writes; the others return None. `intake` is what was noted while model and
    images were read; the report keeps it.

    Raises:
      TFRobustError: the model does not take the images, or a part of the work after the
        attacks has failed: what was measured before is written all the same.
    """
    from pipelines.loading import sample
    from tfrobust.evaluation.evaluate import measure
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.threat_model import ThreatModel

    share = _share(strategy)
    sampled = sample(test, config.evaluation.limit, config.seed)
    model = as_classifier_of(model, sampled)
    data = _named(model.classes, sampled)
    if config.evaluation.corruptions and min(data.image_shape[:2]) < 8:
        raise UsageError("--corruptions: expected images of at least 8x8 pixels.")
    other = _reference(reference, data, model.classes) if reference else None
    threat_model, settings = ThreatModel.from_config(config.threat), config.evaluation
    attacks = make_attacks(settings, len(data.label_names))
    _announce(attacks, data, threat_model)
    ledger = _ledger(run, _key(source, data, config, attacks), resume, share.worker.is_chief)
    # All have read where the evaluation stands before one of them writes.
    share.gather([])
    evaluator = Evaluator(
        model, data, batch_size=settings.batch_size, seed=config.seed, ledger=ledger, share=share
    )
    report = measure(evaluator, threat_model, attacks, name=name, sweep=settings.sweep)
    if not _goes_on(share, evaluator):
        return None
    report = _with_intake(report, model, data, intake or {})
    report, failures = _completed(report, other, reference, model, data, config)
    _publish(run, report, data, trained)
    if settings.figures:
        failures += _tried("figures", lambda: _draw(run, evaluator, attacks, report, config))[1]
    ledger.close()
    if failures:
        raise TFRobustError(
            f"The evaluation is written to {run.evaluation}, without what failed: "
            f"{'; '.join(failures)}"
        )
    return report


def _with_intake(
    report: RobustnessReport, model: Any, data: ImageSet, intake: Mapping[str, Sequence[str]]
) -> RobustnessReport:
    """With what tells which images were seen, and how the model was taken."""
    from tfrobust.data.contents import digest_of_all

    notes = [*intake.get("notes", ()), *model.notes]
    facts: dict[str, Any] = {"images_sha256": digest_of_all(data)}
    facts |= {"notes": notes} if notes else {}
    facts |= {"skipped": list(intake["skipped"])} if intake.get("skipped") else {}
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


def _reference(path: str, data: ImageSet, classes: int) -> Any:
    """The model that images are crafted on, refused before the work where it does not fit.

    Raises:
      UsageError: it knows other classes.
      TFRobustError: it does not take the images.
    """
    from tfrobust.models.opening import load_any

    other = as_classifier_of(load_any(Path(path)), data)
    if other.classes != classes:
        raise UsageError(
            f"--reference: {path} knows {other.classes} classes, the model {classes}: expected a "
            "model of the same classes."
        )
    return other


def as_classifier_of(model: Any, data: ImageSet) -> Any:
    """A model as a `Classifier`, tried on some of the images."""
    from tfrobust.models.classifier import as_classifier

    return as_classifier(model, data.pixels(slice(0, 64)))


def _goes_on(share: Share, evaluator: Evaluator) -> bool:
    """Ends the work with others; whether this process is the one that writes."""
    share.close()
    evaluator.leave_others()
    if not share.worker.is_chief:
        print(f"Worker {share.worker.index} is done; the chief writes the report.", flush=True)
    return share.worker.is_chief


def _share(strategy: str) -> Share:
    from tfrobust.evaluation.sharing import make_share

    share = make_share(strategy)
    if strategy == "mirrored" and not share.devices:
        print("--strategy mirrored: found one device, which does all of the work.", flush=True)
    return share


def _completed(
    report: RobustnessReport, other: Any, reference: str | None, model: Any, data: ImageSet,
    config: RunConfig,
) -> tuple[RobustnessReport, list[str]]:  # fmt: skip
    """With transfer and corruptions, where they are asked for; and what failed of them."""
    failures: list[str] = []
    if reference:
        found, why = _tried(
            "transfer",
            lambda: _with_transfer(report, other, Path(reference).name, model, data, config),
        )
        report, failures = found or report, failures + why
    if config.evaluation.corruptions:
        before = report
        found, why = _tried("corruptions", lambda: _with_corruptions(before, model, data, config))
        report, failures = found or report, failures + why
    return report, failures


def _announce(attacks: dict[str, Any], data: ImageSet, threat_model: ThreatModel) -> None:
    """Says what an attack's settings come to on these images."""
    for name, attack in attacks.items():
        remark = getattr(attack, "remark", lambda *_: "")(data.image_shape, threat_model)
        if remark:
            print(f"{name}: {remark}", flush=True)


def _ledger(run: RunFolder, key: str, resume: bool, writes: bool) -> Ledger:
    from tfrobust.evaluation.ledger import Ledger

    ledger = Ledger(run.path / "evaluation-progress.npz", key, resume=resume, writes=writes)
    if ledger.resumed:
        print("Going on with the evaluation.", flush=True)
    elif resume and ledger.path is not None and ledger.path.is_file():
        print("The evaluation that was begun is of other settings: begins anew.", flush=True)
    return ledger


def _publish(
    run: RunFolder, report: RobustnessReport, data: ImageSet, trained: RunConfig | None
) -> None:
    """Prints and writes the evaluation, and the card and leaderboard entry made of it."""
    from tfrobust.report.leaderboard import leaderboard_entry
    from tfrobust.report.model_card import model_card
    from tfrobust.report.runs import read_run, remove_evaluation_figures
    from tfrobust.run import write_json, write_text
    from tfrobust.settings import to_dict

    size = f"{len(data)} test images"
    print(f"\n{report.model}: {size}, {report.threat_model}\n{report.as_text()}", flush=True)
    # They show what the evaluation before found; figures of this one are drawn later, if at all.
    if removed := remove_evaluation_figures(run.figures):
        print(f"Removed {removed} figures of the evaluation before.", flush=True)
    write_json(run.evaluation, {**report.as_dict(), "classes": list(data.label_names)})
    write_text(run.predictions, report.as_csv(data.names, data.label_names))
    known = dataclasses.replace(read_run(run.path), config=to_dict(trained) if trained else {})
    write_text(run.path / "model_card.md", model_card(known))
    write_json(run.path / "leaderboard.json", leaderboard_entry(known))


def _draw(
    run: RunFolder,
    evaluator: Evaluator,
    attacks: dict[str, Any],
    report: RobustnessReport,
    config: RunConfig,
) -> None:
    from tfrobust.evaluation.figures import evaluation_figures

    names = evaluator.data.label_names
    files = evaluation_figures(evaluator, attacks, report, names, run.figures, seed=config.seed)
    print(f"Figures: {', '.join(file.name for file in files)} in {run.figures}", flush=True)


def _with_corruptions(
    report: RobustnessReport, model: Any, data: ImageSet, config: RunConfig
) -> RobustnessReport:
    from tfrobust.evaluation.corrupted import as_text, corruption_accuracy

    size = config.evaluation.batch_size
    found = corruption_accuracy(model, data, batch_size=size, seed=config.seed)
    print(f"\n{as_text(found)}", flush=True)
    return dataclasses.replace(report, extra={**report.extra, "corruptions": found})


def _named(classes: int, data: ImageSet) -> ImageSet:
    """The data with a name for every class of the model, also those without images."""
    further = tuple(map(str, range(len(data.label_names), classes)))
    return dataclasses.replace(data, label_names=data.label_names + further)


def _key(source: Path | None, data: ImageSet, config: RunConfig, attacks: dict[str, Any]) -> str:
    """What an evaluation depends on, as a digest: it is resumed only where all is the same."""
    from tfrobust.settings import to_dict

    digest = hashlib.sha256()
    if source is not None:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
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


def _with_transfer(
    report: RobustnessReport, other: Any, name: str, model: Any, data: ImageSet, config: RunConfig
) -> RobustnessReport:
    from tfrobust.attacks.gradient import PGD
    from tfrobust.evaluation.transfer import transfer

    figures = transfer(
        other,
        {name: other, report.model: model},
        data,
        PGD(steps=config.evaluation.steps),
        report.threat_model,
        reference_name=name,
        batch_size=config.evaluation.batch_size,
        seed=config.seed,
    )
    return dataclasses.replace(report, transfer=figures)


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
