"""`tfrobust serve`: serves a SavedModel over HTTP, with a page to try it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.cli.intake import warn_of_guessing
from tfrobust.errors import UsageError


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("model", metavar="RUN_OR_SAVEDMODEL", help="run folder, or the folder of a SavedModel")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    add("--port", type=int, default=8080, help="port to listen on; 0 chooses a free one")
    add("--max-batch", type=int, default=32, help="maximum batch size")
    add("--max-body", type=int, default=16, metavar="MB", help="maximum size of a request")
    add("--queue", type=int, default=512, help="maximum queue length; further requests get 503")
    add("--replicas", type=int, default=None, help="server processes, with --on (default: 1)")
    add("--most-replicas", type=int, default=None, metavar="N",
        help="maximum number under load, with --on (default: --replicas)")  # fmt: skip
    add_cluster(parser)


def work(args: argparse.Namespace) -> None:
    """Loads the model, warms it up, and serves until stopped."""
    from tfrobust import jobs

    on = cluster_of(args)
    if on is None and (args.replicas, args.most_replicas) != (None, None):
        raise UsageError("--replicas and --most-replicas need a cluster: add --on ray.")
    warn_of_guessing(args.model)
    settings: dict[str, Any] = {
        "host": args.host, "port": args.port, "max_batch": args.max_batch,
        "max_body": args.max_body, "queue": args.queue, "tell": say,
    }  # fmt: skip
    if on is None:
        jobs.serve(args.model, **settings)
    else:
        replicas = 1 if args.replicas is None else args.replicas
        jobs.serve_on_ray(
            args.model, on, replicas=replicas, most_replicas=args.most_replicas, **settings
        )


COMMAND = Command(
    "serve", "Serve a SavedModel over HTTP, without TensorFlow Serving.", add_flags, work,
    common=("--host", "--port", "--max-batch", "--max-body", "--queue"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
