"""`tfrobust compare`: compares several models in one table and one figure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.errors import UsageError
from tfrobust.settings import parse_number


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("models", nargs="+", metavar="[NAME=]RUN_OR_MODEL", help="run folders; with --set also "
        "model files")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=FILE", help="measure plain accuracy "
            "on these images: an .npz, folder, zip or .pt, or 'test' for a run's own test images; "
            "may be repeated (default: compare the evaluation.json of each run)")  # fmt: skip
    add("--reported", action="append", default=[], metavar="NAME=ACCURACY",
        help="a score reported elsewhere, shown in that column; may be repeated")  # fmt: skip
    add("--title", default="Models side by side", help="of the figure")
    add("--output", default="comparison", help="folder for table and figure")
    add_cluster(parser)


def work(args: argparse.Namespace) -> None:
    """Measures or reads, then prints and writes."""
    from tfrobust import jobs

    on = cluster_of(args)
    models = {name or Path(path).name: path for name, path in map(_named, args.models)}
    if len(models) < len(args.models):
        raise UsageError("Two models have the same name: rename one with NAME=RUN.")
    sets = dict(_pair(text, "--set") for text in args.set)
    pairs = (_pair(text, "--reported") for text in args.reported)
    reported = {name: parse_number(value) for name, value in pairs}
    found = jobs.compare(
        models, args.output, sets=sets, reported=reported, title=args.title, on=on, tell=say
    )
    say(f"Table and figure: {found.figure.parent}")


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    # A folder may have an equals sign in its name.
    return (name, path) if equals and not Path(text).exists() else ("", text)


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{flag}: expected NAME=VALUE, found {text!r}.")
    return name, value


COMMAND = Command(
    "compare",
    "Compare several models in one table and one figure.",
    add_flags,
    work,
    common=("--set", "--reported", "--title", "--output"),
)
main, make_parser = COMMAND.main, COMMAND.parser
