"""Data set objects saved by torch: what is read, and what is told where one is not."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational
from torch_pickles import Storage, TaskDataset, grey, load, save, tensor, torch_pickle, two

from tfrobust.data.images import decode
from tfrobust.errors import TFRobustError


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pillow_images_of_every_mode(tmp_path, protocol):
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    images = [
        grey(5),
        Image.new("RGB", (3, 2), (1, 2, 3)),
        palette,
        Image.new("1", (3, 2), 1),
        Image.new("I;16", (3, 2), 257 * 4),
        Image.new("RGBA", (3, 2), (0, 0, 0, 0)),
    ]
    raw = load(save(tmp_path, TaskDataset(images, [0, 1, 0, 1, 0, 1]), protocol))
    assert raw.train.images.shape == (6, 2, 3, 3) and raw.test is None
    # 257 * 4 of 16 bits is 4 of 8; wholly transparent black lies on white.
    expected = [[5] * 3, [1, 2, 3], [9, 8, 7], [255] * 3, [4] * 3, [255] * 3]
    assert raw.train.images[:, 1, 2].tolist() == expected
    assert raw.log.modes == dict.fromkeys(("L", "RGB", "P", "1", "I;16", "RGBA"), 1)


def test_images_read_from_files_are_images_too(tmp_path):
    grey(7).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as opened:
        opened.load()
        raw = load(save(tmp_path, TaskDataset([opened, grey(8)], [0, 1])))
    assert raw.train.images[:, 0, 0, 0].tolist() == [7, 8]


@pytest.mark.parametrize("protocol", [2, 4])
def test_transparent_colours_lie_on_white(tmp_path, protocol):
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    images = [palette, Image.new("RGB", (3, 2), (1, 2, 3)), grey(5)]
    # Of a palette, a table of opacities; else the one colour that is left out.
    for image, transparent in zip(images, (b"\xff\x00", (1, 2, 3), 5), strict=True):
        image.info["transparency"] = transparent
    raw = load(save(tmp_path, TaskDataset(images, [0, 1, 0]), protocol))
    assert (raw.train.images == 255).all()


def test_a_photograph_is_turned_upright_as_it_is_in_a_folder(tmp_path):
    exif = Image.Exif()
    exif.update({274: 6, 282: IFDRational(72, 1), 296: 2})  # turned by 90 degrees, 72 dpi
    pixels = np.arange(16 * 8 * 3, dtype=np.uint8).reshape(16, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif)
    with Image.open(tmp_path / "x.jpg") as opened:
        raw = load(save(tmp_path, TaskDataset([opened, opened], [0, 1])))
    assert np.array_equal(raw.train.images[0], decode(tmp_path / "x.jpg").pixels)
    assert raw.train.images.shape == (2, 8, 16, 3)


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_a_file_says_beside_its_pixels_is_passed_over(tmp_path, protocol):
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    grey(7).save(tmp_path / "x.png", pnginfo=text)
    grey(8).save(tmp_path / "x.tif", dpi=(72, 72))
    opened = [Image.open(tmp_path / name) for name in ("x.png", "x.tif")]
    raw = load(save(tmp_path, TaskDataset(opened, [0, 1]), protocol))
    assert raw.train.images[:, 0, 0, 0].tolist() == [7, 8]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_and_numpy_labels(tmp_path, protocol):
    stack = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    one_by_one = TaskDataset(
        [np.moveaxis(stack[0], 2, 0).copy(), np.asfortranarray(stack[1])], list(np.array([0, 1]))
    )
    stacked = {"images": stack, "targets": np.array([0, 1], ">i4")}
    # A view whose memory lies in another order: numpy 2.3 stores it in that order.
    view = TaskDataset(np.moveaxis(np.moveaxis(stack, 3, 1).copy(), 1, 3), (0, 1))
    for dataset in (one_by_one, stacked, view):
        raw = load(save(tmp_path, dataset, protocol))
        assert np.array_equal(raw.train.images, stack) and raw.train.labels.tolist() == [0, 1]


def test_tensors_are_read_from_their_storages(tmp_path, fake_torch):
    values = np.arange(2 * 3 * 4 * 5, dtype="<f4").reshape(2, 3, 4, 5) / 255
    pixels = Storage(fake_torch.FloatStorage, "0", 120)
    whole = tensor(pixels, (2, 3, 4, 5), (60, 20, 5, 1))
    # Two views of the same storage: the second image starts after 3 * 4 * 5 = 60 numbers.
    views = [tensor(pixels, (3, 4, 5), (20, 5, 1), first) for first in (0, 60)]
    numbers = Storage(fake_torch.LongStorage, "1", 2)
    stacked = tensor(numbers, (2,), (1,))
    single = [tensor(numbers, (), (), first) for first in (0, 1)]
    members = {"0": values.tobytes(), "1": struct.pack("<2q", 1, 0)}
    for imgs in (whole, views):
        for labels in (stacked, single):
            data = torch_pickle(TaskDataset(imgs, labels))
            raw = load(save(tmp_path, data, **members))
            assert raw.train.labels.tolist() == [1, 0]
            assert np.array_equal(
                raw.train.images, np.moveaxis(values * 255, 1, 3).round().astype(np.uint8)
            )


def test_grey_tensors_may_be_expanded_to_channels(tmp_path, fake_torch):
    # Tensor.expand repeats the channel by a step of 0.
    pixels = Storage(fake_torch.ByteStorage, "0", 12)
    expanded = tensor(pixels, (2, 3, 2, 3), (6, 0, 3, 1))
    data = torch_pickle(TaskDataset(expanded, [0, 1]))
    raw = load(save(tmp_path, data, **{"0": bytes(range(12))}))
    assert raw.train.images[..., 2].ravel().tolist() == list(range(12))


def test_an_unknown_kind_of_tensor_is_named(tmp_path, fake_torch):
    bad = tensor(Storage(fake_torch.BFloat16Storage, "0", 4), (2, 2), (2, 1))
    with pytest.raises(TFRobustError, match="torch.BFloat16Storage, expected one of ByteStorage"):
        load(save(tmp_path, torch_pickle(TaskDataset([bad, grey(1)], [0, 1])), **{"0": b"abcd"}))


def test_ids_and_class_names(tmp_path):
    raw = load(save(tmp_path, two(ids=[17, "b"], classes=["cat", "dog"], transform=None)))
    assert raw.train.names == ("image 0 (id 17)", "image 1 (id b)")
    assert raw.train.label_names == ("cat", "dog")


def test_a_class_is_no_list_of_names(tmp_path):
    raw = load(save(tmp_path, two(classes=TaskDataset, ids=TaskDataset)))
    assert raw.train.label_names == ("0", "1") and raw.train.names == ("image 0", "image 1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TaskDataset([], []), "expected images, found none"),
        (TaskDataset(np.zeros((0, 2, 3), np.uint8), []), "expected images, found none"),
        (TaskDataset([grey(1)], [0, 1]), "labels: 2 labels for 1 images"),
        (two(ids=[1]), "1 ids for 2 images"),
        (TaskDataset([grey(1), grey(2)], [0, None]), r"labels\[1\]: expected an integer.*NoneType"),
        (
            TaskDataset([grey(1), grey(2)], [0, "b"]),
            r"labels\[1\]: .* a str: store the index",
        ),
        (TaskDataset([grey(1), grey(2)], [0, 2]), r"labels\[1\]: label 2 is out of range 0..1"),
        (TaskDataset([grey(1), grey(2)], [0, -1]), "image 1: label -1 is out of range"),
        (TaskDataset([grey(1), "x.png"], [0, 1]), "image 1: a str, expected a Pillow image"),
        (TaskDataset("x", [0, 1]), "expected the images in a list.*found a str"),
        (TaskDataset([grey(1), np.full((2, 3), 9.0)], [0, 1]), "image 1: float pixels range"),
        (TaskDataset([grey(1), np.array([None])], [0, 1]), "image 1: .*plain number"),
        ({"labels": [0]}, "expected an attribute imgs or images or data or x, found labels"),
        ([1, 2], "expected an object or a dict with imgs and labels, found a list"),
        (OrderedDict(weight=1), "found a collections.OrderedDict"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, content, message):
    with pytest.raises(TFRobustError, match=message) as caught:
        load(save(tmp_path, content))
    assert "set.pt" in str(caught.value)


def test_other_formats_are_told(tmp_path):
    path = tmp_path / "set.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    with pytest.raises(TFRobustError, match="not in torch's zip format .torch 1.6 or later"):
        load(path)
    with pytest.raises(TFRobustError, match="cannot be read .No such file"):
        load(tmp_path / "none.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/data.pkl", b".")
        archive.writestr("script/constants.pkl", b".")
    with pytest.raises(TFRobustError, match="another kind of archive"):
        load(path)


def test_the_real_sample(shared_data):
    raw = load(shared_data / "ten_class_sample.pt")
    assert raw.train.images.shape == (2500, 32, 32, 3)
    # The study's imbalance, counted in the file's list of labels.
    counts = [12, 229, 584, 90, 176, 372, 117, 11, 792, 117]
    assert np.bincount(raw.train.labels).tolist() == counts
    assert raw.log.modes == {"RGB": 2247, "L": 253} and not raw.log.skipped
    # Image 0 has id 3: the colours of a photograph vary, but are not noise.
    assert raw.train.names[0] == "image 0 (id 3)" and 10 < raw.train.images[0].std() < 100
