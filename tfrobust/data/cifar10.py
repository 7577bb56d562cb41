"""CIFAR-10 through TensorFlow Datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfrobust.data import cifar10_files
from tfrobust.data.download import fetch
from tfrobust.data.tfds import is_prepared, prepared, read_prepared, remote
from tfrobust.data.types import RawData, ReadOptions


def read(location: Path | None, options: ReadOptions) -> RawData:
    """Reads CIFAR-10: 50,000 train and 10,000 test images of 32x32 pixels, 10 classes.

    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
      location: the user's own copy (the original archive, its unpacked files, or a folder or zip
        of images), or the TFDS data folder with the prepared data or to download to; None is
        TFDS's own (`TFDS_DATA_DIR` or ~/tensorflow_datasets).
      options: how to read.

    Raises:
      TFRobustError: the data is neither present nor can it be downloaded.
    """
    if location is not None and (own := cifar10_files.find(location)):
        return cifar10_files.read(own, options)

    def make() -> Any:
        return tfds.builder("cifar10", data_dir=location)

    builder = make()
    if not is_prepared(builder):
        # TFDS's own download retries for minutes without a connection, and cannot resume.
        fetch(*remote(builder), otherwise="give a folder or zip of images with --dataset PATH")
    return read_prepared(prepared(make), "id", options)
