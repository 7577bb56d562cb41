"""Shared parts of the benchmarks: real images, alternating runs, peak memory of a process."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Tensor = Any


def shared_folder() -> Path:
    """The optional folder of real images and weights.

    Raises:
      SystemExit: it does not exist.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TFROBUST_SHARED", beside))
    if not folder.is_dir():
        raise SystemExit(f"Expected real data in {folder}, or its path in TFROBUST_SHARED.")
    return folder


def real_batch(size: int, side: int) -> tuple[Tensor, Tensor]:
    """Digits, enlarged to `side`: [size, side, side, 3] in [0, 1], and labels [size].

    Timing does not depend on their content.
    """
    import numpy as np

    from tfrobust.data import load
    from tfrobust.runtime import tf

    digits = load("digits").train
    index = np.arange(size) % len(digits)
    images = tf.image.resize(digits.images[index] / 255.0, [side, side])
    return tf.cast(images, tf.float32), tf.constant(digits.labels[index])


def milliseconds(works: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Median milliseconds of each; runs alternate, so that a busy machine slows all equally."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, seen in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            seen.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(seen) for seen in times]


def memory_in_process(module: str, what: str, **flags: int) -> float:
    """MB that `python -m MODULE --memory-of WHAT` prints as JSON, with whole-number flags."""
    command = [sys.executable, "-m", module, "--memory-of", what]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def peak_megabytes() -> float:
    """The peak memory of this process."""
    # Not getrusage: its peak includes the parent's at the moment of the fork.
    return _status_megabytes("VmHWM")


def anonymous_megabytes() -> float:
    """Memory of this process that is not backed by a file, and cannot be reclaimed while in use."""
    return _status_megabytes("RssAnon")


def _status_megabytes(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith(field))
    return float(kilobytes) / 1024


def new_parser(name: str, description: str, *, side: int, rounds: int) -> argparse.ArgumentParser:
    """The flags of a benchmark that alternates works and measures their memory."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--image-size", type=int, default=side, help="side in pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds of each")
    parser.add_argument("--memory-of", default=None, help=argparse.SUPPRESS)
    return parser
