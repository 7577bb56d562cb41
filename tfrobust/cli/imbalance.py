"""`tfrobust imbalance`: writes an imbalanced .pt data set from a balanced source."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tfrobust.cli.command import Command
from tfrobust.errors import UsageError


def add_flags(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("--data", default="digits", help="built-in data set, folder, zip, .npz or .pt; its train "
        "images are used")  # fmt: skip
    add("--data-dir", default=None, help="folder of a built-in data set's files")
    add("--counts", default=None, help="images per class, comma-separated; scaled down to what "
        "is available (default: 424 to 28,789, as in a 10-class task of 100,000)")  # fmt: skip
    add("--grey", type=float, default=0.1, help="share stored as greyscale")
    add("--seed", type=int, default=42, help="seed of the selection")
    add("--output", required=True, help="the .pt file")


def work(args: argparse.Namespace) -> None:
    """Reads, selects, writes, and prints the counts."""
    from tfrobust import jobs

    found = jobs.imbalance(
        args.output, args.data, data_dir=args.data_dir, grey=args.grey, seed=args.seed,
        counts=_counts(args.counts) if args.counts else None,
    )  # fmt: skip
    for name, count in zip(found.class_names, found.counts, strict=True):
        print(f"{name:24}{count:8,}")
    print(f"{'all':24}{sum(found.counts):8,}\n{found.file}")


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--counts: expected numbers such as 400,80,20, found {text!r}."
        ) from error


COMMAND = Command(
    "imbalance", "Write an imbalanced .pt data set from a balanced source.", add_flags, work,
    common=("--data", "--output", "--counts", "--grey", "--seed"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
