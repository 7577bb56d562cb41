"""Images per second of the data pipeline, compared with MobileNetV2's training step.

    python -m benchmarks.data

The goal is 5: the pipeline with flip, crop and colour jitter delivers at least five times the
images that a training step consumes on the same machine, so that training never waits for data. The
images are TinyImageNet's from the folder of real data (TFROBUST_SHARED, or ../shared/data beside
the repository) if it exists, else scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfrobust.config import AugmentConfig
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError

GOAL = 5.0
FLIP: dict[str, Any] = {"flip": True}
CROP: dict[str, Any] = {"crop_padding": 4}
COLOUR: dict[str, Any] = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
GAUSSIAN: dict[str, Any] = {"gaussian_noise": 0.1}
POISSON: dict[str, Any] = {"poisson_noise": 0.1}
SALT_PEPPER: dict[str, Any] = {"salt_pepper": 0.1}
USUAL = AugmentConfig(**FLIP, **CROP, **COLOUR)
STAGES = {
    "gather": AugmentConfig(),
    "gather + flip": AugmentConfig(**FLIP),
    "gather + crop": AugmentConfig(**CROP),
    "gather + colour": AugmentConfig(**COLOUR),
    "gather + Gaussian noise": AugmentConfig(**GAUSSIAN),
    "gather + Poisson noise": AugmentConfig(**POISSON),
    "gather + salt and pepper": AugmentConfig(**SALT_PEPPER),
    "gather + flip + crop + colour": USUAL,
    "gather + all": AugmentConfig(**FLIP, **CROP, **COLOUR, **GAUSSIAN, **POISSON, **SALT_PEPPER),
}


class Rate(NamedTuple):
    """Images per second, and CPU milliseconds (all threads) per batch."""

    images: float
    cpu: float


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 0 if the goal is reached, 1 if it is missed or on a failure."""
    options = _parse(argv)
    try:
        return 0 if _report(options) >= GOAL else 1
    except TFRobustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, default, meaning in (
        ("--image-size", 64, "side of the images in pixels, at least 32"),
        ("--batch-size", 64, "images in a batch"),
        ("--images", 2000, "images in memory"),
        ("--seconds", 1, "seconds for each stage; the training step gets four times as many"),
    ):
        parser.add_argument(flag, type=_positive, default=default, help=f"{meaning} ({default})")
    options = parser.parse_args(argv)
    if options.image_size < 32:
        parser.error(f"--image-size: MobileNetV2 needs at least 32, found {options.image_size}")
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def _report(options: argparse.Namespace) -> float:
    """Prints the table; returns the ratio that the goal refers to."""
    files, source = _encoded_images(options.images, options.image_size)
    side = options.image_size
    print(f"{len(files):,} images of {source}, {side}x{side}, batch {options.batch_size}\n")
    start = time.perf_counter()
    data = _decode(files, side)
    decoded = len(data) / (time.perf_counter() - start)
    train, batches = _training_step(data), _batches(data, options, USUAL)
    kept = next(batches)
    step = _measure(lambda: train(kept), options, 4)
    print(f"{'stage':<46}{'images/s':>10}{'ratio':>8}{'CPU ms/batch':>14}")
    _print_row("MobileNetV2 training step, one batch kept", step, step)
    fed = _measure(lambda: train(next(batches)), options, 4)
    _print_row("the same, fed with flip + crop + colour", fed, step)
    cpu = 1000 * options.batch_size / decoded
    _print_row("decode JPEG (once a run, one thread)", Rate(decoded, cpu), step)
    rates = _measure_stages(data, options, step)
    ratio = rates[USUAL].images / step.images
    print(f"\nGoal: flip + crop + colour at {GOAL:g} times the training step; got {ratio:.1f}.")
    return ratio


def _measure_stages(
    data: ImageSet, options: argparse.Namespace, step: Rate
) -> dict[AugmentConfig, Rate]:
    rates = {}
    for name, config in STAGES.items():
        batches = _batches(data, options, config)
        rates[config] = _measure(batches.__next__, options, 1)
        _print_row(name, rates[config], step)
    return rates


def _print_row(name: str, rate: Rate, step: Rate) -> None:
    ratio = rate.images / step.images
    print(f"{name:<46}{rate.images:>10,.0f}{ratio:>8.1f}{rate.cpu:>14.1f}", flush=True)


def _encoded_images(count: int, side: int) -> tuple[list[bytes], str]:
    """At most `count` JPEG files, and their source."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("TFROBUST_SHARED", beside)) / "tiny-imagenet-200.zip"
    if not path.is_file():
        return _encoded_digits(count, side), f"scikit-learn's digits ({path} does not exist)"
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG")]
        # Spread over the archive, because its files are sorted by class.
        names = names[:: max(1, len(names) // count)][:count]
        return [archive.read(name) for name in names], f"TinyImageNet ({path})"


def _encoded_digits(count: int, side: int) -> list[bytes]:
    from PIL import Image
    from sklearn.datasets import load_digits

    files = []
    for pixels in load_digits().images[:count]:
        file = io.BytesIO()
        grey = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
        grey.resize((side, side)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def _decode(files: list[bytes], side: int) -> ImageSet:
    from tfrobust.data.images import decode

    images = np.stack([decode(file, (side, side)).pixels for file in files])
    labels = np.arange(len(images), dtype=np.int32) % 10
    return ImageSet(images, labels, tuple("0123456789"))


def _batches(
    data: ImageSet, options: argparse.Namespace, config: AugmentConfig
) -> Iterator[dict[str, Any]]:
    from tfrobust.data.pipeline import training_batches

    # Full batches only, so that a batch always counts the same number of images.
    batches = training_batches(
        data, batch_size=options.batch_size, seed=0, augment=config, drop_remainder=True
    )
    return iter(batches)


def _training_step(data: ImageSet) -> Callable[[dict[str, Any]], Any]:
    from tfrobust.runtime import keras

    model = keras.applications.MobileNetV2(
        data.image_shape, weights=None, classes=10, classifier_activation=None
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    return lambda batch: model.train_on_batch(batch["image"], batch["label"])


def _measure(call: Callable[[], Any], options: argparse.Namespace, share: int) -> Rate:
    """The rate of a call that handles one batch, after a warm-up."""
    for _ in range(3):
        call()
    calls, start, cpu = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - start) < share * options.seconds:
        call()
        calls += 1
    cpu = time.process_time() - cpu
    return Rate(options.batch_size * calls / spent, 1000 * cpu / calls)


if __name__ == "__main__":
    sys.exit(main())
