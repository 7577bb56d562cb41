"""Writes an imbalanced .pt data set, a part of it greyscale, from a balanced source.

python -m pipelines.imbalance --data ../shared/data/cifar10-images.zip --output Train.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.cli import main_of, new_parser
from tfrobust.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.imbalance`."""
    parser = new_parser("imbalance", "Write an imbalanced .pt data set from a balanced source.")
    add = parser.add_argument
    add("--data", default="digits", help="built-in data set, folder, zip, .npz or .pt; its train "
        "images are taken")  # fmt: skip
    add("--data-dir", default=None, help="where a built-in data set's files are")
    add("--counts", default=None, help="images of each class, comma-separated; scaled down to "
        "what is there (default: 424 to 28,789, as in a 10-class task of 100,000)")  # fmt: skip
    add("--grey", type=float, default=0.1, help="part stored as greyscale")
    add("--seed", type=int, default=42, help="of the draw")
    add("--output", required=True, help="the .pt file")
    return parser


def work(args: argparse.Namespace) -> None:
    """Reads, draws, writes, and prints the counts."""
    from tfrobust.data import load
    from tfrobust.data.imbalanced import COUNTS, imbalanced, write_torch_file

    counts = _counts(args.counts) if args.counts else COUNTS
    if not 0 <= args.grey <= 1:
        raise UsageError(f"--grey: expected a part from 0 to 1, found {args.grey}.")
    source = load(args.data, data_dir=args.data_dir, seed=args.seed)
    data = imbalanced(source.train, counts, args.seed)
    path = write_torch_file(data, Path(args.output), grey=args.grey, seed=args.seed)
    for label, name in enumerate(data.label_names):
        print(f"{name:24}{int((data.labels == label).sum()):8,}")
    print(f"{'all':24}{len(data):8,}\n{path}")


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--counts: expected numbers such as 400,80,20, found {text!r}."
        ) from error


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
