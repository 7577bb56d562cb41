"""Own images in .npz files: shapes, types and ranges, and every wrong one told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfrobust.data.arrays import read, read_plain
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
        ({"x": X / 2.0, "y": Y}, "expected uint8 .* or floats .*--pixel-range"),
        ({"x": X / 255 - 1, "y": Y}, "expected .* floats in .0, 1., found float64 over -1"),
        ({"x": X % 2, "y": Y}, "range over 0..1, .*--pixel-range 0,1"),
        ({"x": (X % 17).astype(np.uint16), "y": Y}, "uint16 pixels range over 0..16"),
        ({"x": np.moveaxis(X, 3, 1), "y": Y}, r"found \[4, 3, 5, 6\]: bring the axes"),
        ({"x": X[0], "y": Y[:1]}, "y: 1 labels for 5 images"),
        ({"x": X[:0], "y": Y[:0]}, "expected images of shape"),
        ({"x": X, "y": Y[:3]}, "y: 3 labels for 4 images"),
        ({"x": X, "y": np.eye(2)[Y] / 2}, r"expected labels .N. .* one-hot rows"),
        ({"x": X, "y": Y / 2.0}, "expected labels"),
        ({"x": X, "y": np.array(list("abac")), "classes": np.array(["a", "b"])}, "found 'c'"),
        ({"x": X, "images": X, "y": Y}, "x and images both look like the images"),
        ({"x": X, "y": Y + 1}, r"y\[1\]: label 2 is out of range 0..1"),
        ({"x": X, "y": Y - 1}, r"x\[0\]: label -1 is out of range 0..1"),
        ({"x": X, "y": Y * 0}, "at least two classes"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", "c"])}, "class 'c' has no"),
        ({"x": X, "y": Y, "classes": np.arange(2)}, "classes: expected a list of strings"),
        ({"x": X, "z": Y}, "found x without its labels"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "found x_test without its labels"),
        ({"x": X, "y": np.array([{}, 1, 2, 3], object)}, "npz.*Object arrays"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, arrays, message):
    with pytest.raises(TFRobustError, match=message) as caught:
        load(save(tmp_path, **arrays))
    assert "data.npz" in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    ["x_train,y_train,x_test,y_test", "X_train,Y_train,X_val,Y_val",
     "train_x,train_y,test_x,test_y",
     "train_images,train_labels,test_images,test_labels", "xtrain,ytrain,xtest,ytest",
     "images_train,targets_train,images_valid,targets_valid",
     "images,labels,val_images,val_labels"],
)  # fmt: skip
def test_the_usual_names_of_arrays(tmp_path, keys):
    arrays = dict(zip(keys.split(","), (X, Y, X[1:], Y[1:]), strict=True))
    path = save(tmp_path, **arrays)
    raw = load(path)
    assert np.array_equal(raw.train.images, X) and raw.test.labels.tolist() == Y[1:].tolist()
    tested, _ = read_plain(path)
    assert np.array_equal(tested.images, X[1:]) and tested.labels.tolist() == Y[1:].tolist()


def test_arrays_without_names_and_without_train(tmp_path):
    np.savez(tmp_path / "a.npz", X, Y)
    assert load(tmp_path / "a.npz").train.labels.tolist() == Y.tolist()
    raw = load(save(tmp_path, x_test=X, y_test=Y))
    assert raw.test is None and len(raw.train) == 4 and "no train" in raw.log.notes[0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.eye(2)[Y], [0, 1, 1, 0]),
        (np.eye(2, dtype=bool)[Y], [0, 1, 1, 0]),
        (Y.astype(np.float32), [0, 1, 1, 0]),
        (Y.astype(np.float64)[:, None], [0, 1, 1, 0]),
        (np.array(["dog", "cat", "dog", "cat"]), [1, 0, 1, 0]),
        (np.array([b"9", b"10", b"9", b"9"]), [0, 1, 0, 0]),
    ],
)
def test_labels_of_other_forms_are_taken_and_told(tmp_path, labels, expected):
    path = save(tmp_path, x=X, y=labels)
    tested, log = read_plain(path)
    assert load(path).train.labels.tolist() == tested.labels.tolist() == expected and log.notes


@pytest.mark.parametrize(
    ("pixels", "given"),
    [
        (X.astype(np.int64), None),
        (X.astype(np.float32), None),
        (X.astype(np.uint16) * np.uint16(257), None),
        (X / 127.5 - 1, (-1.0, 1.0)),
        (X / 100.0, (0.0, 2.55)),
    ],
)
def test_pixels_of_other_types_and_ranges(tmp_path, pixels, given):
    path = save(tmp_path, x=pixels, y=Y)
    raw = load(path, pixel_range=given)
    tested, log = read_plain(path, ReadOptions(pixel_range=given))
    assert np.array_equal(raw.train.images, X) and raw.log.notes and log.notes
    np.testing.assert_allclose(tested.pixels(slice(None)), X / 255, atol=1e-6)


def test_dark_bytes_are_scaled_where_their_range_is_given(tmp_path):
    path = save(tmp_path, x=X % 17, y=Y)
    tested, _ = read_plain(path, ReadOptions(pixel_range=(0, 16)))
    np.testing.assert_allclose(tested.pixels(slice(None)), (X % 17) / 16, atol=1e-6)
    with pytest.raises(TFRobustError, match="expected pixels in 0..8"):
        read_plain(path, ReadOptions(pixel_range=(0, 8)))


def test_channels_first_is_moved_where_it_is_beyond_doubt(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (4, 9, 12, 3)).astype("uint8")
    path = save(tmp_path, x=np.moveaxis(wide, 3, 1), y=Y)
    assert np.array_equal(load(path).train.images, wide)
    assert np.array_equal(read_plain(path)[0].images, wide)


@pytest.mark.parametrize(("found", "wanted"), [(1, 1), (1, 3), (3, 1)])
def test_grey_and_colour_as_the_model_takes_them(tmp_path, found, wanted):
    path = save(tmp_path, x=X[..., :found], y=Y)
    images = read_plain(path, ReadOptions(channels=wanted))[0].images
    assert images.shape == (4, 5, 6, wanted)
    if found == 1:
        assert all(np.array_equal(images[..., k], X[..., 0]) for k in range(wanted))


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
    with pytest.raises(TFRobustError, match="x.npz"):
        load(tmp_path / "x.npz")


def test_real_arrays(shared_data):
    path = shared_data / "reference" / "cifar10_test_500.npz"
    raw = load(path)
    with np.load(path) as saved:
        assert np.array_equal(raw.train.images, saved["x"])
        assert raw.train.labels.tolist() == saved["y"].tolist()
        assert raw.train.label_names == tuple(saved["classes"])
