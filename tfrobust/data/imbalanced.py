"""An imbalanced data set file from a balanced one: the form in which hard tasks are distributed."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.io import write_bytes

#: Images in each of 10 classes of such a task: 424 in the first, 28,789 in the ninth.
COUNTS = (424, 8332, 21219, 3261, 6415, 13526, 4241, 409, 28789, 4268)


def imbalanced(data: ImageSet, counts: Sequence[int], seed: int) -> ImageSet:
    """Random images of each class in the proportions of `counts`, as many as available.

    Args:
      data: the images.
      counts: a positive number for each class, by label.
      seed: of the random selection.

    Returns:
      The images in random order; no image twice, at least one of each class.

    Raises:
      UsageError: `counts` does not match the classes, or a class has no image.
    """
    have = np.bincount(data.labels, minlength=len(data.label_names))
    if len(counts) != len(have) or min(counts) < 1 or have.min() < 1:
        raise UsageError(
            f"counts: expected {len(have)} numbers of at least 1, for classes with images, found "
            f"{', '.join(map(str, counts))}."
        )
    scale = min(1.0, *(there / count for there, count in zip(have, counts, strict=True)))
    generator = np.random.default_rng(seed)
    chosen = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(data.labels == label)
        chosen.append(generator.permutation(rows)[: max(1, round(count * scale))])
    return data.subset(generator.permutation(np.concatenate(chosen)))


def write_torch_file(data: ImageSet, path: Path, *, grey: float = 0.0, seed: int = 42) -> Path:
    """Writes images as `torch.save` would: a dict of `ids`, `imgs` (Pillow images), `labels`.

    Args:
      data: uint8 images.
      path: the .pt file; `torch.load(path, weights_only=False)` reads it, and so does
        `load` of this package.
      grey: share of the images stored as greyscale.
      seed: of the choice of greyscale images.

    Returns:
      `path`.

    Raises:
      TFRobustError: the images are not uint8, or the file cannot be written.
    """
    if data.images.dtype != np.uint8:
        raise TFRobustError(f"Expected uint8 images to write, found {data.images.dtype}.")
    lottery = np.random.default_rng(seed).random(len(data))
    content: dict[str, Any] = {
        "ids": list(range(len(data))),
        "imgs": [_image(pixels, draw < grey) for pixels, draw in zip(data.images, lottery,
                                                                     strict=True)],
        "labels": data.labels.tolist(),
        "classes": list(data.label_names),
    }  # fmt: skip
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickle.dumps(content, 2))
        archive.writestr(f"{path.stem}/byteorder", "little")
        archive.writestr(f"{path.stem}/version", "3\n")
    write_bytes(path, file.getvalue())
    return path


def _image(pixels: np.ndarray, grey: bool) -> Image.Image:
    image = Image.fromarray(pixels)
    return image.convert("L") if grey else image
