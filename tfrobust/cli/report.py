"""`tfrobust report`: one self-contained page for a run, or for several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.cli.command import Command, say


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="evaluated run folders, or results of bare models")
    add("--output", default=None, help="the file (default: report.html in the first run's folder)")
    add("--title", default=None, help="title of the page (default: the runs' names)")


def work(args: argparse.Namespace) -> None:
    """Reads the runs and writes the page."""
    from tfrobust import jobs

    found = jobs.report(args.runs, args.output, title=args.title)
    say(f"Report: {found.page} ({found.megabytes:.1f} MB, opens offline)")


COMMAND = Command(
    "report", "Build one HTML page for a run, or for several side by side.", add_flags, work,
    common=("--output", "--title"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
