"""Data loading: a name or a path -> `Splits` (train, select, test) of decoded images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.data.types import ReadOptions, Splits
from tfrobust.errors import UsageError
from tfrobust.tables import Table

if TYPE_CHECKING:
    from tfrobust.data.types import ImageSet, RawData, ReadLog

__all__ = [
    "DATASETS", "FORMATS", "ReadOptions", "Splits", "load", "load_all", "read_all", "with_channels",
]  # fmt: skip

#: Built-in data sets: name -> read(location: Path | None, options) -> RawData.
DATASETS: Table[Callable[[Path | None, ReadOptions], Any]] = Table(
    "data set",
    {
        "digits": "tfrobust.data.digits:read",
        "cifar10": "tfrobust.data.cifar10:read",
        "tiny_imagenet": "tfrobust.data.tiny_imagenet.reader:read",
    },
    "tfrobust.datasets",
)

#: Prefix of the names of image classification data sets of TensorFlow Datasets.
TFDS = "tfds:"

#: Users' own images: kind of path -> read(location: Path, options) -> RawData.
FORMATS: Table[Callable[[Path, ReadOptions], RawData]] = Table(
    "image format",
    {
        "folder": "tfrobust.data.folder:read",
        ".zip": "tfrobust.data.folder:read",
        ".npz": "tfrobust.data.arrays:read",
        ".pt": "tfrobust.data.torch_file:read",
        ".pth": "tfrobust.data.torch_file:read",
    },
)


def load(
    dataset: str,
    *,
    data_dir: str | None = None,
    options: ReadOptions | None = None,
    select_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 42,
) -> Splits:
    """Reads a data set and splits it.

    Args:
      dataset: a name in `DATASETS`; 'tfds:NAME[/CONFIG]', any image classification data set of
        TensorFlow Datasets; 'package.module:function', a user's own reader, called as
        ``read(location, options)``, which may return (images, labels); or the path of a folder,
        .zip, .npz or .pt file. A name takes precedence over a path: write './digits' for a
        folder of that name.
      data_dir: the folder of a built-in data set's files, or where to download them.
      options: how to read; None is the defaults of `ReadOptions`.
      select_fraction: share of train reserved for model selection, in (0, 1).
      test_fraction: share used for test if the source has no test split, in (0, 1).
      seed: the same seed gives the same split.

    Returns:
      Disjoint, stratified `Splits`; an official test split is kept as 'test'.

    Raises:
      UsageError: the name or path is unknown, or a fraction is out of range.
      TFRobustError: the data cannot be read.

    Examples:
      >>> splits = tr.load("digits")
      >>> len(splits.train), len(splits.select), len(splits.test)
      (1295, 143, 359)
    """
    for name, value in (("select_fraction", select_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise UsageError(f"{name}: expected a number between 0 and 1, found {value}.")
    from tfrobust.data.split import split

    options = options or ReadOptions()
    raw = _read(dataset, data_dir, options)
    return split(
        raw, options, select_fraction=select_fraction, test_fraction=test_fraction, seed=seed
    )


def load_all(path: str, options: ReadOptions | None = None) -> ImageSet:
    """All images of a file or folder, for evaluating a model; no split is made.

    If the source has a test split, only that is returned. An .npz file may contain images of only
    some of the model's classes, and floats are kept unchanged.

    Args:
      path: of a folder, .zip, .npz or .pt file.
      options: how to read; None is the defaults of `ReadOptions`.

    Raises:
      UsageError: the path does not exist, or is of an unknown kind.
      TFRobustError: the data cannot be read.
    """
    return read_all(path, options)[0]


def read_all(path: str, options: ReadOptions | None = None) -> tuple[ImageSet, ReadLog]:
    """As `load_all`, with the log of what was found while reading."""
    from tfrobust.data.arrays import read_plain

    options = options or ReadOptions()
    if Path(path).suffix.lower() == ".npz" and Path(path).is_file() and not options.image_size:
        return read_plain(Path(path).expanduser(), options)
    raw = _read(path, None, options)
    images = raw.train if raw.test is None else raw.test
    return with_channels(images, options.channels), raw.log


def with_channels(data: ImageSet, channels: int | None) -> ImageSet:
    """The images converted to grey or RGB, if they have another number of channels."""
    from tfrobust.data.images import as_channels
    from tfrobust.data.mapped import convert

    if channels is None or data.images.shape[3] == channels:
        return data
    images = convert(data.images, lambda rows: as_channels("the images", rows, channels))
    return dataclasses.replace(data, images=images)


def _read(dataset: str, data_dir: str | None, options: ReadOptions) -> RawData:
    location = Path(data_dir).expanduser() if data_dir is not None else None
    if dataset.startswith(TFDS):
        from tfrobust.data.tfds_sets import read

        return read(dataset.removeprefix(TFDS), location, options)
    if dataset in DATASETS:
        return _as_raw(dataset, DATASETS[dataset](location, options))
    path = Path(dataset).expanduser()
    if not path.exists():
        raise UsageError(
            f"Data set {dataset!r}: expected one of {', '.join(DATASETS)}, or the path of a "
            f"folder or {', '.join(list(FORMATS)[1:])} file, found no such name and no such path."
        )
    if data_dir is not None:
        raise UsageError(
            f"Data set {dataset!r} is a path: expected --data-dir only with a built-in data set "
            f"({', '.join(DATASETS)}), found {data_dir!r}: leave it out."
        )
    if path.stem == "tiny-imagenet-200" and _is_official_tiny_imagenet(path):
        raise UsageError(
            f"Data set {dataset!r}: expected a folder or file of your own, found Tiny ImageNet: "
            f"write --dataset tiny_imagenet --data-dir {dataset}."
        )
    return _in_range(path, FORMATS[_format(path)](path, options), options)


def _as_raw(dataset: str, found: Any) -> RawData:
    """A reader's result; a user's own reader may return only images and labels."""
    from tfrobust.data.in_memory import images_in_memory
    from tfrobust.data.types import RawData, ReadLog

    if isinstance(found, RawData):
        return found
    try:
        return RawData(images_in_memory(found, None, None, ReadOptions()), None, ReadLog())
    except UsageError as error:
        raise UsageError(f"Data set {dataset!r}: {error}") from error


def _is_official_tiny_imagenet(path: Path) -> bool:
    """Whether it has the layout of the official archive, not one folder per class."""
    from tfrobust.data.tiny_imagenet.layout import locate

    return locate(path) is not None


def _in_range(path: Path, raw: RawData, options: ReadOptions) -> RawData:
    """Images scaled to the given pixel range, if any; rejects nearly black images."""
    from tfrobust.data.pixels import reject_dark, scaled

    if options.pixel_range is None:
        reject_dark(str(path), raw.train.images)
        return raw
    # Arrays were scaled before they were decoded; the range of files is only known now.
    if path.suffix.lower() == ".npz":
        return raw

    def scale(part: ImageSet) -> ImageSet:
        pixels = scaled(str(path), part.images, options.pixel_range, raw.log)
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels * 255).astype(np.uint8)
        return dataclasses.replace(part, images=pixels)

    return RawData(scale(raw.train), raw.test and scale(raw.test), raw.log)


def _format(path: Path) -> str:
    """The key in `FORMATS` for an existing path."""
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind not in FORMATS:
        raise UsageError(
            f"Data set {str(path)!r}: expected a folder or a "
            f"{', '.join(list(FORMATS)[1:])} file, found {kind or 'a file without a suffix'!r}."
        )
    return kind
