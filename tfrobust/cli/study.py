"""`tfrobust study`: several verbs in sequence, from one recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.cli.command import Command, say
from tfrobust.cli.studies import study_folder, study_names, study_steps


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("study", metavar="STUDY", help=f"one of {', '.join(study_names())}, or a YAML file")
    add("--quick", action="store_true", help="run all steps on few images and fewer models, in "
        "under 2 minutes: shows that it works; its scores mean nothing")  # fmt: skip
    add("--output", default=None, help="folder of the study (default: saved_models/STUDY)")
    add("--input", action="append", default=[], metavar="NAME=PATH",
        help="an input file of the study, if it is not at its default place")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="one of the study's settings, such as recipe=brittleness_resnet18")  # fmt: skip
    add("--redo", metavar="STEP", help="repeat this step and all that depend on it")
    add("--list", action="store_true", help="print the commands and stop")
    parser.epilog = "A stopped study resumes when it is run again."


def work(args: argparse.Namespace) -> None:
    """Runs every step that is not done yet."""
    steps = study_steps(
        args.study, args.output, inputs=_pairs(args.input), settings=_pairs(args.settings),
        quick=args.quick, check_inputs=not args.list,
    )  # fmt: skip
    if args.list:
        print("\n".join(step.command for step in steps))
        return
    from tfrobust import jobs

    folder = study_folder(args.study, args.output, quick=args.quick)
    jobs.study(steps, folder, redo=args.redo, tell=say)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


COMMAND = Command(
    "study", "Run a study from its first step to its tables and figures.", add_flags, work,
    common=("--quick", "--output", "--list", "--redo", "--set", "--input"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
