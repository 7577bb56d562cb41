"""Any image classification data set of TensorFlow Datasets, by its name."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfrobust.data.archives import cache_folder
from tfrobust.data.decode_all import Item, collect
from tfrobust.data.mapped import disk_errors
from tfrobust.data.tfds import prepared
from tfrobust.data.types import RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError, UsageError, first_line

_TRAIN, _TEST = ("train",), ("test", "validation", "val", "valid")


def read(name: str, location: Path | None, options: ReadOptions) -> RawData:
    """Reads a data set of TFDS, downloaded and prepared now unless done before.

    Args:
      name: as for `tfds.load`: 'mnist', 'imagenette/160px-v2', 'cifar100:3.0.2'.
      location: TFDS's data folder (`data_dir`), perhaps with the prepared data; None is TFDS's own.
      options: how to read.

    Raises:
      UsageError: TFDS has no such data set, or it does not consist of images with one label each.
      TFRobustError: it cannot be prepared or read.
    """
    data_dir = str(location) if location is not None else None
    try:
        builder = prepared(lambda: tfds.builder(name, data_dir=data_dir))
    except (tfds.core.DatasetNotFoundError, ValueError, ImportError) as error:
        first = first_line(error)
        raise UsageError(f"tfds:{name}: TensorFlow Datasets says {first}") from error
    except Exception as error:  # a download may fail in any way
        first = first_line(error)
        raise TFRobustError(
            f"tfds:{name} cannot be prepared ({first}): give the folder of a prepared copy with "
            "--data-dir."
        ) from error
    image, label = _features(name, builder)
    train, test = _splits(name, builder)
    log, folder = ReadLog(), cache_folder(options)
    names = [str(one) for one in builder.info.features[label].names]
    parts = [_items(builder, split, image, label, folder) for split in (train, test) if split]
    found = collect(Path(builder.data_dir), parts, names, options, log)
    if test and test != "test":
        log.notes.append(f"{test} is used as the test split, as there is no test")
    return RawData(found[0], found[1] if test else None, log)


def _features(name: str, builder: Any) -> tuple[str, str]:
    """The names of the image feature and of its label."""
    features = builder.info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    labels = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
    for found, preferred in ((images, "image"), (labels, "label")):
        if preferred in found:
            found[:] = [preferred]
    if len(images) != 1 or len(labels) != 1:
        raise UsageError(
            f"tfds:{name}: expected one image and one class label, found features "
            f"{', '.join(features)}."
        )
    return images[0], labels[0]


def _splits(name: str, builder: Any) -> tuple[str, str | None]:
    known = list(builder.info.splits)
    train = next((one for one in _TRAIN if one in known), known[0] if len(known) == 1 else None)
    if train is None:
        raise UsageError(f"tfds:{name}: expected a split 'train', found {', '.join(known)}.")
    return train, next((one for one in _TEST if one in known and one != train), None)


def _items(builder: Any, split: str, image: str, label: str, folder: Path) -> list[Item]:
    """A split's images, still encoded, in a file: they may not fit into memory."""
    found: list[tuple[int, int, int]] = []
    with disk_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        reading = tfds.ReadConfig(try_autocache=False)
        decoders = {image: tfds.decode.SkipDecoding()}
        data = builder.as_dataset(split=split, decoders=decoders, read_config=reading)
        for one in tfds.as_numpy(data.prefetch(64)):
            found.append((file.tell(), file.write(one[image]), int(one[label])))
        file.flush()
        kept = np.memmap(file, np.uint8, "r") if found else np.empty(0, np.uint8)
    return [
        Item(f"{split}[{place}]", functools.partial(_part, kept, begin, size), value)
        for place, (begin, size, value) in enumerate(found)
    ]


def _part(kept: np.ndarray, begin: int, size: int) -> bytes:
    return kept[begin : begin + size].tobytes()
