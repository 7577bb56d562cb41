"""The stratified split into train, select and test, and its per-class table."""

from __future__ import annotations

import tempfile

import numpy as np

from tfrobust.data.archives import cache_folder, free_space
from tfrobust.data.types import ImageSet, RawData, ReadOptions, Splits
from tfrobust.errors import TFRobustError

_ROWS = 4096


def stratified(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits 0..N-1 in two, class by class.

    A class of n images gives round(fraction * n) of them, but at least one, so that every class
    is measured, and never all. A class with fewer than 2 images gives none. scikit-learn's
    `train_test_split` rejects such rare classes.

    Args:
      labels: int [N].
      fraction: share to take, in (0, 1).
      seed: the same seed takes the same images.

    Returns:
      (kept, taken): disjoint, sorted int [.] that together are 0..N-1.
    """
    random = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen.append(members[:count])
    taken = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, int)
    return np.setdiff1d(np.arange(len(labels)), taken), taken


def split(
    raw: RawData,
    options: ReadOptions,
    *,
    select_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> Splits:
    """Splits a reader's result into train, select and test.

    Args:
      raw: an official test split is kept unchanged.
      options: `cache_dir` receives the parts of images that are on disk.
      select_fraction: share of train reserved for model selection.
      test_fraction: share used for test if there is no official one.
      seed: the same seed gives the same split.

    Raises:
      TFRobustError: a split would be empty.
    """
    train = np.arange(len(raw.train))
    test = raw.test
    if test is None:
        train, taken = stratified(raw.train.labels, test_fraction, seed)
        _check(taken, "test")
        test = _take(raw.train, taken, options)
    kept, taken = stratified(raw.train.labels[train], select_fraction, seed)
    _check(taken, "select")
    select = _take(raw.train, train[taken], options)
    return Splits(_take(raw.train, train[kept], options), select, test, raw.log)


def table(splits: Splits) -> str:
    """The per-class table: one row per class, with the images in each split, and the totals."""
    classes = len(splits.train.label_names)
    counts = np.stack(
        [
            np.bincount(part.labels, minlength=classes)
            for part in (splits.train, splits.select, splits.test)
        ],
        axis=1,
    )
    names = [*splits.train.label_names, "total"]
    width = max(map(len, ["class", *names]))
    rows = [f"{'class':<{width}}  {'train':>7}  {'select':>7}  {'test':>7}"]
    for name, row in zip(names, [*counts, counts.sum(axis=0)], strict=True):
        rows.append(f"{name:<{width}}  " + "  ".join(f"{count:7d}" for count in row))
    return "\n".join(rows)


def _check(taken: np.ndarray, name: str) -> None:
    if not len(taken):
        raise TFRobustError(
            f"The split {name!r} would be empty: expected a class with enough images to share "
            "(2, or 3 without a test folder), found none: add images."
        )


def _take(data: ImageSet, index: np.ndarray, options: ReadOptions) -> ImageSet:
    """A subset that stays on disk if `data` is: it may not fit into memory."""
    if not isinstance(data.images, np.memmap):
        return data.subset(index)
    folder = cache_folder(options)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for start in range(0, len(index), _ROWS):
                file.write(data.images[index[start : start + _ROWS]].tobytes())
            file.flush()
            # The map outlives the file's name and handle.
            images = np.memmap(file, np.uint8, "r", shape=(len(index), *data.images.shape[1:]))
    except OSError as error:
        raise TFRobustError(
            f"Expected to write the split images to {folder}, found '{error.strerror}' with "
            f"{free_space(folder)} free: free some space, or choose another folder with "
            "--cache-dir."
        ) from error
    names = tuple(data.names[i] for i in index) if data.names else ()
    return ImageSet(images, data.labels[index], data.label_names, names)
