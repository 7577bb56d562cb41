"""`tfrobust certify`: a radius for each image within which no attack can succeed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.cli.flags import add_setting, add_settings
from tfrobust.cli.intake import add_intake, run_defaults, subject_of
from tfrobust.cli.parser import Parser
from tfrobust.settings import parse_number


def add_flags(parser: Parser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL",
        help="run folder, SavedModel folder, or .keras or .h5 file of tf_keras or Keras 3"
    )  # fmt: skip
    add("--sigma", type=parse_number, required=True, metavar="NOISE",
        help="standard deviation of the noise, in pixels of [0, 1]: the one used in training "
        "(--method noise:noise_std=0.25)")  # fmt: skip
    add("--samples", type=int, default=10_000,
        help="noisy images for each estimate; radii grow with it")  # fmt: skip
    add("--selection", type=int, default=100, help="noisy images that select the class")
    add("--alpha", type=parse_number, default=0.001,
        help="the probability, for each image, that its certificate is wrong")  # fmt: skip
    add("--noise-batch-size", type=int, default=500, help="noisy images in a batch")
    add("--output", default=None, metavar="FOLDER",
        help="folder for the results (default: the run folder, or MODEL-results)")  # fmt: skip
    add("--resume", action="store_true", help="resume a certification that was interrupted")
    add_cluster(parser)
    add_intake(parser)
    shown = run_defaults(parser, words)
    add_setting(parser, "evaluation", "limit", shown)
    add_settings(parser, ["", "data"], {}, shown)


def work(args: argparse.Namespace) -> None:
    """Certifies a run folder's or a bare model."""
    from tfrobust import jobs

    on = cluster_of(args)
    jobs.certify(
        subject_of(args), args.sigma, samples=args.samples, selection=args.selection,
        alpha=args.alpha, batch_size=args.noise_batch_size, resume=args.resume,
        on=on, tell=say,
    )  # fmt: skip


COMMAND = Command(
    "certify", "Prove a radius for each image, by randomised smoothing.", add_flags, work,
    common=("--sigma", "--samples", "--alpha", "--limit", "--data", "--output", "--resume"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
