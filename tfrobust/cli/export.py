"""`tfrobust export`: writes a model as a SavedModel that serves without tfrobust."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tfrobust.cli.command import Command, say
from tfrobust.cli.flags import add_settings
from tfrobust.cli.intake import add_intake, run_defaults, subject_of
from tfrobust.cli.parser import Parser
from tfrobust.export import FORMATS
from tfrobust.jobs.exporting import check_export
from tfrobust.plugins import split


def add_flags(parser: Parser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL", help="run folder, .keras or .h5 file")
    add("--output", default=None, metavar="FOLDER",
        help="folder for the files (default: the run folder, or MODEL-results)")  # fmt: skip
    add("--version", type=int, default=1, help="number of the version folder")
    add("--formats", default="", metavar="NAMES",
        help="further formats, each compared with the SavedModel on real images: "
        f"{', '.join(FORMATS)}")  # fmt: skip
    add("--images", type=int, default=500, help="number of test images for that comparison")
    add(
        "--export-anyway",
        action="store_true",
        help="export even a model that is no better than guessing",
    )
    add_intake(parser)
    add_settings(parser, ["data"], {}, run_defaults(parser, words))


def work(args: argparse.Namespace) -> None:
    """Exports a run folder's or a bare model."""
    from tfrobust import jobs

    formats = split(args.formats)
    # What cannot be exported is rejected before it is opened.
    check_export(Path(args.model), formats, args.images, anyway=args.export_anyway)
    jobs.export(
        subject_of(args), version=args.version, formats=formats, images=args.images,
        anyway=args.export_anyway, tell=say,
    )  # fmt: skip


COMMAND = Command(
    "export",
    "Write a run's model as a SavedModel for serving.",
    add_flags,
    work,
    common=("--output", "--version", "--formats", "--images", "--data", "--export-anyway"),
)
main, make_parser = COMMAND.main, COMMAND.parser
