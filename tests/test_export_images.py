"""Encoded images in the exported model: the same pixels as Pillow gives, or a clear refusal."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tfrobust.data.images import decode
from tfrobust.export import export
from tfrobust.runtime import keras, tf

SIDE = 8


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def pixels_of(tmp_path_factory: pytest.TempPathFactory):
    """bytes -> the 0..255 pixels that the model sees: the exported model's logits are them."""
    image = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(image, keras.layers.Flatten()(image))
    names = [str(i) for i in range(SIDE * SIDE * 3)]
    check = np.zeros((1, SIDE, SIDE, 3), np.float32)
    path = export(model, tmp_path_factory.mktemp("p"), names, check_images=check)
    loaded = tf.saved_model.load(str(path))

    def see(*data: bytes) -> np.ndarray:
        logits = loaded.signatures["image_bytes"](image_bytes=tf.constant(data))["logits"]
        return np.reshape(logits, (len(data), SIDE, SIDE, 3))[0] * 255

    return see


def uniform(mode: str, value: object) -> bytes:
    return encode(Image.new(mode, (SIDE, SIDE), value))


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (uniform("RGB", (10, 20, 30)), (10, 20, 30)),
        (uniform("L", 51), (51, 51, 51)),
        (uniform("1", 1), (255, 255, 255)),
        # 16 bits: 65535 / 255 = 257 steps to one of 8 bits; 13107 = 51 * 257.
        (encode(Image.fromarray(np.full((SIDE, SIDE), 13107, np.uint16))), (51, 51, 51)),
        # On white with alpha 51 / 255 = .2: .2 * 100 + .8 * 255 = 224.
        (uniform("RGBA", (100, 255, 0, 51)), (224, 255, 204)),
        (uniform("LA", (0, 0)), (255, 255, 255)),
        # A palette of two colours is stored with one bit a pixel, and has no alpha.
        (encode(Image.new("RGB", (SIDE, SIDE), (9, 8, 7)).quantize(2)), (9, 8, 7)),
        (encode(Image.new("L", (SIDE, SIDE), 128), "JPEG"), (128, 128, 128)),
    ],
    ids=["RGB", "L", "1", "16-bit", "RGBA", "LA", "palette", "grey JPEG"],
)
def test_every_mode_becomes_rgb(pixels_of, data: bytes, colour: tuple[int, ...]) -> None:
    np.testing.assert_allclose(pixels_of(data), np.full((SIDE, SIDE, 3), colour), atol=1e-3)


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(8, 8), (16, 16), (37, 23), (5, 11), (1, 1), (300, 2)])
def test_resizing_agrees_with_pillow(pixels_of, kind: str, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), kind)
    pillow = Image.open(io.BytesIO(data)).convert("RGB")
    expected = np.asarray(pillow.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    difference = np.abs(pixels_of(data) - expected)
    # Both round to whole numbers after each of two passes: a tie may fall to either side.
    assert difference.max() < 2.01 and difference.mean() < 0.25
    if size == (SIDE, SIDE):
        assert difference.max() < 1e-3


@pytest.mark.parametrize(
    "mode",
    ["RGB", "16-bit", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("L", "RGBA", "P"))],
)
def test_a_large_image_is_the_same_in_strips(pixels_of, mode: str) -> None:
    """Half a million pixels are resized at a time; this has three strips, the last one short."""
    noise = np.random.default_rng(3).integers(0, 256, (70, 50, 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1000, 1100))
    if mode == "16-bit":
        image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    expected = decode(encode(image), (SIDE, SIDE)).pixels
    difference = np.abs(pixels_of(encode(image)) - expected)
    assert difference.max() < 2.01 and difference.mean() < 0.25


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_photographs_are_turned_as_their_exif_says(pixels_of, kind: str, endian: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for code in range(1, 9):
        exif = Image.Exif()
        exif.endian = endian
        exif[0x0112] = code
        data = encode(Image.fromarray(noise), kind, exif=exif)
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        np.testing.assert_allclose(pixels_of(data), np.asarray(turned), atol=1e-3)


def test_real_images_agree_with_pillow(pixels_of, shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "tiny-imagenet-200.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith(".JPEG")][:5000:500]
        files = [archive.read(name) for name in names]
    for data in files:
        pillow = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), 2)
        assert np.abs(pixels_of(data) - np.asarray(pillow, np.float32)).max() < 1.01


PHOTO = encode(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
DRAWING = encode(Image.effect_noise((64, 64), 50))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(Image.new("L", (8, 8)), "GIF"), r"expected JPEG or PNG.*\[1\] \[GIF8"),
        (encode(Image.new("RGB", (8, 8)), "BMP"), r"expected JPEG or PNG.*\[1\] \[BM"),
        (b"", r"expected JPEG or PNG"),
        (PHOTO[: len(PHOTO) // 2], r"Invalid JPEG"),
        (DRAWING[: len(DRAWING) // 2], r"Invalid PNG"),
        (DRAWING[:200] + bytes(200) + DRAWING[400:], r"Invalid PNG"),
    ],
    ids=["GIF", "BMP", "empty", "cut JPEG", "cut PNG", "damaged PNG"],
)
def test_other_and_broken_data_is_refused(pixels_of, data: bytes, message: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        pixels_of(DRAWING, data)
