"""`tfrobust evaluate`: evaluates the robustness of any TensorFlow classifier."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.attacks import ATTACKS, SUITES
from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.cli.flags import add_settings
from tfrobust.cli.intake import add_intake, run_defaults, subject_of
from tfrobust.cli.parser import Parser
from tfrobust.data import DATASETS
from tfrobust.errors import UsageError

REFERENCE_HELP = (
    "source model of a transfer attack, a run folder or model file: examples crafted on it are "
    "evaluated on both"
)
_ORIGINAL_HELP = "; for a .tflite or .onnx file its original, by default the run that it is in"


def add_flags(parser: Parser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL", nargs="?",
        help="run folder, SavedModel folder, .keras, .h5, .tflite or .onnx file, or the address of "
        "a served model: http://HOST/v1/models/NAME",
    )  # fmt: skip
    parser.add_argument(
        "--endpoint", default=None, metavar="NAME=VALUE,...",
        help="how requests are sent to an address: batch=32, at_once=4, timeout=30, tries=5, "
        "wait=0.2; limits: most=N images in total, rate=N per second",
    )  # fmt: skip
    parser.add_argument("--reference", default=None, help=REFERENCE_HELP + _ORIGINAL_HELP)
    parser.add_argument(
        "--output",
        default=None,
        help="folder for the results (default: the run folder, or MODEL-results beside the model)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume an evaluation that was interrupted"
    )
    parser.add_argument(
        "--strategy", default="none", metavar="NAME",
        help="none, or mirrored: use all GPUs of this machine",
    )  # fmt: skip
    add_cluster(parser)
    add_intake(parser)
    add_settings(parser, ["", "threat", "evaluation", "data"], {}, run_defaults(parser, words))
    parser.epilog = (
        f"Attacks: {', '.join([*ATTACKS, *SUITES])}. Built-in data sets: {', '.join(DATASETS)}."
    )


def work(args: argparse.Namespace) -> None:
    """Evaluates a run folder or a bare model."""
    from tfrobust import jobs

    _name_the_model(args)
    on = cluster_of(args)
    jobs.evaluate(
        subject_of(args), reference=args.reference, resume=args.resume, strategy=args.strategy,
        on=on, tell=say,
    )  # fmt: skip


def _name_the_model(args: argparse.Namespace) -> None:
    """Uses the argument of --corruptions as the model if no other is named.

    Raises:
      UsageError: no model is named.
    """
    if args.model is None:
        args.model = vars(args).pop("set:evaluation.corruption_set", None)
    if args.model is None:
        raise UsageError("Expected RUN_OR_MODEL, found none: name a run folder or a model file.")


COMMAND = Command(
    "evaluate", "Measure a model's accuracy, clean and under attack.", add_flags, work,
    common=("--data", "--norm", "--eps", "--attack", "--limit", "--reference", "--input-range",
            "--output", "--resume"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
