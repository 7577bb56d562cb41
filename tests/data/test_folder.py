"""Own images in folders and zips: layouts, classes, and what is left out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfrobust.data.folder import read
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError

SPLIT = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in (1, 2)]


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def fill(root: Path, paths: list[str]) -> Path:
    """Files whose pixels hold their place in `paths`; 'x/' is an empty folder."""
    for value, path in enumerate(paths):
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"broken" if "broken" in path else png(value))
    return root


def zipped(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root))
    return path


def load(location: Path, **options: object):
    return read(location, ReadOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("pack", [lambda root: root, zipped])
@pytest.mark.parametrize("wrap", ["", "data/", "data/images/"])
def test_a_split_source(tmp_path, pack, wrap):
    raw = load(pack(fill(tmp_path / "src", [wrap + path for path in SPLIT])))
    assert raw.train.label_names == raw.test.label_names == ("a", "b")
    assert raw.train.labels.tolist() == raw.test.labels.tolist() == [0, 0, 1, 1]
    # fill() numbers the pixels: train holds 0..3, test 4..7.
    assert raw.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert raw.test.images[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    assert raw.test.names[-1] == f"{wrap}test/b/2.png" and not raw.log.skipped


@pytest.mark.parametrize("pack", [lambda root: root, zipped])
@pytest.mark.parametrize("wrap", ["", "data/", "train/"])
def test_classes_without_a_split(tmp_path, pack, wrap):
    paths = [f"{wrap}{path}" for path in ("dog/1.png", "cat/deep/er/2.png", "cat/3")]
    raw = load(pack(fill(tmp_path / "src", paths)))
    assert raw.test is None and raw.train.label_names == ("cat", "dog")
    # Sorted by path: cat/3 (pixel 2), cat/deep/er/2.png (pixel 1), then dog/1.png (0).
    assert raw.train.labels.tolist() == [0, 0, 1]
    assert raw.train.images[:, 0, 0, 0].tolist() == [2, 1, 0]


def test_a_class_may_be_called_train(tmp_path):
    raw = load(fill(tmp_path, ["train/1.png", "bus/1.png", "car/1.png"]))
    assert raw.train.label_names == ("bus", "car", "train") and raw.test is None


def test_val_is_test_only_where_there_is_no_test(tmp_path):
    paths = [path.replace("test", "Val") for path in SPLIT]
    raw = load(fill(tmp_path / "one", paths))
    assert raw.test.names[0] == "Val/a/1.png"
    raw = load(fill(tmp_path / "two", SPLIT + paths[4:]))
    assert raw.test.names[0] == "test/a/1.png"
    assert raw.log.skipped == ["Val/: skipped, because test/ is the test split"]


def test_clutter_is_not_seen_and_loose_files_are_listed(tmp_path):
    clutter = [".DS_Store", "__MACOSX/a/1.png", "a/.hidden", "a/Thumbs.db"]
    raw = load(fill(tmp_path, ["a/1.png", "b/1.png", "README.md", *clutter]))
    assert raw.train.names == ("a/1.png", "b/1.png")
    assert raw.log.skipped == ["README.md: not in a class folder"]


def test_the_odd_class_is_named(tmp_path):
    fill(tmp_path, [*SPLIT, "test/zebra/1.png"])
    with pytest.raises(TFRobustError, match="'zebra' is in test/ but not in train/"):
        load(tmp_path)
    with pytest.raises(TFRobustError, match="found the folders extra, test, train"):
        load(fill(tmp_path, ["extra/1.png"]))


def test_an_empty_class_is_an_error_or_left_out(tmp_path):
    fill(tmp_path, [*SPLIT, "train/c/", "test/c/1.png"])
    for source in (tmp_path, zipped(tmp_path)):
        with pytest.raises(TFRobustError, match="class folder 'c' of train is empty"):
            load(source)
        raw = load(source, skip_broken=True)
        assert raw.train.label_names == ("a", "b") and len(raw.test) == 4
        assert raw.log.skipped == ["c/: no images in train"]


@pytest.mark.parametrize("paths", [["1.png", "2.png"], ["only/1.png"], []])
def test_without_two_classes_the_layout_is_told(tmp_path, paths):
    with pytest.raises(TFRobustError, match="expected one folder of images per class"):
        load(fill(tmp_path, paths))


@pytest.mark.parametrize("pack", [lambda root: root, zipped])
def test_a_broken_image_is_named_or_listed(tmp_path, pack):
    source = pack(fill(tmp_path / "src", [*SPLIT, "train/a/broken.png"]))
    with pytest.raises(TFRobustError, match=r"train/a/broken.png: not an image.*--skip-broken"):
        load(source)
    raw = load(source, skip_broken=True)
    assert len(raw.train) == 4 and len(raw.log.skipped) == 1


def test_a_broken_zip_member_is_a_broken_image(tmp_path):
    source = zipped(fill(tmp_path / "src", SPLIT))
    content = bytearray(source.read_bytes())
    content[content.index(b"IDAT")] ^= 255  # stored, not packed: its checksum is now wrong
    source.write_bytes(content)
    with pytest.raises(TFRobustError, match="Bad CRC-32"):
        load(source)
    assert len(load(source, skip_broken=True).log.skipped) == 1


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    fill(tmp_path / "far", ["1.png"])
    fill(tmp_path / "src", ["a/1.png"])
    (tmp_path / "src" / "b").symlink_to(tmp_path / "far")
    (tmp_path / "src" / "a" / "loop").symlink_to(tmp_path / "src" / "a")
    assert load(tmp_path / "src").train.names == ("a/1.png", "b/1.png")


def test_what_is_no_zip_is_told(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(TFRobustError, match="broken or of an unknown kind"):
        load(tmp_path / "x.zip")


def test_real_images_keep_their_split(shared_data, tmp_path):
    """Two images of each class and split of the re-encoded CIFAR-10."""
    with zipfile.ZipFile(shared_data / "cifar10-images.zip") as whole:
        chosen = [n for n in whole.namelist() if n.endswith(("/0000.jpg", "/0001.jpg"))]
        with zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
            for name in chosen:
                few.writestr(name, whole.read(name))
        raw = load(tmp_path / "few.zip")
        first = np.asarray(Image.open(io.BytesIO(whole.read("cifar10/test/truck/0001.jpg"))))
    assert len(raw.train) == len(raw.test) == 20 and raw.train.label_names[0] == "airplane"
    assert raw.log.sizes == {(32, 32): 40} and raw.log.modes == {"RGB": 40}
    assert np.array_equal(raw.test.images[-1], first)


@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("seg_train/seg_train", "seg_test/seg_test"),
     ("Training", "Validation"), ("train_images", "test_images"), ("trainset", "testset"),
     ("train-data", "val-data"), ("Train", "Valid"), ("TRAINING", "TESTING")],
)  # fmt: skip
@pytest.mark.parametrize("wrap", ["", "data/"])
def test_splits_by_their_usual_names(tmp_path, train, test, wrap):
    paths = [f"{wrap}{split}/{name}/1.png" for split in (train, test) for name in ("cat", "dog")]
    raw = load(fill(tmp_path / "src", paths))
    assert raw.train.label_names == ("cat", "dog")
    assert len(raw.train) == len(raw.test) == 2 and raw.train.images.max() <= 1


def test_images_without_labels_beside_a_split_are_left_out(tmp_path):
    paths = [*SPLIT, "seg_pred/seg_pred/1.png"]
    raw = load(fill(tmp_path / "src", paths))
    assert len(raw.train) == 4 and any("seg_pred" in line for line in raw.log.skipped)


def test_a_test_folder_without_train_is_all_there_is(tmp_path):
    raw = load(
        fill(tmp_path / "src", ["test/a/1.png", "test/b/1.png", "val/a/1.png", "val/b/2.png"])
    )
    assert raw.test is None and raw.train.names == ("test/a/1.png", "test/b/1.png")
    assert raw.log.notes


@pytest.mark.parametrize("names", [("train", "boat"), ("training", "testing", "other"),
                                   ("set", "data"), ("settrain", "a")])  # fmt: skip
def test_classes_may_be_called_anything(tmp_path, names):
    paths = [f"{name}/{i}.png" for name in names for i in (1, 2)]
    if names == ("training", "testing", "other"):
        with pytest.raises(TFRobustError, match="other, testing, training"):
            load(fill(tmp_path / "src", paths))
        return
    assert load(fill(tmp_path / "src", paths)).train.label_names == tuple(sorted(names))


def test_numbers_are_sorted_by_their_value(tmp_path):
    raw = load(fill(tmp_path / "src", [f"{name}/1.png" for name in (0, 2, 10, 9)]))
    assert raw.train.label_names == ("0", "2", "9", "10")


@pytest.mark.parametrize(
    "clutter",
    ["a/@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg", "a/thumbs.db", "a/Desktop.ini", "A/../a/THUMBS.DB",
     "#recycle/1.png", "$RECYCLE.BIN/1.png", "a/.thumbnails/1.png", "System Volume Information/x"],
)  # fmt: skip
def test_what_systems_leave_behind_is_not_seen(tmp_path, clutter):
    paths = ["a/1.png", "b/1.png", str(Path(clutter.replace("A/../", "")))]
    raw = load(fill(tmp_path / "src", paths))
    assert len(raw.train) == 2 and not raw.log.skipped


def test_a_zip_with_backslashes_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("pets\\cat\\"), b"")
        for name in ("cat", "dog"):
            archive.writestr(zipfile.ZipInfo(f"pets\\{name}\\1.png"), png())
    raw = load(tmp_path / "pets.zip")
    assert raw.train.label_names == ("cat", "dog") and raw.train.names[0] == "pets/cat/1.png"
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("pets\\..\\..\\x.png"), png())
    with pytest.raises(TFRobustError, match="may leave its folder"):
        load(tmp_path / "evil.zip")


def test_a_test_folder_of_other_classes_has_no_labels(tmp_path):
    paths = [f"{split}/{name}/1.png" for split in ("train", "val") for name in "ab"]
    raw = load(fill(tmp_path / "src", [*paths, "test/images/1.png"]))
    assert raw.test.names == ("val/a/1.png", "val/b/1.png")
    assert any("none of the classes" in line for line in raw.log.skipped)


@pytest.mark.parametrize("splits", [("fold1", "fold2"), ("a_part", "b_part", "c_part")])
def test_folders_that_hold_the_same_folders_are_no_classes(tmp_path, splits):
    paths = [f"{split}/{name}/1.png" for split in splits for name in ("cat", "dog")]
    with pytest.raises(TFRobustError, match="look like splits"):
        load(fill(tmp_path / "src", paths))


def test_further_names_of_splits(tmp_path):
    for train, test in (("my_train", "my_test"), ("train_v2", "test_v2"), ("train", "eval")):
        paths = [f"{split}/{name}/1.png" for split in (train, test) for name in ("cat", "dog")]
        raw = load(fill(tmp_path / train, paths))
        assert raw.train.label_names == ("cat", "dog") and len(raw.test) == 2
