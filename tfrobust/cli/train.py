"""`tfrobust train`: trains a robust classifier, evaluates it, explains it and exports it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.attacks import ATTACKS, SUITES
from tfrobust.backbones import BACKBONES
from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.cli.evaluate import REFERENCE_HELP
from tfrobust.cli.flags import Names, add_settings
from tfrobust.cli.plans import help_defaults, make_plan
from tfrobust.data import DATASETS
from tfrobust.jobs.recipes import DEFAULT_RECIPES, recipe_names
from tfrobust.training.defaults import AUTO

GROUPS = ["", "data", "backbone", "threat", "training", "augment", "evaluation"]


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb; the help shows the values that `words` would use."""
    parser.add_argument("--recipe", default=None, help=recipe_help())
    parser.add_argument(
        "--output", default=None, help="run folder (default: saved_models/DATASET-BACKBONE-METHOD)"
    )
    parser.add_argument("--resume", action="store_true", help="resume a run that was interrupted")
    parser.add_argument(
        "--epochs", type=int, default=None, help="epochs of training (default: the stages')"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=None,
        help="peak learning rate (default: the stages')",
    )  # fmt: skip
    parser.add_argument(
        "--export-anyway", action="store_true",
        help="export even a model that is no better than guessing",
    )  # fmt: skip
    parser.add_argument(
        "--strategy", default="none", choices=("none", "mirrored", "multiworker"),
        help="distribute training over all GPUs of this machine, or over the workers in TF_CONFIG",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=None, metavar="N",
        help="the most processes that train together, with --on (default: one for each node, or "
        "for each GPU)",
    )  # fmt: skip
    add_cluster(parser, cores="the worker's part of its node")
    parser.add_argument("--reference", default=None, help=REFERENCE_HELP)
    choices = {"backbone": Names([*BACKBONES, AUTO])}
    add_settings(parser, GROUPS, choices, help_defaults(words, make_parser))
    parser.epilog = (
        f"Built-in data sets: {', '.join(DATASETS)}; or the path of a folder or zip with one "
        "folder per class, an .npz with x and y, or a .pt file. "
        f"Attacks: {', '.join([*ATTACKS, *SUITES])}."
    )


def recipe_help() -> str:
    """The help of --recipe."""
    return (
        f"settings to start from: {', '.join(recipe_names())}, or a YAML file "
        f"(default: {', '.join(f'{k} for {k}' for k in DEFAULT_RECIPES)} and its network, else "
        "settings are chosen for the images, and printed); flags override it"
    )


def work(args: argparse.Namespace) -> None:
    """The whole job: train, evaluate, explain, export."""
    from tfrobust import jobs

    jobs.train(
        make_plan(args), args.output, resume=args.resume, strategy=args.strategy,
        on=cluster_of(args), workers=args.workers, reference=args.reference,
        export_anyway=args.export_anyway, tell=say,
    )  # fmt: skip


COMMAND = Command(
    "train", "Train a robust classifier, evaluate it, explain it and export it, in one go.",
    add_flags, work,
    common=("--data", "--recipe", "--backbone", "--weights", "--method", "--norm", "--eps",
            "--epochs", "--time-limit", "--attack", "--output", "--resume"),
    brief={"--recipe": "settings to start from: a recipe by name (--help-all lists them) or a YAML "
           "file (default: the data set's, else chosen for the images)",
           "--backbone": "network: resnet18, resnet50, mobilenetv2, vit, ... (--help-all lists "
           "them), or a .keras file",
           "--time-limit": "minutes of training; schedules adapt to it"},
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
