"""Published sets of corrupted images are read in their own layouts, as far as they are whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tfrobust.data.corruption_sets import labels_for, open_corruption_set
from tfrobust.errors import TFRobustError, UsageError

NAMES = ("gaussian_noise", "fog", "saturate")
SHAPE = (5, 4, 8, 8, 3)


def arrays(folder, names=NAMES, *, repeated=True):
    """As CIFAR-10-C: every pixel of an image says its severity and place."""
    folder.mkdir()
    values = np.arange(20).reshape(5, 4, 1, 1, 1) + np.zeros(SHAPE)
    for number, name in enumerate(names):
        np.save(
            folder / f"{name}.npy", (values + 100 * number).astype("uint8").reshape(20, 8, 8, 3)
        )
    y = np.array([0, 1, 2, 1])
    np.save(folder / "labels.npy", np.tile(y, 5) if repeated else y)
    return folder


def folders(folder, group="", names=NAMES, classes=("n01", "n02")):
    """As TinyImageNet-C, or, with a group, as ImageNet-C's archives unpack."""
    for number, name in enumerate(names):
        for severity in range(1, 6):
            for label, one in enumerate(classes):
                place = folder / group / name / str(severity) / one
                place.mkdir(parents=True)
                for k in range(2):
                    value = 100 * number + 10 * severity + 2 * label + k
                    pixels = np.full((8, 8, 3), value, np.uint8)
                    Image.fromarray(pixels).save(place / f"{k}.JPEG", quality=100)
    return folder


def read(found, name, severity, **given):
    parts = list(found.batches(name, severity, size=(8, 8), **given))
    return tuple(np.concatenate(one) for one in zip(*parts, strict=True))


@pytest.mark.parametrize("repeated", [True, False])
def test_arrays_by_severity(tmp_path, repeated):
    found = open_corruption_set(arrays(tmp_path / "C", repeated=repeated))
    assert found.names == NAMES and found.classes == ("0", "1", "2")
    for severity in range(1, 6):
        x, y = read(found, "fog", severity, batch_size=3)
        assert x.dtype == np.uint8 and y.tolist() == [0, 1, 2, 1]
        assert x[:, 0, 0, 0].tolist() == [100 + 4 * (severity - 1) + i for i in range(4)]
    assert labels_for(found, ["a", "b", "c"], 3).tolist() == [0, 1, 2]
    with pytest.raises(UsageError):
        labels_for(found, ["a", "b"], 2)


@pytest.mark.parametrize("group", ["", "noise"])
def test_files_by_severity_and_class(tmp_path, group):
    found = open_corruption_set(folders(tmp_path / "C", group))
    assert found.names == NAMES and found.classes == ("n01", "n02")
    x, y = read(found, "fog", 2, batch_size=3)
    assert y.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(x[:, 0, 0, 0], [120, 121, 122, 123], atol=1)
    (x, _) = next(found.batches("fog", 2, size=(4, 6)))
    assert x.shape == (4, 6, 4, 3)


def test_some_are_drawn_by_the_seed_the_same_of_every_corruption(tmp_path):
    found = open_corruption_set(arrays(tmp_path / "C"))
    drawn = [read(found, name, 1, limit=2, seed=seed)[0][:, 0, 0, 0] - 100 * place
             for place, name in enumerate(NAMES) for seed in (0, 0)]  # fmt: skip
    assert all(one.tolist() == drawn[0].tolist() for one in drawn) and len(drawn[0]) == 2


def test_labels_go_by_the_list_beside_by_name_or_in_order(tmp_path):
    found = open_corruption_set(folders(tmp_path / "C"))
    assert labels_for(found, ["0", "1"], 2).tolist() == [0, 1]
    assert labels_for(found, ["n02", "other", "n01"], 3).tolist() == [2, 0]
    with pytest.raises(UsageError, match="wnids"):
        labels_for(found, ["cat", "dog"], 2)
    (tmp_path / "C" / "wnids.txt").write_text("n02\nn01\n")
    assert labels_for(found, ["cat", "dog"], 2).tolist() == [1, 0]
    (tmp_path / "C" / "wnids.txt").write_text("n02\n")
    with pytest.raises(UsageError):
        labels_for(found, ["cat", "dog"], 2)


def test_what_is_no_whole_set_is_told(tmp_path):
    for wrong in ("none", "empty"):
        with pytest.raises(UsageError):
            open_corruption_set(tmp_path / wrong)
        (tmp_path / "empty").mkdir(exist_ok=True)
    missing = folders(tmp_path / "F", names=("fog",))
    for file in (missing / "fog" / "3").rglob("*.JPEG"):
        file.write_bytes(b"broken")
    with pytest.raises(TFRobustError):
        read(open_corruption_set(missing), "fog", 3)
    (missing / "fog" / "4").rename(missing / "fog" / "four")
    with pytest.raises(TFRobustError):
        open_corruption_set(missing)


@pytest.mark.parametrize("wrong", ["objects", "labels", "few", "floats", "truncated"])
def test_arrays_that_do_not_fit_are_told(tmp_path, wrong):
    folder = arrays(tmp_path / "C")
    if wrong == "objects":
        np.save(folder / "labels.npy", np.array([print, 1], object), allow_pickle=True)
    elif wrong == "labels":
        np.save(folder / "labels.npy", np.arange(20))  # differ by severity
    elif wrong == "few":
        np.save(folder / "fog.npy", np.zeros((15, 8, 8, 3), np.uint8))
    elif wrong == "floats":
        np.save(folder / "fog.npy", np.zeros((20, 8, 8, 3), np.float32))
    else:
        content = (folder / "fog.npy").read_bytes()
        (folder / "fog.npy").write_bytes(content[:200])
    with pytest.raises(TFRobustError):
        read(open_corruption_set(folder), "fog", 1)
