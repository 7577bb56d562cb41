"""`tfrobust explain`: draws what a model looks at, and scores the maps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.cli.command import Command, say
from tfrobust.cli.flags import add_settings
from tfrobust.cli.intake import add_intake, run_defaults, subject_of
from tfrobust.cli.parser import Parser
from tfrobust.explain import EXPLAINERS
from tfrobust.explain.selectors import select_methods
from tfrobust.jobs.explanation import CLASSES, check_counts


def add_flags(parser: Parser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL", help="run folder, .keras or .h5 file")
    add("--against", default=None, metavar="RUN_OR_MODEL",
        help="another model with the same classes, for comparison")  # fmt: skip
    add("--output", default=None, metavar="FOLDER",
        help="folder for the figures (default: the run folder, or MODEL-results)")  # fmt: skip
    add("--per-group", type=int, default=3,
        help="images per group: withstood, broken by the attack, wrong without it")  # fmt: skip
    add("--methods", default="smoothgrad,gradcam", metavar="NAMES",
        help=f"methods to compare, optionally with settings (smoothgrad:samples=50), from "
            f"{', '.join(EXPLAINERS)}")  # fmt: skip
    add("--target-layer", default=None, metavar="NAME",
        help="layer of class-activation maps (default: the last map larger than 1x1)")  # fmt: skip
    add("--measure", type=int, default=0, metavar="IMAGES",
        help="number of images to measure the methods on (faithfulness, stability, sanity "
        "checks); 0 skips it")  # fmt: skip
    add("--class-images", type=int, default=CLASSES, metavar="CLASSES",
        help="number of classes to visualise by activation maximisation, from the first; 0 skips it"
    )  # fmt: skip
    add("--classes", default=None, metavar="NAMES",
        help="classes to visualise instead, by name or number")  # fmt: skip
    add("--layers", default=None, metavar="NAMES",
        help="convolutions whose channels are drawn (default: 8 from the input up)")  # fmt: skip
    add_intake(parser)
    add_settings(parser, ["", "threat", "data"], {}, run_defaults(parser, words))


def work(args: argparse.Namespace) -> None:
    """Explains a run folder's or a bare model."""
    from tfrobust import jobs

    # Wrong flags are rejected before a model is opened.
    check_counts(args.per_group, args.measure, args.class_images)
    select_methods(args.methods)
    jobs.explain(
        subject_of(args), against=args.against, methods=args.methods, per_group=args.per_group,
        target_layer=args.target_layer, measure=args.measure, class_images=args.class_images,
        classes=args.classes, layers=args.layers, tell=say,
    )  # fmt: skip


COMMAND = Command(
    "explain", "Draw what a model looks at, clean and under attack.", add_flags, work,
    common=("--against", "--methods", "--measure", "--per-group", "--classes", "--target-layer",
            "--data", "--eps", "--output"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
