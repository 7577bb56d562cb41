"""Tiny ImageNet from any copy, whole or partial; real images where they are at hand."""

import io
import shutil
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.checksums import compute_url_info

from tfrobust.data.tiny_imagenet import layout, tiny_imagenet_dataset_builder
from tfrobust.data.tiny_imagenet.reader import read
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError

DUMMY = Path(tiny_imagenet_dataset_builder.__file__).parent / "dummy_data" / layout.FOLDER
NAMES = ("Egyptian cat", "reel", "goldfish")


@pytest.fixture
def folder(tmp_path):
    """A small extracted copy: 3 classes with 2 train images and 1 val image each."""
    return Path(shutil.copytree(DUMMY, tmp_path / "copy" / layout.FOLDER))


@pytest.fixture
def options(tmp_path):
    return ReadOptions(cache_dir=str(tmp_path / "cache"))


def pack(folder, target):
    """Zips an extracted copy as the original is zipped."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return target


def shards(options):
    return sorted(Path(options.cache_dir).rglob("*.tfrecord*"))


def assert_whole_sample(raw):
    assert raw.train.label_names == raw.test.label_names == NAMES
    # In the order of names: n01443537 (goldfish, third line of wnids.txt), n02124075
    # (first), n04067472 (second); val_annotations.txt lists a goldfish, a cat, a reel.
    assert raw.train.labels.tolist() == [2, 2, 0, 0, 1, 1]
    assert raw.test.labels.tolist() == [2, 0, 1]
    assert raw.test.names == tuple(f"val/images/val_{i}.JPEG" for i in range(3))
    for part in (raw.train, raw.test):
        for name, image in zip(part.names, part.images, strict=True):
            with Image.open(DUMMY / name) as original:
                assert np.array_equal(image, np.asarray(original.convert("RGB")))
    # Two of the nine images are greyscale.
    assert raw.log.modes == {"RGB": 7, "L": 2}


@pytest.mark.parametrize("given", ["zip", "folder of the zip", "extracted", "parent"])
def test_every_kind_of_copy(folder, options, tmp_path, given):
    archive = pack(folder, tmp_path / layout.ZIP)
    locations = dict(
        zip(
            ("zip", "folder of the zip", "extracted", "parent"),
            (archive, tmp_path, folder, folder.parent),
            strict=True,
        )
    )
    assert_whole_sample(read(locations[given], options))


def test_a_copy_rearranged_into_folders_of_classes(folder, options):
    original = read(folder, options)
    lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    for line in lines:
        name, wnid = line.split("\t")[:2]
        (folder / "val" / wnid).mkdir(exist_ok=True)
        shutil.move(folder / "val" / "images" / name, folder / "val" / wnid / name)
    (folder / "val" / "val_annotations.txt").unlink()
    for place in (folder / "train").iterdir():
        for file in (place / "images").iterdir():
            shutil.move(file, place / file.name)
        (place / "images").rmdir()
    found = read(folder, options)
    for one, other in ((original.train, found.train), (original.test, found.test)):
        assert one.label_names == other.label_names
        assert sorted(one.labels.tolist()) == sorted(other.labels.tolist())
        assert {image.tobytes() for image in one.images} == {i.tobytes() for i in other.images}


def test_the_second_start_reuses_what_is_prepared(folder, options):
    read(folder, options)
    before = [(path, path.stat().st_mtime_ns) for path in shards(options)]
    assert before
    assert_whole_sample(read(folder, options))
    assert [(path, path.stat().st_mtime_ns) for path in shards(options)] == before


@pytest.mark.parametrize("zipped", [False, True])
def test_a_changed_copy_is_noticed(folder, options, tmp_path, zipped):
    def source():
        return pack(folder, tmp_path / layout.ZIP) if zipped else folder

    assert len(read(source(), options).train) == 6
    images = folder / "train" / "n01443537" / "images"
    shutil.copy(images / "n01443537_0.JPEG", images / "n01443537_2.JPEG")
    assert len(read(source(), options).train) == 7


def test_tfds_load_agrees(folder, options):
    raw = read(folder, options)
    (prepared,) = Path(options.cache_dir).iterdir()
    data, info = tfds.load(
        "tiny_imagenet", split="train", data_dir=prepared, with_info=True, download=False
    )
    assert tuple(info.features["label"].names) == NAMES
    assert list(info.metadata["wnids"]) == ["n02124075", "n04067472", "n01443537"]
    assert info.splits["test"].num_examples == 3
    found = {e["file_name"].decode(): e for e in tfds.as_numpy(data)}
    assert len(found) == 6
    for name, label, image in zip(raw.train.names, raw.train.labels, raw.train.images, strict=True):
        assert found[name]["label"] == label
        # TensorFlow's JPEG decoder rounds a little differently from Pillow's.
        assert np.abs(found[name]["image"].astype(int) - image).mean() < 2


def test_image_size(folder, options):
    raw = read(folder, ReadOptions(image_size=32, cache_dir=options.cache_dir))
    assert raw.train.image_shape == (32, 32, 3)


def test_words_that_two_classes_share_stay_apart(folder):
    lines = ["n01443537\tcrane", "n02124075\tcrane, machine", "n04067472\treel"]
    (folder / "words.txt").write_text("\n".join(lines))
    names = layout.Layout(folder).label_names
    assert names == ("crane (n02124075)", "reel", "crane (n01443537)")


def remove_val_image(folder):
    (folder / "val/images/val_1.JPEG").unlink()


def add_val_image(folder):
    shutil.copy(folder / "val/images/val_1.JPEG", folder / "val/images/val_9.JPEG")


def remove_annotations(folder):
    (folder / "val/val_annotations.txt").unlink()


def remove_word(folder):
    (folder / "words.txt").write_text("n02124075\tEgyptian cat\nn04067472\treel\n")


def repeat_class(folder):
    index = folder / "wnids.txt"
    index.write_text(index.read_text() + "\nn01443537\n")


def add_class(folder):
    shutil.copytree(folder / "train/n01443537", folder / "train/n99999999")


def break_annotations(folder):
    (folder / "val/val_annotations.txt").write_text("val_0.JPEG n01443537\n")


def empty_class(folder):
    shutil.rmtree(folder / "train/n01443537")


def break_image(folder):
    (folder / "train/n01443537/images/n01443537_0.JPEG").write_bytes(b"no image")


FAULTS = {
    remove_val_image: "val_1.JPEG, which val_annotations.txt lists, found no such file",
    add_val_image: "a line for val/images/val_9.JPEG in val/val_annotations.txt, found none",
    remove_annotations: "expected val/val_annotations.txt, found no such file",
    remove_word: "expected a line for n01443537 in words.txt, found none",
    repeat_class: "expected each class once in wnids.txt, found a class twice",
    add_class: "train/n99999999/images/.* in wnids.txt, found no 'n99999999' there",
    break_annotations: "expected 2 columns in each line of val/val_annotations.txt",
    empty_class: "class 'goldfish' has no",
    break_image: "n01443537_0.JPEG: not an image",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_faulty_copy_is_refused_by_name(folder, options, fault):
    fault(folder)
    with pytest.raises(TFRobustError, match=FAULTS[fault]) as error:
        read(folder, options)
    assert str(folder) in str(error.value)


def test_a_broken_image_can_be_skipped(folder, options):
    break_image(folder)
    raw = read(folder, ReadOptions(cache_dir=options.cache_dir, skip_broken=True))
    assert len(raw.train) == 5
    assert len(raw.log.skipped) == 1
    assert "n01443537_0.JPEG" in raw.log.skipped[0]


def test_a_truncated_zip_is_refused(folder, options, tmp_path):
    archive = pack(folder, tmp_path / layout.ZIP)
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(TFRobustError, match=str(archive)):
        read(archive, options)


def test_a_damaged_member_is_refused(folder, options, tmp_path):
    archive = pack(folder, tmp_path / layout.ZIP)
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as members:
        offset = members.getinfo(f"{layout.FOLDER}/train/n01443537/images/n01443537_0.JPEG")
    content[offset.header_offset + 300] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(TFRobustError, match="n01443537_0.JPEG to be readable"):
        read(archive, options)


def test_a_zip_that_is_not_there(tmp_path, options):
    with pytest.raises(TFRobustError, match="my.zip, found no such file"):
        read(tmp_path / "my.zip", options)


def test_without_a_connection(tmp_path, options, monkeypatch):
    # A proxy on a closed port of this machine: no name is looked up, nothing answers.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(TFRobustError) as error:
        read(tmp_path, options)
    assert time.monotonic() - start < 10
    message = str(error.value)
    assert "http://cs231n.stanford.edu/tiny-imagenet-200.zip (248,100,043 bytes)" in message
    assert f"put the file at {tmp_path}/tiny-imagenet-200.zip" in message
    assert "give a local copy with --data-dir" in message


def test_a_download_is_verified_and_prepared_for_tfds(folder, options, tmp_path, monkeypatch):
    archive = pack(folder, tmp_path / layout.ZIP)
    home, target = tmp_path / "home", tmp_path / "target"
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(home))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/{layout.ZIP}"
        # Not the original: refused, and nothing is left.
        with pytest.raises(TFRobustError, match=r"\(248,100,043 bytes\), found 'a file of"):
            read(target, options, mirror=mirror)
        assert list(target.iterdir()) == []
        # From here on, the small archive is taken for the original.
        own = {tiny_imagenet_dataset_builder.URL: compute_url_info(archive)}
        monkeypatch.setattr(tiny_imagenet_dataset_builder.Builder, "url_infos", own)
        assert_whole_sample(read(target, options, mirror=mirror))
        server.shutdown()
    assert (target / layout.ZIP).read_bytes() == archive.read_bytes()
    # The original is prepared in TFDS's own folder: no copy is needed any more.
    assert (home / "tiny_imagenet" / "1.0.0").is_dir()
    assert_whole_sample(read(None, options))
    assert tfds.load("tiny_imagenet", split="test", download=False).cardinality() == 3


def test_the_real_layout(shared_data):
    archive = shared_data / layout.ZIP
    if not archive.is_file():
        pytest.skip(f"real data not found: expected {archive}")
    files = layout.Layout(archive)
    train, val = list(files.examples("train")), list(files.examples("val"))
    # 150 train images of each of 200 classes, 539 of them greyscale; val_0 to val_4999.
    assert np.bincount([label for _, label in train]).tolist() == [150] * 200
    assert {name for name, _ in val} == {f"val/images/val_{i}.JPEG" for i in range(5000)}
    assert all(name.split("/")[1] == files.wnids[label] for name, label in train)
    images = [Image.open(io.BytesIO(files.read(name))) for name, _ in train]
    assert {image.size for image in images} == {(64, 64)}
    assert sum(image.mode == "L" for image in images) == 539
    assert files.label_names[files.wnids.index("n01443537")] == "goldfish"
    assert len(set(files.label_names)) == 200
