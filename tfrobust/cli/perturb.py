"""`tfrobust perturb`: builds sets of adversarial images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tfrobust.attacks import ATTACKS
from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.cli.flags import add_settings, given_settings
from tfrobust.cli.intake import run_defaults
from tfrobust.cli.parser import Parser
from tfrobust.data import DATASETS
from tfrobust.jobs.perturbing import SETS


def add_flags(parser: Parser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL",
        help="run folder, SavedModel folder, or .keras or .h5 file: [0, 1] images in, logits out",
    )  # fmt: skip
    parser.add_argument("--output", required=True, help="folder for the sets")
    parser.add_argument(
        "--resume", action="store_true", help="keep the complete sets, build the others"
    )
    for name, (split, size) in SETS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=f"size:{name}", type=int, default=size, metavar="N",
            help=f"images in the set {name}, from {split}; 0 skips the set",
        )  # fmt: skip
    parser.add_argument(
        "--attack", default="optimised-noise",
        help="attack of the first four sets, in the ball of --norm and --eps, optionally with "
        "settings: optimised-noise:steps=100",
    )  # fmt: skip
    parser.add_argument(
        "--pixel-attack", default="pixel",
        help="attack of the set pixel, optionally with settings: pixel:fraction=0.01; its ball is "
        "'l0' with that share of the pixels",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=128, help="batch size")
    add_cluster(parser)
    add_settings(parser, ["", "threat", "data"], {}, run_defaults(parser, words))
    parser.epilog = (
        f"Attacks: {', '.join(ATTACKS)}. Built-in data sets: {', '.join(DATASETS)}. "
        "If the data has no test split of its own, give the seed and fractions of the training."
    )


def work(args: argparse.Namespace) -> None:
    """Builds the requested sets."""
    from tfrobust import jobs

    on = cluster_of(args)
    sizes = {name: int(getattr(args, f"size:{name}")) for name in SETS}
    jobs.perturb(
        Path(args.model), args.output, given_settings(args), sizes=sizes, attack=args.attack,
        pixel_attack=args.pixel_attack, batch_size=args.batch_size, resume=args.resume,
        on=on, tell=say,
    )  # fmt: skip


COMMAND = Command(
    "perturb", "Build sets of adversarial images from correctly classified ones.", add_flags, work,
    common=("--output", "--attack", "--norm", "--eps", "--augmented-train", "--perturbed-train",
            "--perturbed-validation", "--hold-out", "--pixel", "--data", "--resume"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
