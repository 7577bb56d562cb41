"""`tfrobust serve`: serves a SavedModel over HTTP, with a page to try it on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.cli.command import Command, say
from tfrobust.cli.intake import warn_of_guessing


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("model", metavar="RUN_OR_SAVEDMODEL", help="run folder, or the folder of a SavedModel")
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all")
    add("--port", type=int, default=8080, help="port to listen at; 0 takes a free one")
    add("--max-batch", type=int, default=32, help="images that run together")
    add("--max-body", type=int, default=16, metavar="MB", help="the most that a request may hold")
    add("--queue", type=int, default=512, help="maximum queue length; further requests get 503")


def work(args: argparse.Namespace) -> None:
    """Loads the model, warms it up, and serves until it is told to stop."""
    from tfrobust import jobs

    warn_of_guessing(args.model)
    jobs.serve(
        args.model, host=args.host, port=args.port, max_batch=args.max_batch,
        max_body=args.max_body, queue=args.queue, tell=say,
    )  # fmt: skip


COMMAND = Command(
    "serve", "Serve a SavedModel over HTTP; for those without TensorFlow Serving.", add_flags, work,
    common=("--host", "--port", "--max-batch", "--max-body", "--queue"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
