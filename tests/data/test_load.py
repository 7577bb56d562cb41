"""load(): a name or a path in, splits out; wrong use is told in one sentence."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tfrobust.data import DATASETS, FORMATS, load
from tfrobust.data.types import ReadOptions
from tfrobust.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    """Two classes of 10 images each: cats are dark, dogs are bright."""
    for name, level in (("cat", 10), ("dog", 240)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (level, level, i)).save(tmp_path / f"pets/{name}/{i}.png")
    return tmp_path / "pets"


def test_a_name():
    splits = load("digits")
    # A class of n images gives round(.2 n) to test and round(.1 of the rest) to select;
    # with the 178 to 183 of a class 35 to 37 and 14 to 15.
    assert (len(splits.train), len(splits.select), len(splits.test)) == (1295, 143, 359)


def test_a_path(folder):
    splits = load(str(folder), select_fraction=0.25, test_fraction=0.2)
    # Of 10 images test takes 2; of the 8 left select takes 2.
    for part, count in ((splits.train, 6), (splits.select, 2), (splits.test, 2)):
        assert np.bincount(part.labels).tolist() == [count, count]
        assert part.label_names == ("cat", "dog")
        assert ((part.images[..., 0] > 128) == part.labels[:, None, None]).all()


def test_an_npz_file(tmp_path):
    images = np.zeros((20, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "pets.npz", x=images, y=np.arange(20) % 2)
    assert len(load(str(tmp_path / "pets.npz")).test) == 4


def test_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(load("~/pets").test) == 4


def test_options_reach_the_reader(folder):
    assert load(str(folder), options=ReadOptions(image_size=16)).train.image_shape == (16, 16, 3)


def test_the_seed_decides(folder):
    names = [load(str(folder), seed=seed).test.names for seed in (42, 42, 1)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    "dataset, message",
    [
        ("digit", "expected one of digits, cifar10, tiny_imagenet, or the path"),
        ("/no/such/folder", "found no such name and no such path"),
    ],
)
def test_an_unknown_name_or_path(dataset, message):
    with pytest.raises(UsageError, match=message):
        load(dataset)


def test_an_unknown_format(tmp_path):
    (tmp_path / "pets.csv").write_text("")
    with pytest.raises(UsageError, match="expected a folder or a .zip, .npz.* found '.csv'"):
        load(str(tmp_path / "pets.csv"))


def test_a_data_dir_beside_a_path(folder):
    with pytest.raises(UsageError, match="is a path: expected --data-dir only with a built-in"):
        load(str(folder), data_dir="/data")


def test_tiny_imagenet_given_as_a_path(tmp_path):
    # Its val/ has no class folders: what the folder reader would say of it misleads.
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(b"")
    with pytest.raises(UsageError, match=f"--dataset tiny_imagenet --data-dir {tmp_path}"):
        load(str(tmp_path / "tiny-imagenet-200.zip"))


@pytest.mark.parametrize("name", ["select_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0, 1, -0.1, float("nan")])
def test_a_fraction_out_of_range(name, value):
    with pytest.raises(UsageError, match=f"{name}: expected a number between 0 and 1"):
        load("digits", **{name: value})


@pytest.mark.parametrize("table", [DATASETS, FORMATS])
def test_every_reader_is_there(table):
    for name in table:
        assert callable(table[name])


def test_the_package_is_light():
    # Help texts list the data sets: that must not import TensorFlow or a reader.
    code = (
        "import sys, tfrobust.data; print(sorted(set(sys.modules) & "
        "{'tensorflow', 'sklearn', 'PIL', 'matplotlib', 'tensorflow_datasets'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
