"""Opens what a verb works on: a run folder or a bare model, and its images."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cli import given_settings, with_changes
from tfrobust.config import DataConfig, RunConfig
from tfrobust.data import ReadOptions, load
from tfrobust.data.types import ImageSet, Splits
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import RunFolder
from tfrobust.runtime import import_quietly, setup


@dataclass(frozen=True)
class Opened:
    """A model with the configuration and the folder that go with it.

    Attributes:
      model: Keras classifier, [0, 1] images -> logits.
      config: the run's, with the flags of this command laid over it.
      run: the run folder; for a bare model the folder that results go to.
      name: what reports call it.
    """

    model: Any
    config: RunConfig
    run: RunFolder
    name: str


def open_with_images(args: argparse.Namespace) -> tuple[Opened, Splits]:
    """What a verb works on, with TensorFlow settled and the seed set."""
    import_quietly()
    opened = open_model(args)
    setup(seed=opened.config.seed)
    return opened, load_splits(opened.config.data, opened.config.seed)


def open_model(args: argparse.Namespace) -> Opened:
    """The run folder or model file that a verb was given.

    Raises:
      UsageError: there is no such run or model, or a bare model without `--dataset`.
    """
    path = Path(args.model)
    given = given_settings(args)
    if path.is_dir():
        config = with_changes(RunFolder(path).read_config(), given)
        run = RunFolder(Path(args.output or path))
        run.create()
        return Opened(load_model(path), config, run, path.name)
    if "dataset" not in given.get("data", {}):
        raise UsageError(f"{path} is not a run folder: name its images with --dataset NAME|PATH.")
    output = Path(args.output or path.with_suffix(""))
    run = RunFolder(output)
    run.create()
    return Opened(load_model(path), with_changes(RunConfig(), given), run, path.name)


def load_model(path: Path) -> Any:
    """A Keras model from a run folder, or from a `.keras` or `.h5` file of tf_keras.

    Raises:
      UsageError: the file is missing.
      TFRobustError: it is not a model that legacy Keras can read.
    """
    path = RunFolder(path).best_model if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"Model {path} not found: expected a run folder with a trained model, or a .keras or "
            ".h5 file; train one with 'python -m pipelines.train'."
        )
    from tfrobust.runtime import keras

    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise TFRobustError(
            f"Model {path} cannot be read by tf_keras ({first}): expected a whole model saved by "
            "tf_keras as .keras or .h5."
        ) from error


def load_splits(config: DataConfig, seed: int) -> Splits:
    """The images that a configuration names, split."""
    options = ReadOptions(
        image_size=config.image_size, skip_broken=config.skip_broken, cache_dir=config.cache_dir
    )
    splits = load(
        config.dataset,
        data_dir=config.data_dir,
        options=options,
        select_fraction=config.select_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )
    train = sample(splits.train, config.limit_train, seed)
    return Splits(train, splits.select, splits.test, splits.log)


def sample(data: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """`limit` images at random (splits are ordered by class), or all; the order is kept."""
    if limit is None or limit >= len(data):
        return data
    return data.subset(np.sort(np.random.default_rng(seed).permutation(len(data))[:limit]))
