"""CIFAR-10: read where TFDS has prepared it; without a connection, one sentence, soon."""

import io
import os
import pickle
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.checksums import compute_url_info

from tfrobust.data.cifar10 import read
from tfrobust.data.cifar10_files import find
from tfrobust.data.tfds import remote
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError

NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
PER_FILE = 20


def record(label, image):
    """One image of the binary format: a byte of label, then the planes R, G, B."""
    return bytes([label]) + image.transpose(2, 0, 1).tobytes()


@pytest.fixture(scope="module")
def archive():
    """A small archive in the format of the original, and its training images in order."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6 * PER_FILE, 32, 32, 3), np.uint8)
    labels = np.arange(6 * PER_FILE) % 10
    files = {"batches.meta.txt": "\n".join(NAMES).encode()}
    for i, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        part = range(i * PER_FILE, (i + 1) * PER_FILE)
        files[name] = b"".join(record(labels[k], images[k]) for k in part)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue(), images, labels


def place(folder, content):
    """Puts an archive where TFDS looks before it downloads; returns the builder's class."""
    builder = tfds.builder("cifar10", data_dir=folder)
    _, path = remote(builder)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return type(builder), path


def test_prepares_and_reads_again_what_tfds_prepared(tmp_path, archive, monkeypatch):
    content, images, labels = archive
    builder, path = place(tmp_path, content)
    # TFDS is told that the small archive is the original.
    ((url, _),) = builder.url_infos.items()
    own = compute_url_info(path)
    monkeypatch.setattr(builder, "url_infos", {url: own})
    for _ in range(2):
        raw = read(tmp_path, ReadOptions())
        assert raw.train.label_names == tuple(NAMES)
        # Ids count from train_00000 in the order of the files.
        assert raw.train.names[:2] == ("train_00000", "train_00001")
        assert np.array_equal(raw.train.images, images[:100])
        assert np.array_equal(raw.train.labels, labels[:100])
        assert np.array_equal(raw.test.images, images[100:])
        assert raw.log.sizes == {(32, 32): 120}
        path.unlink(missing_ok=True)  # the second time, only what TFDS prepared is there


def test_without_a_connection(tmp_path, monkeypatch):
    # A proxy on a closed port of this machine: no name is looked up, nothing answers.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(TFRobustError) as error:
        read(tmp_path, ReadOptions())
    assert time.monotonic() - start < 10
    message = str(error.value)
    assert "Expected to download https://www.cs.toronto.edu/~kriz/cifar-10" in message
    assert "Connection refused" in message
    assert f"{tmp_path}/downloads/manual/cifar-10-binary.tar.gz" in message
    assert "give a folder or zip of images with --dataset PATH" in message


def test_a_wrong_archive_is_refused(tmp_path, archive):
    _, path = place(tmp_path, archive[0])
    with pytest.raises(TFRobustError, match=f"170,052,171 bytes .* found .* in {path}"):
        read(tmp_path, ReadOptions())
    assert path.exists()


def pickled(images, labels):
    """A batch of the Python version, as Python 2 wrote it: protocol 2, strings as bytes."""
    data = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return pickle.dumps({"data": data, "labels": [int(k) for k in labels]}, protocol=2)


def written(folder, archive, kind):
    """The archive's images under `folder`, in one of the forms that people have."""
    content, images, labels = archive
    if kind == "binary archive":
        path = folder / "cifar-10-binary.tar.gz"
        path.write_bytes(content)
        return path
    if kind == "binary folder":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(folder, filter="data")
        return folder / "cifar-10-batches-bin"
    if kind == "python archive":
        path = folder / "cifar-10-python.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
                part = slice(i * PER_FILE, (i + 1) * PER_FILE)
                batch = pickled(images[part], labels[part])
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(batch)
                tar.addfile(info, io.BytesIO(batch))
        return path
    for i, label in enumerate(labels):
        part = "train" if i < 100 else "test"
        file = folder / "images" / part / NAMES[label] / f"{i:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(file)
    if kind == "zip":
        return Path(shutil.make_archive(str(folder / "all"), "zip", folder / "images"))
    return folder / "images"


@pytest.mark.parametrize(
    "kind", ["binary archive", "binary folder", "python archive", "zip", "folder"]
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_copy_of_ones_own_is_taken(tmp_path, archive, kind, inside):
    place = tmp_path / "copy"
    place.mkdir()
    path = written(place, archive, kind)
    if inside and kind == "zip":
        pytest.skip("a folder with a zip in it says nothing")
    location = path.parent if inside and kind != "folder" else path
    raw = read(location, ReadOptions(cache_dir=str(tmp_path / "cache")))
    _, images, labels = archive
    assert raw.train.label_names == tuple(NAMES)
    assert sorted(raw.train.labels.tolist()) == sorted(labels[:100].tolist())
    # Whatever the order: the same images with the same labels.
    for split, part in ((raw.train, slice(0, 100)), (raw.test, slice(100, 120))):
        expected = {images[part][i].tobytes(): int(labels[part][i]) for i in range(len(split))}
        found = {x.tobytes(): int(y) for x, y in zip(split.images, split.labels, strict=True)}
        assert found == expected


def test_a_folder_of_tfds_is_left_to_tfds(tmp_path, archive):
    place(tmp_path, archive[0])
    assert find(tmp_path) is None


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def test_other_files_and_hostile_pickles_are_refused(tmp_path, archive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.bin").write_text("nothing")
    other = tmp_path / "other"
    for name in ("cat", "truck"):
        (other / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(other / name / "a.png")
    cut = written(tmp_path, archive, "binary folder")
    (cut / "data_batch_3.bin").write_bytes(b"\0" * 100)
    bad = tmp_path / "pickles"
    bad.mkdir()
    for k in range(1, 6):
        (bad / f"data_batch_{k}").write_bytes(pickle.dumps(Hostile()))
    (bad / "test_batch").write_bytes(b"")
    for location in (tmp_path / "text.bin", other, cut, bad):
        with pytest.raises(TFRobustError, match=str(location)):
            read(location, ReadOptions(cache_dir=str(tmp_path / "cache")))
    assert not (tmp_path / "hostile").exists()
