"""Measures how robust a run's model, or any Keras model, is.

python -m pipelines.evaluate saved_models/RUN --eps 2/255 --steps 50
python -m pipelines.evaluate model.keras --dataset images.npz --eps 8/255
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli import add_settings, main_of, new_parser
from tfrobust.attacks import ATTACKS
from tfrobust.backbones import BACKBONES
from tfrobust.data import DATASETS

if TYPE_CHECKING:
    from tfrobust.config import EvaluationConfig, RunConfig
    from tfrobust.data.types import ImageSet
    from tfrobust.evaluation.report import RobustnessReport
    from tfrobust.run import RunFolder

REFERENCE_HELP = (
    "run folder or model file: attack this model, and show the same images to it and to the "
    "evaluated one (transfer)"
)


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.evaluate`."""
    parser = new_parser("evaluate", "Measure a model's accuracy, clean and under attack.")
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run folder, .keras or .h5 file")
    parser.add_argument("--reference", default=None, help=REFERENCE_HELP)
    parser.add_argument(
        "--output",
        default=None,
        help="folder for the results (default: the run folder, or one named after the model)",
    )
    choices = {"backbone": BACKBONES, "attack": ATTACKS}
    add_settings(parser, ["", "threat", "evaluation", "data"], choices)
    parser.epilog = f"Built-in data sets: {', '.join(DATASETS)}."
    return parser


def work(args: argparse.Namespace) -> None:
    """Evaluates a run folder or a bare model."""
    from pipelines.loading import open_with_images

    opened, splits = open_with_images(args)
    evaluate_run(opened.model, splits.test, opened.config, opened.run, args.reference, opened.name)


def evaluate_run(
    model: Any,
    test: ImageSet,
    config: RunConfig,
    run: RunFolder,
    reference: str | None,
    name: str,
) -> RobustnessReport:
    """Evaluates on the test images; writes `evaluation.json` and `predictions.csv`."""
    from pipelines.loading import sample
    from tfrobust.evaluation.evaluator import evaluate
    from tfrobust.evaluation.model_card import model_card
    from tfrobust.run import write_json, write_text
    from tfrobust.settings import format_eps
    from tfrobust.threat_model import ThreatModel

    data = sample(test, config.evaluation.limit, config.seed)
    threat_model = ThreatModel.from_config(config.threat)
    report = evaluate(
        model, data, threat_model, make_attacks(config.evaluation), name=name,
        sweep=config.evaluation.sweep, batch_size=config.evaluation.batch_size, seed=config.seed,
    )  # fmt: skip
    if reference:
        report = _with_transfer(report, reference, model, data, config)
    print(f"\n{name}: {len(data)} test images, {config.threat.norm}, "
          f"eps {format_eps(config.threat.eps)}\n{report.as_text()}", flush=True)  # fmt: skip
    write_json(run.evaluation, report.as_dict())
    write_text(run.predictions, report.as_csv(data.names, data.label_names))
    write_text(run.path / "model_card.md", model_card(config, report, data.label_names))
    return report


def make_attacks(config: EvaluationConfig) -> dict[str, Any]:
    """The named attacks, with those of the configured settings that each of them takes."""
    settings = {"steps": config.steps, "restarts": config.restarts}
    attacks = {}
    for name in config.attacks:
        cls = ATTACKS[name]
        taken = {item.name for item in dataclasses.fields(cls) if item.init}
        attacks[name] = cls(**{k: v for k, v in settings.items() if k in taken})
    return attacks


def _with_transfer(
    report: RobustnessReport, reference: str, model: Any, data: ImageSet, config: RunConfig
) -> RobustnessReport:
    from pipelines.loading import load_model
    from tfrobust.attacks.gradient import PGD
    from tfrobust.evaluation.transfer import transfer

    other = load_model(Path(reference))
    figures = transfer(
        other,
        {Path(reference).name: other, report.model: model},
        data,
        PGD(steps=config.evaluation.steps),
        report.threat_model,
        reference_name=Path(reference).name,
        batch_size=config.evaluation.batch_size,
        seed=config.seed,
    )
    return dataclasses.replace(report, transfer=figures)


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
