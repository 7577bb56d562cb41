"""The built-in default: handwritten digits, without a download."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from tfrobust.data.types import ImageSet, RawData, ReadLog, ReadOptions
from tfrobust.errors import UsageError

SIZE = 32
_LEVELS = 16


def read(location: Path | None, options: ReadOptions) -> RawData:
    """Reads scikit-learn's 1,797 handwritten digits as RGB images.

    The originals are 8x8 pixels of 17 grey levels, scanned on forms that 43 people
    filled in (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
    Digits", UCI Machine Learning Repository, 1998). There is no official split.

    Args:
      location: must be None: the images come with scikit-learn.
      options: `image_size` is the side to scale to, 32 by default.

    Raises:
      UsageError: a location was given.
    """
    if location is not None:
        raise UsageError(
            f"The data set 'digits' is built in and needs no files, found --data-dir {location}: "
            "leave it out, or name the data set with --dataset."
        )
    from sklearn.datasets import load_digits

    digits = load_digits()
    size = options.image_size or SIZE
    images = np.stack([_upscale(grey, size) for grey in digits.images])
    labels = digits.target.astype(np.int32)
    names = tuple(str(name) for name in digits.target_names)
    sources = tuple(f"digits[{i}]" for i in range(len(labels)))
    log = ReadLog(sizes=Counter({(8, 8): len(labels)}), modes=Counter({"L": len(labels)}))
    return RawData(ImageSet(images, labels, names, sources), None, log)


def _upscale(grey: np.ndarray, size: int) -> np.ndarray:
    """One digit of levels 0..16 as uint8 [size, size, 3]."""
    small = Image.fromarray(np.round(grey * (255 / _LEVELS)).astype(np.uint8))
    large = small.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(large.convert("RGB"))
