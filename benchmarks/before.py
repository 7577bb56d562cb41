"""Evaluation now and at another commit: the same command in both trees, alternating, in one run.

    git worktree add --detach /tmp/before COMMIT
    python -m benchmarks.before /tmp/before
    python -m benchmarks.before /tmp/before --attack autoattack --images 500 --rounds 1

The command is `pipelines.evaluate` of a model file on images in an .npz file (by default the
reference model and its images), in a separate process each time. It compares the seconds that the
evaluation itself reports (without imports and figures), the CPU seconds of the whole command, which
other work on the machine affects less, and the outcome of every image.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import shared_folder

# The goal: at most this much slower.
GOAL = 1.03


class Turn(NamedTuple):
    """One evaluation: its own seconds, the command's CPU seconds, and its report."""

    seconds: float
    processor: float
    report: dict[str, Any]


def main(words: Sequence[str] | None = None) -> int:
    """Prints the medians of both trees; 0 if the goal is reached and the outcomes are equal."""
    args = _parser().parse_args(words)
    here = Path(__file__).resolve().parents[1]
    trees = {"before": args.before.resolve(), "now": here}
    turns: dict[str, list[Turn]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as folder:
        data = _some_images(args.data, args.images, Path(folder))
        for k in range(args.rounds):
            for name in sorted(trees, reverse=bool(k % 2)):
                turns[name].append(_turn(trees[name], data, args, Path(folder) / f"{name}{k}"))
                last = turns[name][-1]
                print(f"{name:8}{last.seconds:9.1f} s{last.processor:9.1f} s of processor "
                      f"{last.report['robust_accuracy']:8.4f}", flush=True)  # fmt: skip
    ratios = [
        statistics.median(getattr(turn, what) for turn in turns["now"])
        / statistics.median(getattr(turn, what) for turn in turns["before"])
        for what in ("seconds", "processor")
    ]
    same = _outcomes(turns["now"][0].report) == _outcomes(turns["before"][0].report)
    print(f"now takes {ratios[0]:.3f} of the seconds before and {ratios[1]:.3f} of the CPU seconds "
          f"(goal {GOAL}); scores are {'the same' if same else 'NOT the same'}")  # fmt: skip
    return 0 if same and min(ratios) <= GOAL else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.before", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    reference = shared_folder() / "reference"
    parser.add_argument("before", type=Path, help="a working tree of the other commit")
    parser.add_argument("--model", type=Path, default=reference / "resnet2b.h5")
    parser.add_argument("--data", type=Path, default=reference / "cifar10_test_500.npz")
    parser.add_argument("--attack", default="pgd", help="as for pipelines.evaluate (pgd)")
    parser.add_argument("--eps", default="2/255", help="radius (2/255)")
    parser.add_argument("--images", type=int, default=500, help="number of images (500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (5)")
    return parser


def _some_images(data: Path, count: int, folder: Path) -> Path:
    with np.load(data) as content:
        np.savez(folder / "images.npz", x=content["x"][:count], y=content["y"][:count])
    return folder / "images.npz"


def _turn(tree: Path, data: Path, args: argparse.Namespace, output: Path) -> Turn:
    command = [
        sys.executable, "-m", "pipelines.evaluate", str(args.model.resolve()), "--dataset",
        str(data), "--attack", args.attack, "--eps", args.eps, "--sweep", "none",
        "--no-figures", "--output", str(output),
    ]  # fmt: skip
    before = _processor()
    subprocess.run(
        command, cwd=tree, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    report = json.loads((output / "evaluation.json").read_text())
    return Turn(report["seconds"], _processor() - before, report)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _outcomes(report: dict[str, Any]) -> dict[str, Any]:
    """The outcome of every image."""
    return {key: report[key] for key in ("clean_accuracy", "robust_accuracy", "examples")}


if __name__ == "__main__":
    sys.exit(main())
