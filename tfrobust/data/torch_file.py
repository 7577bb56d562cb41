"""Users' own images: a data set object saved by torch, read without torch or executing it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfrobust.data.archives import open_zip
from tfrobust.data.arrays import as_labels, label_names
from tfrobust.data.decode_all import Item, collect
from tfrobust.data.images import Source, reason
from tfrobust.data.pickle_tree import Call, Record
from tfrobust.data.torch_archive import TorchArchive, kind
from tfrobust.data.types import RawData, ReadLog, ReadOptions
from tfrobust.errors import TFRobustError

# Attributes in which data sets keep their images, labels and class names.
_IMAGES = ("imgs", "images", "data", "x")
_LABELS = ("labels", "targets", "y")
_CLASSES = ("classes", "label_names")


def read(location: Path, options: ReadOptions) -> RawData:
    """Reads the images and labels of a data set that `torch.save` wrote.

    The file contains an object of any class (or a dict) with images in ``imgs``, ``images``,
    ``data`` or ``x``; labels in ``labels``, ``targets`` or ``y``; and, optionally, ``ids`` and
    the class names in ``classes`` or ``label_names``. Images are Pillow images, arrays or tensors
    ([H, W], [H, W, C] or [C, H, W]), in a list or stacked; uint8 or floats in [0, 1]. Labels are
    integers, arrays or tensors.

    Nothing that the file names is imported, built or called: its pickle is read as data by
    `pickle_tree`, and images are built from the plain values found there.

    Args:
      location: a .pt or .pth file in torch's zip format (torch 1.6 or later).
      options: sizes, limits, and how to handle broken images and labels.

    Raises:
      TFRobustError: the file is rejected, broken, or has another format or content; lengths
        differ; or an image or label is broken.
    """
    log = ReadLog()
    with _open(location) as packed:
        archive = TorchArchive(location, packed)
        fields = _fields(location, archive.tree)
        images = _openers(location, archive, _field(location, fields, _IMAGES))
        if not images:
            raise TFRobustError(
                f"{location}: expected images, found none: save some of each class."
            )
        labels, _ = as_labels(
            f"{location}: labels",
            _labels(location, archive, _field(location, fields, _LABELS)),
            len(images),
        )
        names = label_names(f"{location}: labels", labels, _class_names(fields))
        ids = _ids(location, fields, len(images))
        items = [
            Item(f"image {i}{ids[i]}", image, label)
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        return RawData(collect(location, [items], names, options, log)[0], None, log)


def _open(location: Path) -> zipfile.ZipFile:
    try:
        with open(location, "rb") as file:
            magic = file.read(2)
    except OSError as error:
        raise TFRobustError(
            f"{location} cannot be read ({error.strerror}): check its path and permissions."
        ) from error
    if magic != b"PK":
        raise TFRobustError(
            f"{location} is not in torch's zip format (torch 1.6 or later): load it where it was "
            "made, with a current torch, and write it again with torch.save."
        )
    return open_zip(location)


def _fields(location: Path, tree: Any) -> dict[Any, Any]:
    state = tree.state if isinstance(tree, Record) else tree
    if not isinstance(state, dict):
        raise TFRobustError(
            f"{location}: expected an object or a dict with imgs and labels, found a "
            f"{kind(tree)}: save such an object with torch.save."
        )
    return state


def _field(location: Path, fields: dict[Any, Any], names: Sequence[str]) -> Any:
    for name in names:
        if name in fields:
            return fields[name]
    found = ", ".join(str(name)[:40] for name in list(fields)[:9]) or "none"
    raise TFRobustError(
        f"{location}: expected an attribute {' or '.join(names)}, found {found}: "
        "rename it and save the object again."
    )


def _openers(location: Path, archive: TorchArchive, images: Any) -> list[Callable[[], Source]]:
    """Functions that open each image: individually, or as slices of one stacked array."""
    if isinstance(images, list | tuple):
        return [partial(_image, archive, node) for node in images]
    try:
        stacked = archive.value(images)
    except Exception as error:
        raise TFRobustError(
            f"{location}: expected the images in a list, an array or a tensor, found "
            f"{reason(error)}: save them in one of these."
        ) from error
    if not isinstance(stacked, np.ndarray) or stacked.ndim not in (3, 4):
        raise TFRobustError(f"{location}: expected stacked images with 3 or 4 axes.")
    return [partial(_channels_last, image, _is_tensor(images)) for image in stacked]


def _image(archive: TorchArchive, node: Any) -> Source:
    image = archive.value(node)
    if isinstance(image, Image.Image):
        return image
    return _channels_last(image, _is_tensor(node))


def _is_tensor(node: Any) -> bool:
    return isinstance(node, Call) and node.function.module.startswith("torch")


def _channels_last(image: np.ndarray, tensor: bool) -> np.ndarray:
    """[C, H, W] as [H, W, C]; if both fit, a tensor counts as the former."""
    if image.ndim != 3:
        return image
    first, last = image.shape[0] in (1, 3, 4), image.shape[2] in (1, 3, 4)
    return np.moveaxis(image, 0, 2) if first and (tensor or not last) else image


def _labels(location: Path, archive: TorchArchive, labels: Any) -> Any:
    if not isinstance(labels, list | tuple):
        return _label(location, archive, "labels", labels)
    return [
        int(_label(location, archive, f"labels[{row}]", label, single=True))
        for row, label in enumerate(labels)
    ]


def _label(
    location: Path, archive: TorchArchive, where: str, node: Any, *, single: bool = False
) -> Any:
    if single and type(node) is int:
        return node
    try:
        if not isinstance(node, Call):
            raise ValueError(f"a {kind(node)}")
        found = np.asarray(archive.value(node))
        if single and (found.size != 1 or found.dtype.kind not in "iu"):
            raise ValueError(f"{found.dtype} of shape {list(found.shape)}")
        return found.item() if single else found
    except Exception as error:
        raise TFRobustError(
            f"{location}: {where}: expected {'an integer' if single else 'integers'}, found "
            f"{reason(error)}: store the index of the class."
        ) from error


def _class_names(fields: dict[Any, Any]) -> list[str] | None:
    for name in _CLASSES:
        names = fields.get(name)
        if isinstance(names, list | tuple) and all(type(one) is str for one in names):
            return list(names)
    return None


def _ids(location: Path, fields: dict[Any, Any], count: int) -> list[str]:
    """Suffixes of the images' names; ids other than numbers or strings give none."""
    ids = fields.get("ids")
    if not isinstance(ids, list | tuple):
        return [""] * count
    if len(ids) != count:
        raise TFRobustError(
            f"{location}: {len(ids):,} ids for {count:,} images: store one id per image."
        )
    return [f" (id {str(one)[:80]})" if type(one) in (int, str) else "" for one in ids]
