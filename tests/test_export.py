"""Export: what is served equals what was trained, or nothing is published."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export import export
from tfrobust.runtime import keras, setup, tf

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
    noise = keras.layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x)))
    return keras.Model(image, noise(mean))


def test_a_network_with_dropout_is_exported(tmp_path: Path, images: np.ndarray) -> None:
    setup()  # as the command line does: dropout then draws from a variable
    image = keras.Input((SIDE, SIDE, 3))
    dropped = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(image))
    path = export(keras.Model(image, dropped), tmp_path, COLOURS, check_images=images)
    logits = served(path)(images)["logits"]
    np.testing.assert_allclose(logits, images.mean(axis=(1, 2)), atol=1e-6)


@pytest.fixture(scope="module")
def colour_served(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Path:
    return export(colour_model(), tmp_path_factory.mktemp("c"), COLOURS, check_images=images)


@pytest.fixture(scope="module")
def network_served(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray):
    """The network, and what was exported of it."""
    model = network()
    return model, export(model, tmp_path_factory.mktemp("n"), COLOURS, check_images=images)


def served(path: Path, name: str = "serving_default"):
    loaded = tf.saved_model.load(str(path))
    # The signature holds its variables weakly: the loaded object must live as long.
    return lambda value: loaded.signatures[name](tf.constant(value))


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


def test_any_batch_size_answers_like_the_trained_model(network_served, images: np.ndarray) -> None:
    check_batch_sizes(*network_served, images)


def test_a_network_of_mixed_precision_answers_in_float32(
    tmp_path: Path, images: np.ndarray
) -> None:
    model = network("mixed_bfloat16")
    check_batch_sizes(model, export(model, tmp_path, COLOURS, check_images=images), images)


def check_batch_sizes(model: keras.Model, path: Path, images: np.ndarray) -> None:
    answer = served(path)
    for size in (1, 2, 7):
        found = answer(images[:size])["logits"]
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, model(images[:size], training=False), atol=1e-5)


def test_only_the_weights_are_saved(network_served) -> None:
    model, path = network_served
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


# --- nothing is published that was not proven ---------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_model_of_nan_is_refused(tmp_path: Path, images: np.ndarray) -> None:
    model = colour_model()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    with pytest.raises(TFRobustError, match="expected finite logits"):
        export(model, tmp_path, COLOURS, check_images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_disagrees_is_refused_and_an_earlier_version_stays_until_one_agrees(
    tmp_path: Path, images: np.ndarray, colour_served: Path
) -> None:
    path = shutil.copytree(colour_served, tmp_path / "1")
    before = contents(tmp_path)
    with pytest.raises(TFRobustError, match=r"differ by up to \d.*nothing was exported"):
        export(unstable_model(), tmp_path, COLOURS, check_images=images)
    assert contents(tmp_path) == before
    names = ("rouge", "vert", "bleu")
    assert export(colour_model(), tmp_path, names, check_images=images) == path
    assert [child.name for child in tmp_path.iterdir()] == ["1"]
    red = np.zeros((1, SIDE, SIDE, 3), np.float32)
    red[..., 0] = 1
    assert served(path)(red)["label_name"].numpy().tolist() == [b"rouge"]


def test_an_earlier_version_is_put_back_when_the_move_fails(
    tmp_path: Path, images: np.ndarray, colour_served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(colour_served, tmp_path / "1")
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
    with pytest.raises(TFRobustError, match="run/1"):
        export(colour_model(), tmp_path / "run", COLOURS, check_images=images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_names": COLOURS[:2]}, "Expected 3 label names.*found 2"),
        ({"version": 0}, "version number of .*, found 0"),
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


def test_loads_in_a_clean_process(tmp_path: Path, images: np.ndarray, network_served) -> None:
    model, path = network_served
    np.savez(tmp_path / "data.npz", x=images, logits=model(images, training=False))
    legacy = ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND")
    environment = {key: value for key, value in os.environ.items() if key not in legacy}
    code = CLEAN + PLAIN + KERAS3
    command = [sys.executable, "-I", "-c", code, str(path), str(tmp_path / "data.npz")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
