"""Weights load whole and exactly, or not at all and with the misfits named."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from refusals import refused

from tfrobust.backbones import BACKBONES, build
from tfrobust.backbones.weights import fetch
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.runtime import keras

FORMATS = ("weights.h5", "legacy.h5", "whole.h5", "whole.keras")


def formats(*default: str) -> list[Any]:
    """All of them, those that are not named in the slow tests."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in default else slow) for name in FORMATS]


# Each format is read by one test of all.
SOME, ONE = formats("weights.h5", "whole.keras"), formats("weights.h5")


def small(num_classes: int = 3, alpha: float = 0.35, **options: Any) -> Any:
    return build(
        "mobilenetv2", num_classes=num_classes, image_shape=(32, 32, 3), alpha=alpha, **options
    )


@pytest.fixture(scope="module")
def trained() -> Any:
    """A classifier whose every variable differs from a new one's."""
    model = small(seed=3)
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def files(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    paths = {name: folder / name for name in FORMATS}
    paths["weights.h5"] = folder / "of.weights.h5"
    for name, path in paths.items():
        if name == "whole.h5":
            keras.models.save_model(trained, path, save_format="h5")
        elif name == "whole.keras":
            trained.save(path)
        else:
            trained.save_weights(path)
    return paths


def same(a: Any, b: Any, *, head: bool = True) -> bool:
    pairs = list(zip(a.get_weights(), b.get_weights(), strict=True))
    return all(np.array_equal(x, y) for x, y in (pairs if head else pairs[:-2]))


# ---- what fits ----


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", FORMATS)
def test_a_classifier_s_file_loads_whole(
    name: str, files: dict[str, Path], trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # Other resizing and dropout change the graph, not the variables.
    model = small(resize=48, dropout=0.1, weights=str(files[name]))
    assert same(model, trained) and not caplog.records


@pytest.mark.parametrize("name", ONE)
def test_a_head_for_other_classes_is_left_out_aloud(
    name: str, files: dict[str, Path], trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = small(num_classes=7, weights=str(files[name]), seed=5)
    assert same(model, trained, head=False)
    np.testing.assert_array_equal(
        model.get_layer("logits").kernel, small(num_classes=7, seed=5).get_layer("logits").kernel
    )
    assert "the head for 3 classes" in caplog.text and "for 7" in caplog.text


def test_published_weights_give_keras_s_own_features(shared_data: Path) -> None:
    file = shared_data / "weights" / "mobilenet_v2_1.0_96_no_top.h5"
    model = small(alpha=1.0, resize=96, weights=str(file))
    published = keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), include_top=False, weights=str(file)
    )
    ours = keras.Model(
        model.input, [model.get_layer("resize").output, model.get_layer("out_relu").output]
    )
    pixels, features = ours(np.random.default_rng(1).random((3, 32, 32, 3), np.float32))
    np.testing.assert_array_equal(features, published(pixels))
    assert np.ptp(features) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet121", "efficientnetb0"])
def test_a_file_of_keras_applications_loads(name: str, tmp_path: Path) -> None:
    # Built second, so Keras numbers the unnamed layers of the two models differently.
    published = getattr(keras.applications, BACKBONES[name].constructor)(
        include_top=True, weights=None, classes=4
    )
    published.save_weights(tmp_path / "published.h5")
    model = build(
        name, num_classes=4, image_shape=(32, 32, 3), weights=str(tmp_path / "published.h5")
    )
    expected = {
        one.name: one.get_weights()
        for one in published.layers
        if not isinstance(one, keras.layers.Normalization)
    }
    expected["logits"] = expected["predictions"]
    found = [one for one in model.layers if one.weights and one.name in expected]
    assert len(found) == sum(map(bool, expected.values())) - 1
    for layer in found:
        for mine, theirs in zip(layer.get_weights(), expected[layer.name], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_layers_of_other_names_load_in_order(trained: Any, tmp_path: Path) -> None:
    renamed = keras.models.clone_model(
        trained,
        clone_function=lambda layer: type(layer).from_config(
            {**layer.get_config(), "name": f"old_{layer.name}"}
        ),
    )
    # Without the head, whose name alone tells it from the backbone.
    features = keras.Model(renamed.input, renamed.get_layer("old_avg_pool").output)
    features.set_weights(trained.get_weights()[:-2])
    features.save_weights(tmp_path / "renamed.h5")
    assert same(small(weights=str(tmp_path / "renamed.h5")), trained, head=False)


def test_attention_s_inner_layers_load_each_in_its_place(tmp_path: Path) -> None:
    # Query, key and value have one shape: a file that lists them in another order would fit.
    shape = {"num_classes": 3, "image_shape": (32, 32, 3), "alpha": 0.25}
    source = build("vit", **shape)
    generator = np.random.default_rng(0)
    source.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in source.get_weights()])
    for name in ("of.weights.h5", "legacy.h5", "whole.keras"):
        save = source.save if name.endswith("keras") else source.save_weights
        save(tmp_path / name)
        assert same(build("vit", weights=str(tmp_path / name), **shape), source), name


@pytest.mark.parametrize("name", ["of.weights.h5", "legacy.h5", "whole.keras"])
def test_both_convolutions_hold_the_same_weights(name: str, tmp_path: Path) -> None:
    shape = {"num_classes": 3, "image_shape": (32, 32, 3), "alpha": 0.25}
    source = build("simplenet_plus", **shape)
    save = source.save if name.endswith("keras") else source.save_weights
    save(tmp_path / name)
    path = str(tmp_path / name)
    assert same(build("simplenet_plus", convolution="unfold", weights=path, **shape), source)


# ---- what does not ----


@pytest.fixture(scope="module")
def target() -> Any:
    """A model that refusals, by contract, leave untouched."""
    return small()


@pytest.mark.parametrize("name", SOME)
def test_another_width_is_refused_by_layer_and_shape(name: str, files: dict[str, Path]) -> None:
    # The first convolution has 32 alpha channels, rounded to a multiple of 8 but not by more
    # than a tenth down: 11.2 becomes 16, and 24 stays.
    message = refused(small(alpha=0.75), files[name])
    assert "Conv1 expected [(3, 3, 3, 24)], found [(3, 3, 3, 16)]; bn_Conv1 expected" in message
    assert "more: choose a file of the same network and alpha" in message


def test_another_family_is_refused_by_layer(files: dict[str, Path]) -> None:
    model = build("resnet50", num_classes=3, image_shape=(32, 32, 3))
    message = refused(model, files["legacy.h5"])
    # 53 convolutions and 53 BatchNormalizations of ResNet50, 52 and 52 of MobileNetV2.
    assert "do not fit resnet50 in 210 layers: conv1_conv is missing from the file" in message
    assert "conv1_conv expected [(7, 7, 3, 64), (64,)]" in refused(model, files["whole.keras"])


@pytest.mark.parametrize("name", ["legacy.h5", "weights.h5"])
def test_one_missing_layer_is_named(
    name: str, files: dict[str, Path], tmp_path: Path, target: Any
) -> None:
    path = tmp_path / files[name].name
    shutil.copy(files[name], path)
    with h5py.File(path, "r+") as file:
        if name == "legacy.h5":
            file["block_3_expand"].attrs["weight_names"] = []
        else:
            del file["layers"]["conv2d_34"]
    # MobileNetV2's 35th and last convolution that is not depthwise is its top.
    layer = "block_3_expand" if name == "legacy.h5" else "Conv_1"
    assert f"in 1 layers: {layer} is missing from the file: choose" in refused(target, path)


def test_one_layer_too_many_is_named(files: dict[str, Path], tmp_path: Path, target: Any) -> None:
    shutil.copy(files["weights.h5"], tmp_path / "more.weights.h5")
    with h5py.File(tmp_path / "more.weights.h5", "r+") as file:
        file["layers/conv2d_35/vars/0"] = np.zeros(3)
    message = refused(target, tmp_path / "more.weights.h5")
    assert "in 1 layers: conv2d_35 of the file is not in the network" in message


def test_numbers_that_are_none_are_refused(
    files: dict[str, Path], tmp_path: Path, target: Any
) -> None:
    shutil.copy(files["weights.h5"], tmp_path / "nan.weights.h5")
    with h5py.File(tmp_path / "nan.weights.h5", "r+") as file:
        file["layers/conv2d_3/vars/0"][0, 0, 0, 0] = np.nan
    message = refused(target, tmp_path / "nan.weights.h5")
    assert "found NaN or infinity in /layers/conv2d_3/vars/0" in message


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_refused(
    name: str, files: dict[str, Path], tmp_path: Path, target: Any
) -> None:
    path = tmp_path / files[name].name
    whole = files[name].read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        assert "cannot be read as Keras HDF5 or .keras" in refused(target, path)


@pytest.mark.parametrize("name", ["text.h5", "text.keras", "picture.png"])
def test_a_file_of_another_kind_is_refused(name: str, tmp_path: Path, target: Any) -> None:
    (tmp_path / name).write_text("no weights here")
    assert "cannot be read as Keras HDF5 or .keras" in refused(target, tmp_path / name)


def test_hdf5_that_holds_no_layers_is_refused(tmp_path: Path, target: Any) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    assert "cannot be read as Keras HDF5 or .keras" in refused(target, tmp_path / "data.h5")


def test_a_missing_file_or_a_misspelt_word_is_refused(tmp_path: Path, target: Any) -> None:
    assert "expected 'imagenet', 'none' or a file" in refused(target, tmp_path)
    with pytest.raises(TFRobustError, match="Weights imagnet: expected 'imagenet', 'none' or a f"):
        small(weights="imagnet")


# ---- the download ----


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and a proxy that refuses every connection."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (tmp_path / ".keras" / "models").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES[name].url])
def test_offline_the_file_and_its_place_are_named(name: str, home: Path) -> None:
    with pytest.raises(TFRobustError) as error:
        fetch(BACKBONES[name], alpha=1.0, side=32)
    message = str(error.value)
    assert f"ImageNet weights of {name} could not be downloaded" in message
    assert "fetch https://storage.googleapis.com/" in message
    assert f"put it at {home / '.keras' / 'models'}/" in message and "\n" not in message


def test_a_cached_download_is_used(home: Path, trained: Any) -> None:
    # Images of 100 pixels are nearest to the weights for 96.
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"
    trained.save_weights(home / ".keras" / "models" / name)
    model = build(
        "mobilenetv2", num_classes=3, image_shape=(100, 120, 3), alpha=0.35, weights="imagenet"
    )
    assert same(model, trained)


def test_a_width_without_imagenet_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="alpha to be one of 0.35, 0.5, .*, found 0.4"):
        small(alpha=0.4, weights="imagenet")


def test_a_network_without_published_weights_wants_a_file() -> None:
    with pytest.raises(UsageError, match="of vit: expected a local file, Keras publishes none"):
        build("vit", num_classes=3, image_shape=(32, 32, 3), weights="imagenet")
