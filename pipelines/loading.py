"""Opens what a verb works on: a run folder or a bare model, and its images."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.attacks import check_attacks
from pipelines.cli import given_settings, with_changes
from tfrobust.config import DataConfig, RunConfig
from tfrobust.data import DATASETS, ReadOptions, load, load_all
from tfrobust.data.types import ImageSet, Splits
from tfrobust.errors import UsageError
from tfrobust.run import RunFolder
from tfrobust.runtime import import_quietly, setup


@dataclass(frozen=True)
class Opened:
    """A model with the configuration and the folder that go with it.

    Attributes:
      model: Keras classifier, [0, 1] images -> logits.
      config: the run's, with the flags of this command laid over it.
      trained: the run's own, as it was trained; None for a bare model.
      run: the run folder; for a bare model the folder that results go to.
      name: what reports call it.
      source: the file or folder that the model was read from.
    """

    model: Any
    config: RunConfig
    trained: RunConfig | None
    run: RunFolder
    name: str
    source: Path


def open_with_images(args: argparse.Namespace) -> tuple[Opened, ImageSet]:
    """What a verb works on and its test images, with TensorFlow settled and the seed set."""
    import_quietly()
    opened = open_model(args)
    setup(seed=opened.config.seed)
    config = opened.config.data
    if _is_foreign(args, opened):
        return opened, load_all(config.dataset, _options(config))
    return opened, load_splits(config, opened.config.seed, augmented=False).test


def require_keras(opened: Opened, verb: str) -> Any:
    """The model, where it is one of tf_keras with its layers.

    Raises:
      UsageError: it is a SavedModel or a model of Keras 3.
    """
    from tfrobust.runtime import keras

    if isinstance(opened.model, keras.Model):
        return opened.model
    raise UsageError(
        f"{opened.source} is a SavedModel or a model of Keras 3: {verb} needs one of tf_keras "
        "(Keras 2) with its layers, such as a run folder; evaluate takes any."
    )


def _is_foreign(args: argparse.Namespace, opened: Opened) -> bool:
    """Whether the images are a file or folder that the model was not trained on.

    Of those all are used; of a run's own data, as of a built-in set, the test split.
    """
    dataset = opened.config.data.dataset
    if "dataset" not in given_settings(args).get("data", {}) or dataset in DATASETS:
        return False
    folder = RunFolder(Path(args.model))
    trained_on = folder.read_config().data.dataset if folder.config.is_file() else ""
    return Path(trained_on).resolve() != Path(dataset).resolve() or not trained_on


def open_model(args: argparse.Namespace) -> Opened:
    """The run folder or model file that a verb was given.

    Raises:
      UsageError: there is no such run or model, or a bare model without `--dataset`.
    """
    from tfrobust.evaluation.models import load_any

    path = Path(args.model)
    given = given_settings(args)
    check_attacks(with_changes(RunConfig(), given).evaluation)
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        trained = RunFolder(path).read_config()
        config = with_changes(trained, given)
        run = RunFolder(Path(args.output or path))
        run.create()
        source = RunFolder(path).best_model
        return Opened(load_any(path), config, trained, run, path.name, source)
    if "dataset" not in given.get("data", {}):
        raise UsageError(f"{path} is not a run folder: name its images with --data NAME|PATH.")
    run = RunFolder(Path(args.output or _beside(path)))
    model = load_any(path)
    run.create_figures()
    return Opened(model, with_changes(RunConfig(), given), None, run, path.name, path)


def _beside(path: Path) -> Path:
    """Where a bare model's results go: a folder named after it."""
    return path.with_name(f"{path.name}-results") if path.is_dir() else path.with_suffix("")


def _options(config: DataConfig) -> ReadOptions:
    return ReadOptions(
        image_size=config.image_size, skip_broken=config.skip_broken,
        cache_dir=config.cache_dir, memory_limit=int(config.memory_limit * 2**30),
    )  # fmt: skip


def load_splits(config: DataConfig, seed: int, *, augmented: bool = True) -> Splits:
    """The images that a configuration names, split.

    Args:
      config: the data settings.
      seed: of the split.
      augmented: add the perturbed set `augment_with` to train, where one is named.

    Raises:
      UsageError: a name, path or fraction is wrong.
      TFRobustError: the images cannot be read, or the perturbed set would leak into train.
    """
    splits = load(
        config.dataset,
        data_dir=config.data_dir,
        options=_options(config),
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


def sample(data: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """`limit` images at random (splits are ordered by class), or all; the order is kept."""
    if limit is None or limit >= len(data):
        return data
    return data.subset(np.sort(np.random.default_rng(seed).permutation(len(data))[:limit]))
