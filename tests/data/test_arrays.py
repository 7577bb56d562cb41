"""Own images in .npz files: shapes, types and ranges, and every wrong one told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfrobust.data.arrays import read
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError

X = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3)
Y = np.array([0, 1, 1, 0])


def save(folder: Path, **arrays: object) -> Path:
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return folder / "data.npz"


def load(location: Path, **options: object):
    return read(location, ReadOptions(**options))  # type: ignore[arg-type]


def test_images_and_labels_are_kept_as_they_are(tmp_path):
    raw = load(save(tmp_path, x=X, y=Y))
    assert np.array_equal(raw.train.images, X) and raw.train.labels.tolist() == [0, 1, 1, 0]
    assert raw.test is None and raw.train.label_names == ("0", "1")
    assert raw.train.names[2] == "x[2]" and raw.log.sizes == {(6, 5): 4}


def test_a_split_and_names(tmp_path):
    names = np.array(["cat", "dog"])
    raw = load(
        save(tmp_path, x_train=X, y_train=Y[:, None], x_test=X[:1], y_test=Y[:1], classes=names)
    )
    assert len(raw.train) == 4 and len(raw.test) == 1
    assert raw.test.label_names == ("cat", "dog")


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1)])
def test_grey_images_become_rgb(tmp_path, shape):
    grey = X[..., 0].reshape(shape)
    images = load(save(tmp_path, x=grey, y=Y)).train.images
    assert all(np.array_equal(images[..., channel], X[..., 0]) for channel in range(3))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_in_0_1_are_scaled(tmp_path, kind):
    images = load(save(tmp_path, x=(X / 255).astype(kind), y=Y)).train.images
    # float16 keeps eleven bits, so its error stays far below half of 1/255.
    assert np.array_equal(images, X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X.astype(np.float32), "y": Y}, "expected floats in .0, 1., found 0..255: scale"),
        ({"x": X / 255 - 1, "y": Y}, "expected floats in .0, 1., found -1"),
        ({"x": X.astype(np.int64), "y": Y}, "found int64: convert"),
        ({"x": np.moveaxis(X, 3, 1), "y": Y}, r"found \[4, 3, 5, 6\]: bring the axes"),
        ({"x": X[0], "y": Y[:1]}, "y: 1 labels for 5 images"),
        ({"x": X[:0], "y": Y[:0]}, "expected images of shape"),
        ({"x": X, "y": Y[:3]}, "y: 3 labels for 4 images"),
        ({"x": X, "y": np.eye(2)[Y]}, "expected integer labels.*argmax"),
        ({"x": X, "y": Y / 1.0}, "expected integer labels"),
        ({"x": X, "y": Y + 1}, r"y\[1\]: label 2 is out of range 0..1"),
        ({"x": X, "y": Y - 1}, r"x\[0\]: label -1 is out of range 0..1"),
        ({"x": X, "y": Y * 0}, "at least two classes"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", "c"])}, "class 'c' has no sound"),
        ({"x": X, "y": Y, "classes": np.arange(2)}, "classes: expected a list of strings"),
        ({"x": X, "z": Y}, "found x: name"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "found x_test, x_train, y_train"),
        ({"x": X, "y": np.array([{}, 1, 2, 3], object)}, "not a sound .npz.*Object arrays"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, arrays, message):
    with pytest.raises(TFRobustError, match=message) as caught:
        load(save(tmp_path, **arrays))
    assert "data.npz" in str(caught.value)


def test_labels_out_of_a_named_range_and_nan_are_skipped_on_demand(tmp_path):
    x = X / 255
    x[3, 0, 0, 0] = np.nan
    path = save(tmp_path, x=x, y=np.array([0, 7, 1, 0]), classes=np.array(["a", "b"]))
    with pytest.raises(TFRobustError, match=r"x\[1\]: label 7 is out of range 0..1"):
        load(path)
    raw = load(path, skip_broken=True)
    assert raw.train.labels.tolist() == [0, 1] and len(raw.log.skipped) == 2


def test_other_arrays_are_never_opened(tmp_path):
    raw = load(save(tmp_path, x=X, y=Y, meta=np.array([{}], object)))
    assert len(raw.train) == 4


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4 cut off", b"\x80\4N."])
def test_what_is_no_npz_is_told(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(TFRobustError, match="not a sound .npz"):
        load(tmp_path / "x.npz")


def test_real_arrays(shared_data):
    path = shared_data / "reference" / "cifar10_test_500.npz"
    raw = load(path)
    with np.load(path) as saved:
        assert np.array_equal(raw.train.images, saved["x"])
        assert raw.train.labels.tolist() == saved["y"].tolist()
        assert raw.train.label_names == tuple(saved["classes"])
