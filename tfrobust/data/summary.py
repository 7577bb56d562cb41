"""The summary of a data set, as text and as data for a figure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tfrobust.data.digests import duplicates
from tfrobust.data.types import ImageSet, Splits
from tfrobust.figures.dataset import DataSummary, shown_labels

_MAX_LISTED = 20


def describe(splits: Splits, name: str) -> str:
    """The summary as text: sizes, modes, classes, imbalance, skipped images.

    Args:
      splits: as returned by `load`.
      name: the data set's name.
    """
    counts = np.bincount(splits.train.labels, minlength=len(splits.train.label_names))
    parts = ", ".join(f"{part} {len(images):,}" for part, images in _parts(splits))
    lines = [
        _headline(splits, name),
        f"  splits     {parts}",
        f"  sizes      {_top(splits.log.sizes)}",
        f"  modes      {_top(splits.log.modes)}",
        f"  per class  {counts.min():,} to {counts.max():,} training images, "
        f"imbalance {imbalance(splits.train):.2f}",
        f"  skipped    {len(splits.log.skipped):,}",
    ]
    lines += [f"    {line}" for line in splits.log.skipped[:_MAX_LISTED]]
    more = len(splits.log.skipped) - _MAX_LISTED
    return "\n".join(lines + ([f"    and {more:,} more"] if more > 0 else []))


def remarks(splits: Splits) -> list[str]:
    """Assumptions made while reading, and images that are in two splits by their content."""
    return [*splits.log.notes, *duplicates(splits)]


def imbalance(images: ImageSet) -> float:
    """Images in the largest class per image in the smallest: 1 if all are equal."""
    counts = np.bincount(images.labels, minlength=len(images.label_names))
    return float(counts.max() / counts.min()) if counts.min() else float("inf")


def data_summary(splits: Splits, name: str) -> DataSummary:
    """The summary in the form of its figure.

    Args:
      splits: as returned by `load`.
      name: the data set's name, for the title.
    """
    train, log = splits.train, splits.log
    wanted = Counter(map(int, shown_labels(len(train.label_names))))
    examples = {
        label: [train.images[i] for i in np.flatnonzero(train.labels == label)[:count]]
        for label, count in wanted.items()
    }
    sizes = Counter({_words(size): count for size, count in log.sizes.items()})
    return DataSummary(
        _headline(splits, name), {part: images.labels for part, images in _parts(splits)},
        examples, train.label_names, imbalance(train), sizes, Counter(log.modes),
    )  # fmt: skip


def _headline(splits: Splits, name: str) -> str:
    height, width, _ = splits.train.image_shape
    total = sum(len(images) for _, images in _parts(splits))
    classes = len(splits.train.label_names)
    return f"{name}: {total:,} images of {width}x{height} in {classes} classes"


def _parts(splits: Splits) -> list[tuple[str, ImageSet]]:
    return [("train", splits.train), ("select", splits.select), ("test", splits.test)]


def _words(key: Any) -> str:
    return f"{key[0]}x{key[1]}" if isinstance(key, tuple) else str(key)


def _top(counter: Counter[Any], most: int = 5) -> str:
    shown = ", ".join(f"{_words(key)} ({count:,})" for key, count in counter.most_common(most))
    return shown + (f" and {len(counter) - most} more" if len(counter) > most else "")
