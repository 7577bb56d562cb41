"""Decoding: every size and mode becomes RGB, and nothing broken passes."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfrobust.data import decode_all
from tfrobust.data import mapped as mapped_module
from tfrobust.data.decode_all import Item, collect
from tfrobust.data.images import decode, measure, to_uint8
from tfrobust.data.types import ReadLog, ReadOptions
from tfrobust.errors import TFRobustError, UsageError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def flat(mode: str, colour: object, size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("RGB", (10, 20, 30), "PNG", (10, 20, 30)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("1", 1, "PNG", (255, 255, 255)),
        # Half transparent black on white: 255 * (1 - 128/255) = 127.
        ("RGBA", (0, 0, 0, 128), "PNG", (127, 127, 127)),
        ("LA", (0, 128), "PNG", (127, 127, 127)),
        ("RGBA", (9, 9, 9, 0), "PNG", (255, 255, 255)),
        # 16 bits: 0x8080 = 32896 = 128 * 257, so 128 in 8 bits.
        ("I;16", 0x8080, "PNG", (128, 128, 128)),
        ("I;16", 0x8080, "TIFF", (128, 128, 128)),
        ("I", 65535, "TIFF", (255, 255, 255)),
        # 0.2 * 255 = 51.
        ("F", 0.2, "TIFF", (51, 51, 51)),
        # No black ink, full cyan: red is 255 - 255 = 0.
        ("CMYK", (255, 0, 0, 0), "TIFF", (0, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, kind, expected):
    result = decode(encoded(flat(mode, colour), kind))
    assert result.pixels.shape == (3, 4, 3) and result.pixels.dtype == np.uint8
    assert (result.pixels == expected).all()
    assert (result.size, result.mode) == ((4, 3), mode)


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image)).pixels.tolist() == [[[200, 0, 0], [0, 0, 200]]]
    see_through = encoded(image, transparency=0)
    assert decode(see_through).pixels.tolist() == [[[255, 255, 255], [0, 0, 200]]]


def test_cmyk_jpeg_is_not_inverted():
    red = decode(encoded(flat("CMYK", (0, 255, 255, 0), (16, 16)), "JPEG")).pixels[8, 8]
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


def test_a_photograph_is_turned_upright():
    image = Image.new("RGB", (32, 16), "black")
    image.paste("white", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees: the left side comes to the top
    content = encoded(image, "JPEG", exif=exif)
    result = decode(content)
    assert measure(content) == result.size == (16, 32)
    assert result.pixels[4].min() > 240 and result.pixels[28].max() < 15


def test_resizing_is_antialiased():
    # One white column in four: averaged over four columns it is 255 / 4 = 63.75.
    stripes = np.zeros((16, 16), np.uint8)
    stripes[:, ::4] = 255
    pixels = decode(stripes, (4, 4)).pixels
    assert abs(float(pixels.mean()) - 63.75) < 3 and pixels.std() < 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_found(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    assert decode(content).pixels.std() > 20
    with pytest.raises(ValueError) as told:
        decode(content[: len(content) // 2])
    # A user reads why, not a parser's name for its own state.
    assert len(str(told.value)) > 10


def test_what_is_no_image_or_too_large_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="not an image of a known format"):
        decode(b"hello")
    # EPS would be handed to Ghostscript.
    with pytest.raises(ValueError, match="not an image of a known format"):
        decode(encoded(flat("RGB", 0), "EPS"))
    monkeypatch.setattr("tfrobust.data.images.MAX_PIXELS", 11)
    with pytest.raises(ValueError, match="4x3 pixels, .* 11"):
        decode(encoded(flat("RGB", 0)))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([0, 7], np.uint8), [0, 7]),
        (np.array([False, True]), [0, 255]),
        (np.array([257, 65535], np.uint16), [1, 255]),  # 257 / 257 = 1
        (np.array([0.0, 0.5, 1.0], np.float32), [0, 128, 255]),  # 127.5 rounds to even
    ],
)
def test_scaling_to_eight_bits(array, expected):
    assert to_uint8(array).tolist() == expected


@pytest.mark.parametrize(
    "array", [np.array([1.5]), np.array([-0.1]), np.array([np.nan]), np.array([3], np.int64)]
)
def test_ranges_are_not_guessed(array):
    with pytest.raises(ValueError, match=r"expected .*\[0, 1\]"):
        to_uint8(array)


def items(*images: np.ndarray | bytes, labels: list[int]) -> list[Item]:
    return [
        Item(f"{i}.png", lambda image=image: image, label)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def grey(value: int, size: int = 4) -> np.ndarray:
    return np.full((size, size), value, np.uint8)


def run(*splits: list[Item], **options: object):
    log = ReadLog()
    names = ("a", "b")
    return collect(Path("src"), splits, names, ReadOptions(**options), log), log  # type: ignore


def test_collect_keeps_order_and_takes_the_most_common_size():
    (train, test), log = run(
        items(grey(1), grey(2, 8), grey(3), labels=[0, 1, 0]), items(grey(9), labels=[1])
    )
    assert train.images.shape == (3, 4, 4, 3) and test.images.shape == (1, 4, 4, 3)
    assert train.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert train.labels.tolist() == [0, 1, 0] and train.labels.dtype == np.int32
    assert train.names == ("0.png", "1.png", "2.png")
    assert log.sizes == Counter({(4, 4): 3, (8, 8): 1}) and log.modes == Counter(L=4)


def test_many_chunks_stay_in_order():
    many = items(*(grey(i % 256) for i in range(1000)), labels=[i % 2 for i in range(1000)])
    (train,), _ = run(many)
    assert (train.images[:, 0, 0, 0] == np.arange(1000) % 256).all()


def test_a_chosen_size_wins():
    (train,), log = run(items(grey(1), grey(2), labels=[0, 1]), image_size=6)
    assert train.image_shape == (6, 6, 3) and log.sizes == Counter({(4, 4): 2})


def test_above_the_memory_limit_a_file_holds_the_same_images(tmp_path):
    given = items(grey(1), b"broken", grey(3), labels=[0, 1, 1])
    (kept,), _ = run(given, skip_broken=True)
    (mapped,), _ = run(given, skip_broken=True, memory_limit=10, cache_dir=str(tmp_path))
    assert isinstance(mapped.images, np.memmap)
    assert np.array_equal(mapped.images, kept.images) and len(mapped) == 2
    assert not list(tmp_path.iterdir())  # unnamed: nothing to find half-written


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped_module.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(TFRobustError, match="No space left on device.*--cache-dir"):
        run(items(grey(1), grey(2), labels=[0, 1]), memory_limit=1, cache_dir=str(tmp_path))


def test_broken_images_and_labels_stop_or_are_listed():
    given = items(grey(1), b"broken", grey(3), grey(4), labels=[0, 1, 2, 1])
    with pytest.raises(TFRobustError, match=r"src: 1.png: not an image.*--skip-broken"):
        run(given)
    (train,), log = run(given, skip_broken=True)
    assert train.names == ("0.png", "3.png") and train.labels.tolist() == [0, 1]
    assert log.skipped == [
        "1.png: not an image of a known format",
        "2.png: label 2 is out of range 0..1",
    ]


def test_a_class_whose_images_are_all_broken_is_an_error():
    with pytest.raises(TFRobustError, match="class 'b' has no"):
        run(items(grey(1), b"broken", labels=[0, 1]), skip_broken=True)


def test_camera_images_need_a_chosen_size(monkeypatch):
    monkeypatch.setattr(decode_all, "_MAX_UNASKED_PIXELS", 15)
    with pytest.raises(UsageError, match="4x4 pixels.*--image-size"):
        run(items(grey(1), grey(2), labels=[0, 1]))


def test_a_decompression_bomb_is_a_broken_image(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    bomb = encoded(flat("RGB", 0, (4, 4)))
    with pytest.raises(TFRobustError, match="0.png: .*exceeds limit"):
        run(items(bomb, grey(2), labels=[0, 1]))
