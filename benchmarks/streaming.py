"""Peak memory of reading and feeding Tiny ImageNet, from 10,000 images to 100,000.

    python -m benchmarks.streaming

The images are those of the folder of real data (TFROBUST_SHARED, or ../shared/data beside the
repository), repeated as often as needed. TFDS prepares them as shards once (with up to 1 GB for
shuffling). A second process then finds the shards, decodes and splits the images and feeds them for
one epoch with flip, crop and colour jitter, with --memory-limit 0: the goal refers to its memory.
Only memory that cannot be reclaimed (anonymous pages) counts, without that of TensorFlow's import;
pages of mapped files belong to the system's cache and are dropped when memory is needed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import anonymous_megabytes

# The goal for ten times the images: each image adds a name, a label and two offsets,
# a third of a kilobyte; its pixels take 12.
GOAL = 1.25
TRAIN = "tiny-imagenet-200/train/"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 0 if the goal is reached."""
    args = _parse(argv)
    if args.memory_of:
        print(json.dumps(_measure(Path(args.memory_of), args.batch_size)))
        return 0
    print(f"{'images':>9}{'first MB':>10}{'s':>7}{'later MB':>10}{'s':>7}", flush=True)
    peaks = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for count in args.counts:
            copy = _repeated(_source(), Path(folder) / f"{count}" / "tiny-imagenet-200.zip", count)
            both = [_in_process(copy, args.batch_size) for _ in range(2)]
            peaks.append(both[1]["peak"])
            row = "".join(f"{found['peak']:>10,.0f}{found['seconds']:>7.0f}" for found in both)
            print(f"{count:>9,}{row}", flush=True)
    ratio = peaks[-1] / peaks[0]
    print(f"\nGoal: at most {GOAL} times the memory; got {ratio:.2f}.")
    return 0 if ratio <= GOAL else 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000],
                        help="training images (default: 10000 100000)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=128, help="images in a batch (128)")
    parser.add_argument("--folder", default=None, help="folder for about 3 GB of temporary files")
    parser.add_argument("--memory-of", default=None, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _source() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("TFROBUST_SHARED", beside)) / "tiny-imagenet-200.zip"
    if not path.is_file():
        raise SystemExit(f"error: expected {path}, found none: set TFROBUST_SHARED to its folder.")
    return path


def _repeated(source: Path, target: Path, count: int) -> Path:
    """A copy with `count` training images, under distinct names."""
    target.parent.mkdir()
    with zipfile.ZipFile(source) as found, zipfile.ZipFile(target, "w") as made:
        train = [name for name in found.namelist() if name.startswith(TRAIN)]
        for name in found.namelist():
            if not name.startswith(TRAIN):
                made.writestr(name, found.read(name))
        for number in range(count):
            # Spread over the archive, because its files are sorted by class.
            name = train[number * len(train) // count]
            stem, _, _ = name.rpartition("_")
            made.writestr(f"{stem}_{number}.JPEG", found.read(name))
    return target


def _in_process(copy: Path, batch_size: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.streaming", "--memory-of", str(copy),
               "--batch-size", str(batch_size)]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _measure(copy: Path, batch_size: int) -> dict[str, float]:
    from tfrobust.config import AugmentConfig, DataConfig
    from tfrobust.data.pipeline import training_batches
    from tfrobust.jobs.images import load_splits
    from tfrobust.runtime import setup

    setup(seed=0)
    begin, before = time.perf_counter(), anonymous_megabytes()
    with _watched() as peaks:
        config = DataConfig(
            dataset="tiny_imagenet", data_dir=str(copy), cache_dir=str(copy.parent),
            memory_limit=0.0,
        )  # fmt: skip
        splits = load_splits(config, 0)
        augment = AugmentConfig(flip=True, crop_padding=4, brightness=0.2, contrast=0.2)
        batches = training_batches(splits.train, batch_size=batch_size, seed=0, augment=augment)
        for _ in itertools.islice(batches, len(splits.train) // batch_size):
            pass
    return {"peak": max(peaks) - before, "seconds": time.perf_counter() - begin}


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Samples of anonymous memory, every 20 ms while the block runs."""
    peaks, done = [anonymous_megabytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(anonymous_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    sys.exit(main())
