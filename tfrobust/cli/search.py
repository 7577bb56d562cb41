"""`tfrobust search`: many trainings, one table, the best settings, figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfrobust.backbones import BACKBONES
from tfrobust.cli import train
from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.cli.flags import Names, add_settings, given_settings
from tfrobust.cli.plans import help_defaults, make_plan
from tfrobust.cli.train import GROUPS, recipe_help
from tfrobust.errors import UsageError
from tfrobust.jobs.searching import SECTION, make_section
from tfrobust.search.plan import OBJECTIVES, SAMPLERS
from tfrobust.training.defaults import AUTO

SPACE_HELP = """\
spaces:
  "batch_size=32,64,128"             these values
  "learning_rate=1e-5..1e-3:log:4"   4 points in equal ratios (without :log in equal steps;
                                     5 points by default; random and tpe sample from the
                                     whole range)
  "blocks=0,1,2,3;weights=imagenet,saved_models/baseline"
                                     several factors; weights may be a run folder
  Named factors: batch_size, learning_rate, epochs, blocks (number trained besides the head),
  weights (the initialisation), adv_weight, eps, steps. Any other setting is addressed by its
  dotted name: training.momentum, augment.flip, backbone.dropout, stages.2.learning_rate.
  In a recipe:
    search:
      sampler: grid
      space: {batch_size: [32, 64], learning_rate: "1e-5..1e-3:log:4"}

A search that was interrupted resumes when the same command is run again, or with --output alone.
Several processes with the same --output (or the same --storage) share the trials.
"""


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb; the help shows the values that `words` would use."""
    parser.epilog = SPACE_HELP
    parser.add_argument("--recipe", default=None, help=recipe_help() + "; may contain 'search:'")
    parser.add_argument(
        "--output", required=True, help="folder for trials, table, best settings and figures"
    )
    parser.add_argument(
        "--epochs", type=int, default=None, help="epochs of training (default: the stages')"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=None,
        help="peak learning rate (default: the stages')",
    )  # fmt: skip
    _add_search_flags(parser.add_argument_group("search settings (default: the recipe's, else)"))
    add_cluster(parser)
    choices = {"backbone": Names([*BACKBONES, AUTO])}
    add_settings(parser, GROUPS[:-1], choices, help_defaults(words, train.make_parser))


def _add_search_flags(group: Any) -> None:
    def add(name: str, help: str, **kwargs: Any) -> None:
        default = SECTION.get(name.replace("-", "_"))
        tail = "" if default in (None, False) else f" (default: {default})"
        group.add_argument(f"--{name}", default=None, help=help + tail, **kwargs)

    flag = argparse.BooleanOptionalAction
    add("space", "factors to vary, see below")
    add("sampler", "grid: every combination; random; tpe: guided by the results", choices=SAMPLERS)
    add("trials", "number of trials, for random and tpe", type=int, metavar="N")
    add("objective", "accuracy to maximise: on select, under PGD, on a perturbed set, or the "
        "Pareto front of clean and robust", choices=OBJECTIVES)  # fmt: skip
    add("refine", "finer grids to follow, each around the best point", type=int, metavar="ROUNDS")
    add("one-at-a-time", "vary each factor alone, the others as in the recipe", action=flag)
    add("cross", "with --one-at-a-time: combine this factor with each other", metavar="FACTOR")
    add("prune", "stop trials that are worse than the median of the others (objective clean or "
        "robust)", action=flag)  # fmt: skip
    add("perturbed-train", "measure every trial on this .npz file of pipelines.perturb",
        metavar="FILE")  # fmt: skip
    add("perturbed-validation", "the same for this file", metavar="FILE")
    add("study", "name of the study in the database; trials of a non-default name are in "
        "OUTPUT/trials/NAME-0000 and so on", metavar="NAME")  # fmt: skip
    add("storage", "shared database, such as postgresql://user:password@host/name "
        "(default: the file OUTPUT/search.journal)", metavar="URL")  # fmt: skip
    group.add_argument(
        "--isolate", action=argparse.BooleanOptionalAction, default=True,
        help="run each trial in its own process: a crash costs one trial, and memory does not grow "
        "by some 20 MB per trial, but each one has to start TensorFlow (default: yes)",
    )  # fmt: skip
    group.add_argument(
        "--retry-failed", action="store_true", help="repeat the trials that failed before"
    )


def work(args: argparse.Namespace) -> None:
    """The whole search, from the flags to the figures."""
    from tfrobust import jobs

    on = cluster_of(args)
    folder = Path(args.output)
    saved = folder / "search.yaml"
    if saved.is_file() and not (args.recipe or args.space or given_settings(args)):
        args.recipe = str(saved)
    section = section_of(args)
    jobs.search(
        make_plan(args), section, folder, isolate=args.isolate, retry_failed=args.retry_failed,
        on=on, tell=say,
    )  # fmt: skip


def section_of(args: argparse.Namespace) -> dict[str, Any]:
    """The search settings: flags over the recipe's section over defaults, validated.

    Raises:
      UsageError: an unknown name, or a value of the wrong type.
    """
    section = make_section({name: getattr(args, name) for name in SECTION}, args.recipe)
    if args.trials is not None and section["sampler"] == "grid":
        raise UsageError("--trials is for --sampler random and tpe: a grid runs all its points.")
    return section


COMMAND = Command(
    "search", "Search for the best settings of a training.", add_flags, work,
    common=("--recipe", "--output", "--space", "--sampler", "--trials", "--objective", "--refine",
            "--data", "--backbone", "--method", "--epochs"),
    brief={"--recipe": "settings to start from: a recipe by name (--help-all lists them) or a YAML "
           "file (default: the data set's, else chosen for the images)",
           "--space": "factors to vary, such as 'batch_size=32,64;learning_rate=1e-3..1e-1:log:3'",
           "--backbone": "network: resnet18, resnet50, mobilenetv2, vit, ... (--help-all lists "
           "them)"},
    formatter=argparse.RawDescriptionHelpFormatter,
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
