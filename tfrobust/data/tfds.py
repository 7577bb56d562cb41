"""Shared code of the data sets from TensorFlow Datasets (TFDS)."""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfrobust.data.archives import cache_folder
from tfrobust.data.decode_all import Item, collect
from tfrobust.data.download import Remote
from tfrobust.data.mapped import disk_errors
from tfrobust.data.types import RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError
from tfrobust.runtime import tf

_BATCH = 512


def remote(builder: Any) -> tuple[Remote, Path]:
    """The one file that a builder downloads, and where TFDS looks for it first."""
    ((url, info),) = builder.url_infos.items()
    folder = Path(builder.data_dir_root) / "downloads" / "manual"
    return Remote(url, int(info.size), info.checksum), folder / info.filename


def is_prepared(builder: Any) -> bool:
    """Whether a builder's data is on disk: TFDS moves the folder into place as its last step."""
    return Path(builder.data_dir).is_dir()


def prepared(make: Callable[[], Any]) -> Any:
    """A TFDS builder whose data is on disk: prepared now, unless done before.

    Args:
      make: creates the builder.

    Raises:
      TFRobustError: the data cannot be written.
    """
    builder = make()
    if is_prepared(builder):
        return builder
    try:
        # Standard output is for results; TFDS would print its progress there.
        with contextlib.redirect_stdout(sys.stderr):
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
            builder.download_and_prepare()
    except OSError as error:
        other = make()
        # TFDS cannot rename its folder over one that another process finished first.
        if is_prepared(other):
            return other
        raise TFRobustError(
            f"Expected to write the data set {builder.name} to {builder.data_dir_root}, found "
            f"'{error}': free some space or choose another folder (--data-dir, --cache-dir)."
        ) from error
    return builder


def read_prepared(
    builder: Any, name: str, options: ReadOptions, *, source: Path | None = None
) -> RawData:
    """Decodes the 'train' and 'test' splits of a prepared builder, in the order of names.

    Args:
      builder: a builder with the features 'image' and 'label'.
      name: the feature with the origin of an image.
      options: how to read.
      source: the user's own copy, which messages then name.

    Raises:
      TFRobustError: an image or the prepared files are broken, or the disk is full.
    """
    log = ReadLog()
    label_names = builder.info.features["label"].names
    folder = cache_folder(options)
    splits = [_items(builder, split, name, folder) for split in ("train", "test")]
    location = source or Path(builder.data_dir)
    train, test = collect(location, splits, label_names, options, log)
    return RawData(train, test, log)


def _items(builder: Any, split: str, name: str, folder: Path) -> list[Item]:
    """A split's images, still encoded, on disk: they may not fit into memory."""
    encoded = {"image": tfds.decode.SkipDecoding()}
    found = []
    with disk_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        try:
            # A few shards at a time, in batches: memory use does not grow with the data.
            # By default TFDS would cache what it has read in memory.
            reading = tfds.ReadConfig(try_autocache=False)
            data = builder.as_dataset(split=split, decoders=encoded, read_config=reading)
            for batch in tfds.as_numpy(data.batch(_BATCH).prefetch(2)):
                for where, image, label in zip(
                    batch[name], batch["image"], batch["label"], strict=True
                ):
                    found.append((where.decode(), file.tell(), file.write(image), int(label)))
        except tf.errors.OpError as error:
            raise TFRobustError(
                f"Expected the prepared data of {builder.name} in {builder.data_dir}, found files "
                f"missing or damaged ({type(error).__name__}): delete that folder and run again."
            ) from error
        file.flush()
        # The map outlives the file's name and handle; an empty file cannot be mapped.
        kept = np.memmap(file, np.uint8, "r") if found else np.empty(0, np.uint8)
    # TFDS shuffles while writing: by name, the order does not depend on its version.
    return [
        Item(where, functools.partial(_part, kept, begin, size), label)
        for where, begin, size, label in sorted(found)
    ]


def _part(kept: np.ndarray, begin: int, size: int) -> bytes:
    return kept[begin : begin + size].tobytes()
