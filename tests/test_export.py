"""Export: what is served equals what was trained, or nothing is published."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export import export
from tfrobust.runtime import keras, tf

COLOURS = ("red", "green", "blue")
SIDE = 8


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((7, SIDE, SIDE, 3), dtype=np.float32)


def colour_model() -> keras.Model:
    """logits = 10 * (mean red, mean green, mean blue): everything can be worked by hand."""
    image = keras.Input((SIDE, SIDE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    weights = keras.initializers.Constant(10 * np.eye(3))
    return keras.Model(image, keras.layers.Dense(3, kernel_initializer=weights)(mean))


def network(policy: str = "float32") -> keras.Model:
    """A small network whose BatchNorm answers otherwise in training than in inference."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(8, 3, dtype=policy)(image)
    x = keras.layers.BatchNormalization(
        moving_mean_initializer="random_normal",
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2),
        dtype=policy,
    )(x)
    x = keras.layers.Dropout(0.5, dtype=policy)(keras.layers.ReLU(dtype=policy)(x))
    x = keras.layers.GlobalAveragePooling2D(dtype=policy)(x)
    model = keras.Model(image, keras.layers.Dense(3, dtype="float32")(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.zeros((4, SIDE, SIDE, 3)), np.zeros(4), verbose=0)
    return model


def unstable_model() -> keras.Model:
    """A model that never answers the same twice, so that no copy can agree with it."""
    image = keras.Input((SIDE, SIDE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, keras.layers.GaussianNoise(1.0)(mean, training=True))


@pytest.fixture(scope="module")
def colour_served(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Path:
    return export(colour_model(), tmp_path_factory.mktemp("c"), COLOURS, check_images=images)


def served(path: Path, name: str = "serving_default"):
    loaded = tf.saved_model.load(str(path))
    # The signature holds its variables weakly: the loaded object must live as long.
    return lambda value: loaded.signatures[name](tf.constant(value))


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- what is served -----------------------------------------------------------------------


def test_outputs_are_those_worked_by_hand(colour_served: Path) -> None:
    image = np.zeros((1, SIDE, SIDE, 3), np.float32)
    image[..., 1] = 0.5
    answer = served(colour_served)(image)
    # logits 10 * (0, .5, 0) = (0, 5, 0); softmax of the 5: e^5 / (e^5 + 2) = .98670
    np.testing.assert_allclose(answer["logits"], [[0, 5, 0]], atol=1e-6)
    np.testing.assert_allclose(answer["probabilities"][0, 1], 0.98670, atol=1e-5)
    assert answer["label"].dtype == tf.int32 and answer["label"].numpy().tolist() == [1]
    assert answer["label_name"].numpy().tolist() == [b"green"]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_any_batch_size_answers_like_the_trained_model(
    tmp_path: Path, images: np.ndarray, policy: str
) -> None:
    model = network(policy)
    answer = served(export(model, tmp_path, COLOURS, check_images=images))
    for size in (1, 2, 7):
        found = answer(images[:size])["logits"]
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, model(images[:size], training=False), atol=1e-5)


def test_only_the_weights_are_saved(tmp_path: Path, images: np.ndarray) -> None:
    model = network()
    path = export(model, tmp_path, COLOURS, check_images=images)
    saved = tf.train.list_variables(str(path / "variables" / "variables"))
    shapes = [tuple(shape) for name, shape in saved if name.startswith("model_weights")]
    assert sorted(shapes) == sorted(tuple(w.shape) for w in model.weights)
    assert len(saved) == len(shapes) + 1  # the object graph
    assert b"adam" not in (path / "saved_model.pb").read_bytes().lower()


@pytest.mark.parametrize("value", [255.0, -1.0, np.nan])
def test_pixels_outside_the_unit_range_are_refused(colour_served: Path, value: float) -> None:
    image = np.full((1, SIDE, SIDE, 3), value, np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"in \[0, 1\].*divide 0\.\.255"):
        served(colour_served)(image)


# --- encoded images -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pixels_of(tmp_path_factory: pytest.TempPathFactory):
    """bytes -> the 0..255 pixels that the model sees: the exported model's logits are them."""
    image = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(image, keras.layers.Flatten()(image))
    names = [str(i) for i in range(SIDE * SIDE * 3)]
    check = np.zeros((1, SIDE, SIDE, 3), np.float32)
    path = export(model, tmp_path_factory.mktemp("p"), names, check_images=check)
    see = served(path, "image_bytes")
    return lambda data: np.reshape(see([data])["logits"], (SIDE, SIDE, 3)) * 255


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
    import zipfile

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
def test_other_and_broken_data_is_refused(colour_served: Path, data: bytes, message: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served(colour_served, "image_bytes")([DRAWING, data])


# --- nothing is published that was not proven ---------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_copy_that_disagrees_is_refused_and_leaves_nothing(
    tmp_path: Path, images: np.ndarray
) -> None:
    with pytest.raises(TFRobustError, match=r"differ by up to \d.*nothing was exported"):
        export(unstable_model(), tmp_path, COLOURS, check_images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_nan_is_refused(tmp_path: Path, images: np.ndarray) -> None:
    model = colour_model()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(TFRobustError, match="with finite logits"):
        export(model, tmp_path, COLOURS, check_images=images)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_version_is_replaced_only_after_the_check(
    tmp_path: Path, images: np.ndarray
) -> None:
    path = export(colour_model(), tmp_path, COLOURS, check_images=images)
    before = contents(tmp_path)
    with pytest.raises(TFRobustError):
        export(unstable_model(), tmp_path, COLOURS, check_images=images)
    assert contents(tmp_path) == before
    names = ("rouge", "vert", "bleu")
    assert export(colour_model(), tmp_path, names, check_images=images) == path
    assert [child.name for child in tmp_path.iterdir()] == ["1"]
    red = np.zeros((1, SIDE, SIDE, 3), np.float32)
    red[..., 0] = 1
    assert served(path)(red)["label_name"].numpy().tolist() == [b"rouge"]


def test_an_earlier_version_is_put_back_when_the_move_fails(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(colour_model(), tmp_path, COLOURS, check_images=images)
    before, replace = contents(tmp_path), os.replace

    def refuse(source: Path, target: Path) -> None:
        if "partial" in Path(source).name:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(TFRobustError, match="disk full.*free the path or the disk"):
        export(colour_model(), tmp_path, COLOURS, check_images=images)
    assert contents(tmp_path) == before


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path: Path, images: np.ndarray) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(TFRobustError, match="should be written to .*run/1"):
        export(colour_model(), tmp_path / "run", COLOURS, check_images=images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_names": COLOURS[:2]}, "Expected 3 label names.*found 2"),
        ({"version": 0}, "version number of 1 or more, found 0"),
        ({"check_images": np.zeros((1, SIDE, SIDE, 3), np.uint8)}, "found uint8"),
        ({"check_images": np.zeros((0, SIDE, SIDE, 3), np.float32)}, r"found float32 \[0, 8"),
        ({"check_images": np.full((1, SIDE, SIDE, 3), 9, np.float32)}, "found 9 to 9"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, images: np.ndarray, change: dict, message: str
) -> None:
    arguments = {"label_names": COLOURS, "check_images": images, **change}
    with pytest.raises(UsageError, match=message):
        export(colour_model(), tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


# --- processes that know nothing of tfrobust ----------------------------------------------

CLEAN = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfrobust", "tf_keras", "neural_structured_learning"):
            raise ImportError("forbidden here: " + name)

sys.meta_path.insert(0, Forbid())
import numpy as np
import tensorflow as tf

path, data = sys.argv[1], np.load(sys.argv[2])
"""
PLAIN = """
answer = tf.saved_model.load(path).signatures["serving_default"](images=tf.constant(data["x"]))
np.testing.assert_allclose(answer["logits"], data["logits"], atol=1e-5)
"""
KERAS3 = """
import keras

assert keras.__version__.startswith("3."), keras.__version__
image = keras.Input(data["x"].shape[1:])
for options in ({}, {"call_endpoint": "serving_default"}):
    layer = keras.layers.TFSMLayer(path, **options)
    for size in (1, len(data["x"])):
        answer = layer(data["x"][:size])["logits"]
        np.testing.assert_allclose(answer, data["logits"][:size], atol=1e-5)
    model = keras.Model(image, layer(image))
    answer = model.predict(data["x"], verbose=0)["logits"]
    np.testing.assert_allclose(answer, data["logits"], atol=1e-5)
"""


@pytest.mark.parametrize("code", [PLAIN, KERAS3], ids=["saved_model.load", "TFSMLayer"])
def test_loads_in_a_clean_process(tmp_path: Path, images: np.ndarray, code: str) -> None:
    model = network()
    path = export(model, tmp_path / "run", COLOURS, check_images=images)
    np.savez(tmp_path / "data.npz", x=images, logits=model(images, training=False))
    legacy = ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND")
    environment = {key: value for key, value in os.environ.items() if key not in legacy}
    command = [sys.executable, "-I", "-c", CLEAN + code, str(path), str(tmp_path / "data.npz")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
