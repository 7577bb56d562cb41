"""The images of a job: read and split as its settings say, sampled, and without those seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfrobust.config import DataConfig
from tfrobust.data import ReadOptions, load
from tfrobust.data.types import ImageSet, Splits
from tfrobust.errors import UsageError
from tfrobust.run import run_of


def load_splits(config: DataConfig, seed: int, *, augmented: bool = True) -> Splits:
    """The images of a configuration, split.

    Args:
      config: the data settings.
      seed: of the split, unless the settings have one of their own.
      augmented: add the perturbed set `augment_with` to train, if one is named.

    Raises:
      UsageError: a name, path or fraction is wrong.
      TFRobustError: the images cannot be read, or the perturbed set would leak into train.
    """
    seed = seed if config.split_seed is None else config.split_seed
    splits = load(
        config.dataset,
        data_dir=config.data_dir,
        options=read_options(config),
        select_fraction=config.select_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )
    train = sample(splits.train, config.limit_train, seed)
    splits = Splits(train, splits.select, splits.test, splits.log)
    if config.augment_with and augmented:
        from tfrobust.data.perturbed import with_augmentation

        splits = with_augmentation(splits, Path(config.augment_with).expanduser())
    return splits


def read_options(config: DataConfig) -> ReadOptions:
    """How images are read, as the data settings say."""
    low_high = config.pixel_range
    return ReadOptions(
        image_size=config.image_size,
        skip_broken=config.skip_broken,
        cache_dir=config.cache_dir,
        memory_limit=int(config.memory_limit * 2**30),
        pixel_range=(low_high[0], low_high[1]) if low_high else None,
    )


def sample(data: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """`limit` random images (splits are ordered by class), or all, in their order."""
    if limit is None or limit >= len(data):
        return data
    return data.subset(np.sort(np.random.default_rng(seed).permutation(len(data))[:limit]))


def without_seen(model: Path, test: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
    """The images that a model's run has not used, and a note about the others.

    Raises:
      UsageError: no images are left.
    """
    from tfrobust.data.digests import RunImages

    run = run_of(model)
    seen = RunImages.load(run.seen) if run else None
    if seen is None:
        return test, ()
    rows, trained, chosen = seen.fresh(test)
    if len(rows) == len(test):
        return test, ()
    note = (
        f"this run was trained on {trained:,} of the {len(test):,} images and selected on "
        f"{chosen:,}, by their content: skipping them, {len(rows):,} remain"
    )
    if not len(rows):
        raise UsageError(
            f"This run was trained or selected on all {len(test):,} images: give it images that "
            "it has not seen."
        )
    return test.subset(rows), (note,)
