"""The embedded digits: real images, nothing to download."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfrobust.data.digits import read
from tfrobust.data.types import ReadOptions
from tfrobust.errors import UsageError


@pytest.fixture(scope="module")
def raw():
    return read(None, ReadOptions())


def test_all_digits_as_rgb(raw):
    assert raw.train.images.shape == (1797, 32, 32, 3)
    assert raw.train.images.dtype == np.uint8
    assert raw.train.labels.dtype == np.int32
    assert raw.train.label_names == tuple("0123456789")
    assert raw.test is None
    # Published counts: UCI's optdigits test set.
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(raw.train.labels).tolist() == counts


def test_grey_and_full_range(raw):
    images = raw.train.images
    assert np.array_equal(images[..., 0], images[..., 1])
    assert np.array_equal(images[..., 0], images[..., 2])
    # 16 levels of 255 / 16 each: level 0 is 0, level 16 is 255.
    assert (images.min(), images.max()) == (0, 255)
    assert np.array_equal(raw.train.pixels(), (images / 255).astype(np.float32))


def test_upscaling_keeps_the_picture(raw):
    # The means of 4x4 blocks give the original back, up to the filter's blur: nothing is
    # shifted, flipped or made brighter. (Shifted by one pixel, the correlation is 0.73.)
    blocks = raw.train.images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    original = load_digits().images * (255 / 16)
    assert np.corrcoef(blocks.ravel(), original.ravel())[0, 1] > 0.99
    assert abs((blocks - original).mean()) < 2


def test_image_size():
    assert read(None, ReadOptions(image_size=48)).train.image_shape == (48, 48, 3)


def test_log_tells_what_the_originals_are(raw):
    assert raw.log.sizes == {(8, 8): 1797}
    assert raw.log.modes == {"L": 1797}


def test_a_data_dir_is_refused():
    with pytest.raises(UsageError, match="found --data-dir /data: leave it out"):
        read(Path("/data"), ReadOptions())
