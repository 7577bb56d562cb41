"""What a data set looks like, as text and as a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfrobust.data.contents import duplicates
from tfrobust.data.types import ImageSet, Splits

_COLOURS = {"train": "#2a6f97", "select": "#f4a259", "test": "#8cb369"}
_MAX_LISTED = 20
# Above these numbers of classes, example columns and bars have no room for names.
_MAX_COLUMNS = 12
_MAX_BARS = 25
_ROWS = 6


def describe(splits: Splits, name: str) -> str:
    """The summary as text: sizes, modes, classes, imbalance, skipped images.

    Args:
      splits: as `load` returns them.
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
    """What was taken for what, and which images are in two splits by their content."""
    return [*splits.log.notes, *duplicates(splits)]


def imbalance(images: ImageSet) -> float:
    """Images of the largest class per image of the smallest: 1 where all are equal."""
    counts = np.bincount(images.labels, minlength=len(images.label_names))
    return float(counts.max() / counts.min()) if counts.min() else float("inf")


def save_figure(splits: Splits, name: str, path: Path) -> None:
    """Saves the summary as a picture: examples with their classes, images per class, sizes, modes.

    Args:
      splits: as `load` returns them.
      name: the data set's name, for the title.
      path: a .png file to write.
    """
    figure = Figure(figsize=(16, 7.2), layout="constrained")
    figure.suptitle(_headline(splits, name), fontsize=15, fontweight="bold", parse_math=False)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.9, 1), wspace=0.03)
    left, right = halves
    _draw_examples(left, splits.train)
    classes, sizes, modes = right.subplots(3, 1, height_ratios=(6, 1.4, 1.4))
    few = len(splits.train.label_names) <= _MAX_BARS
    (_draw_bars if few else _draw_profile)(classes, splits)
    _draw_counter(sizes, splits.log.sizes, "Sizes of the files")
    _draw_counter(modes, splits.log.modes, "Modes of the files")
    figure.savefig(path, dpi=120)


def _headline(splits: Splits, name: str) -> str:
    height, width, _ = splits.train.image_shape
    total = sum(len(images) for _, images in _parts(splits))
    classes = len(splits.train.label_names)
    return f"{name}: {total:,} images of {width}x{height} in {classes} classes"


def _parts(splits: Splits) -> list[tuple[str, ImageSet]]:
    return [("train", splits.train), ("select", splits.select), ("test", splits.test)]


def _per_class(splits: Splits) -> dict[str, np.ndarray]:
    classes = len(splits.train.label_names)
    return {part: np.bincount(i.labels, minlength=classes) for part, i in _parts(splits)}


def _words(key: Any) -> str:
    return f"{key[0]}x{key[1]}" if isinstance(key, tuple) else str(key)


def _top(counter: Counter[Any], most: int = 5) -> str:
    shown = ", ".join(f"{_words(key)} ({count:,})" for key, count in counter.most_common(most))
    return shown + (f" and {len(counter) - most} more" if len(counter) > most else "")


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def _draw_examples(figure: Any, images: ImageSet) -> None:
    """A column for each class, or, where these are too many, one image of each of sixty."""
    classes = len(images.label_names)
    columns = min(classes, 10 if classes > _MAX_COLUMNS else _MAX_COLUMNS)
    shown = np.linspace(0, classes - 1, min(classes, columns * _ROWS)).round().astype(int)
    if classes <= _MAX_COLUMNS:
        shown = np.tile(shown, _ROWS)
    members = {label: iter(np.flatnonzero(images.labels == label)) for label in set(shown)}
    axes = figure.subplots(_ROWS, columns, squeeze=False).ravel()
    for place, axis in enumerate(axes):
        axis.axis("off")
        index = next(members[shown[place]], None) if place < len(shown) else None
        if index is None:
            continue
        axis.imshow(images.images[index], interpolation="nearest")
        if classes > _MAX_COLUMNS or place < columns:
            label = _short(images.label_names[shown[place]], 15)
            axis.set_title(label, fontsize=9, pad=3, parse_math=False)


def _draw_bars(axis: Any, splits: Splits) -> None:
    names = splits.train.label_names
    places, left = np.arange(len(names)), np.zeros(len(names), int)
    for part, counts in _per_class(splits).items():
        axis.barh(places, counts, left=left, color=_COLOURS[part], label=part, height=0.75)
        left = left + counts
    for place, count in zip(places, left, strict=True):
        axis.text(count, place, f" {count:,}", va="center", fontsize=8)
    axis.set_yticks(places, [_short(name, 22) for name in names], fontsize=9, parse_math=False)
    axis.invert_yaxis()
    axis.margins(x=0.1, y=0.02)
    axis.set_xlabel(_imbalance(splits), fontsize=9)
    _finish(axis)


def _draw_profile(axis: Any, splits: Splits) -> None:
    """All classes from the most to the fewest images; the ends are named."""
    parts = _per_class(splits)
    total = np.sum(list(parts.values()), axis=0)
    order = np.argsort(-total, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    below = np.zeros(len(order), int)
    for part, counts in parts.items():
        axis.bar(ranks, counts[order], bottom=below, width=1, color=_COLOURS[part], label=part)
        below = below + counts[order]
    axis.set_xlim(0.5, len(order) + 0.5)
    axis.set_xlabel(
        f"{_ends(splits, total, order)}\n{_imbalance(splits)}", fontsize=9, parse_math=False
    )
    _finish(axis)


def _imbalance(splits: Splits) -> str:
    return f"imbalance in train {imbalance(splits.train):.2f} (largest / smallest class)"


def _ends(splits: Splits, total: np.ndarray, order: np.ndarray) -> str:
    def listed(labels: Iterable[int]) -> str:
        names = splits.train.label_names
        return ", ".join(f"{_short(names[label], 16)} {total[label]:,}" for label in labels)

    return f"most: {listed(order[:3])}\nfewest: {listed(order[:-4:-1])}"


def _draw_counter(axis: Any, counter: Counter[Any], title: str) -> None:
    rows = counter.most_common(3)
    others = sum(counter.values()) - sum(count for _, count in rows)
    if others:
        rows.append((f"{len(counter) - 3} others", others))
    counts = [count for _, count in rows]
    axis.barh(range(len(rows)), counts, color="#7d8597", height=0.7)
    for place, count in enumerate(counts):
        axis.text(count, place, f" {count:,}", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [_words(key) for key, _ in rows], fontsize=9)
    axis.set_ylim(3.6, -0.6)
    axis.set_xticks([])
    axis.margins(x=0.12)
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axis.set_title(title, fontsize=11, loc="left")


def _finish(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title("Images per class", fontsize=11, loc="left")
    axis.legend(ncols=3, fontsize=9, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98))
