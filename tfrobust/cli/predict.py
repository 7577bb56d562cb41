"""`tfrobust predict`: classifies individual images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tfrobust.cli.command import Command, say
from tfrobust.cli.intake import view_of, warn_of_guessing
from tfrobust.jobs.prediction import check_top, files_of


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL",
        help="run folder, SavedModel folder, or .keras or .h5 file")  # fmt: skip
    add("images", metavar="IMAGE", nargs="+",
        help="image file of any size and mode, or folder, searched recursively")  # fmt: skip
    add("--top", type=int, default=5, metavar="CLASSES",
        help="number of most probable classes to show")  # fmt: skip
    add("--output", default=None, metavar="FILE", help="also write the table as CSV")
    add("--skip-broken", action="store_true",
        help="skip broken images and list them, instead of failing")  # fmt: skip
    add("--input-range", default=None, metavar="LOW,HIGH",
        help="the model's values for black and white: 0,255 or -1,1 (default: detected from its "
            "first layer, else 0,1)")  # fmt: skip
    add("--input-mean", default=None, metavar="NUMBERS", help="mean to subtract")
    add("--input-std", default=None, metavar="NUMBERS", help="standard deviation to divide by")


def work(args: argparse.Namespace) -> None:
    """Predicts, then prints and writes the table."""
    from tfrobust import jobs
    from tfrobust.io import write_text
    from tfrobust.runtime import import_quietly

    check_top(args.top)
    files = files_of(args.images)
    import_quietly()
    from tfrobust.models.opening import load_any

    path = Path(args.model)
    model = load_any(path)
    warn_of_guessing(args.model)
    found = jobs.predict(
        path, files, model=model, top=args.top, skip_broken=args.skip_broken, view=view_of(args)
    )
    say(found.as_text())
    for line in found.notes:
        say(f"Note: {line}.")
    if found.skipped:
        say("\n  ".join([f"\nSkipped {len(found.skipped)} of {len(files)}:", *found.skipped]))
    if args.output:
        write_text(Path(args.output), found.as_csv())
        say(f"Table: {args.output}")


COMMAND = Command(
    "predict", "Classify individual images.", add_flags, work,
    common=("--top", "--output", "--skip-broken", "--input-range"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
