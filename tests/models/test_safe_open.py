"""Opening a model file runs none of the code that it carries."""

from __future__ import annotations

import json
import zipfile

import h5py
import numpy as np
import pytest

from tfrobust.errors import TFRobustError
from tfrobust.models.inference import inference
from tfrobust.models.opening import load_any
from tfrobust.models.safe_open import keras_version
from tfrobust.runtime import keras, tf


def model_with_code(trace):
    def leave_a_trace(x, path=str(trace)):
        open(path, "w").close()
        return x

    image = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(keras.layers.Lambda(leave_a_trace)(image))
    return keras.Model(image, keras.layers.Dense(2)(flat))


@pytest.mark.parametrize("file", ["m.h5", "m.keras"])
def test_a_lambda_layer_is_refused_and_not_run(tmp_path, file):
    trace = tmp_path / "trace"
    model_with_code(trace).save(tmp_path / file)
    trace.unlink()  # building the model ran it once
    with pytest.raises(TFRobustError, match="carries code of its own .a Lambda layer"):
        load_any(tmp_path / file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "function"),
    [("os", "system"), ("builtins", "input"), ("tfrobust.run", "write_text"), ("kerase", "f")],
)
def test_a_function_of_a_foreign_module_is_refused(tmp_path, small_cnn, module, function):
    small_cnn().save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][-1]["config"]["activation"] = {
        "module": module, "class_name": "function", "config": function,
        "registered_name": function,
    }  # fmt: skip
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "hostile.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(TFRobustError, match="carries code of its own"):
        load_any(tmp_path / "hostile.keras")


@pytest.mark.parametrize("file", ["m.h5", "m.keras"])
def test_an_honest_file_opens_and_tells_its_version(tmp_path, small_cnn, file):
    model = small_cnn()
    model.save(tmp_path / file)
    assert keras_version(tmp_path / file) == keras.__version__
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(inference(load_any(tmp_path / file))(x), model(x), atol=1e-6)


# From the published advisories: what a configuration may hold in the place of an activation, or
# as a layer of its own. Each would run, read, write or fetch something when it is opened.
def function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def layer(module, kind, **config):
    return {"module": module, "class_name": kind, "config": {"name": "evil", **config},
            "registered_name": None, "name": "evil", "inbound_nodes": [],
            "build_config": {"input_shape": [None, 8, 8, 3]}}  # fmt: skip


HOSTILE = {
    "CVE-2024-3660 Lambda": layer("keras.layers", "Lambda", function={"class_name": "__lambda__"}),
    "CVE-2025-1550 any function": function("subprocess", "check_output"),
    "CVE-2025-8747 get_file": function("keras.utils", "get_file"),
    "CVE-2025-8747 get_file, inner": function("keras.src.utils.file_utils", "get_file"),
    "CVE-2025-9906 safe mode lifted": function("keras.config", "enable_unsafe_deserialization"),
    "CVE-2025-9906 its inner name": function(
        "keras.src.saving.serialization_lib", "enable_unsafe_deserialization"
    ),
    "CVE-2025-9905 byte code": {"class_name": "__lambda__", "config": {"value": ["4wEAAAA="]}},
    "CVE-2025-12058 a path as words": layer("keras.layers", "StringLookup",
                                            vocabulary="/etc/passwd"),
    "a URL as words": layer("keras.layers", "TextVectorization", vocabulary="http://x/y"),
    "a pickle": layer("keras.layers", "TorchModuleWrapper", content="gASV"),
    "another SavedModel": layer("keras.layers", "TFSMLayer", filepath="/tmp/other"),
    "a file operation": layer("keras.layers", "TFOpLambda", function="io.write_file"),
    "Python in a graph": layer("keras.layers", "TFOpLambda", function="py_function"),
    "any type": {"class_name": "__typespec__", "module": "os", "spec_name": "system"},
    "the loader itself": function("keras.models", "load_model") | {"module": "keras.saving"},
    "a built-in": function("builtins", "exec"),
    "the file system": function("keras.src.backend.common.global_state", "set_global_attribute"),
}  # fmt: skip


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("kind", list(HOSTILE))
def test_nothing_of_the_published_advisories_is_opened(
    tmp_path, library, ending, kind, monkeypatch
):
    made = keras if library == "tf_keras" else pytest.importorskip("keras", minversion="3.0")
    image = made.Input((8, 8, 3))
    model = made.Model(image, made.layers.Dense(2, "relu")(made.layers.Flatten()(image)))
    path = tmp_path / f"m.{ending}"
    model.save(path)
    hostile = HOSTILE[kind]

    def poisoned(text):
        config = json.loads(text)
        layers = config["config"]["layers"]
        if "inbound_nodes" in hostile:
            layers.append(hostile)
        else:
            layers[-1]["config"]["activation"] = hostile
        return json.dumps(config)

    rewrite(path, poisoned)

    def opened(*args, **kwargs):
        raise AssertionError("Keras was asked to open it")

    monkeypatch.setattr(made.models, "load_model", opened)
    with pytest.raises(TFRobustError, match="if you trust it"):
        load_any(path)


def rewrite(path, poisoned):
    """Passes the configuration in a model file through a function."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = poisoned(file.attrs["model_config"])
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = poisoned(members["config.json"]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "name", ["../../evil.txt", "/tmp/evil.txt", "assets/../../evil", "C:/evil"]
)
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path, small_cnn, name):
    small_cnn().save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "a") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(TFRobustError, match="outside of its folder"):
        load_any(tmp_path / "m.keras")


def test_weights_that_lie_in_another_file_are_refused(tmp_path, small_cnn):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(3)
    small_cnn().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file["model_weights"]["stolen"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    with pytest.raises(TFRobustError, match="reads another file"):
        load_any(tmp_path / "m.h5")


def test_a_configuration_that_is_no_json_is_refused(tmp_path, small_cnn):
    small_cnn().save(tmp_path / "m.keras")
    rewrite(tmp_path / "m.keras", lambda text: "[" * 100_000)
    with pytest.raises(TFRobustError, match="JSON"):
        load_any(tmp_path / "m.keras")


def test_a_saved_model_that_reads_a_file_is_refused(tmp_path):
    module = tf.Module()
    (tmp_path / "secret.txt").write_text("secret")

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3], tf.float32)])
    def serve(x):
        text = tf.io.read_file(str(tmp_path / "secret.txt"))
        return {"logits": tf.reduce_mean(x, [1, 2]) + tf.cast(tf.strings.length(text), tf.float32)}

    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": serve})
    with pytest.raises(TFRobustError, match="ReadFile"):
        load_any(tmp_path / "m")


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_what_networks_are_made_of_is_opened(tmp_path, library, ending):
    made = keras if library == "tf_keras" else pytest.importorskip("keras", minversion="3.0")
    layers = made.layers
    image = made.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(layers.RandomFlip()(image))
    base = made.applications.MobileNetV2(input_shape=(32, 32, 3), weights=None, include_top=False)
    x = layers.GlobalAveragePooling2D()(base(x))
    x = layers.Dense(8, "relu", kernel_regularizer=made.regularizers.L2(1e-4))(x)
    x = layers.add([x, x]) if library == "keras" else tf.nn.relu(x) + 1.0
    model = made.Model(image, layers.Dense(3, "softmax", kernel_constraint="max_norm")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(tmp_path / f"m.{ending}")
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype("float32")
    loaded = load_any(tmp_path / f"m.{ending}")
    np.testing.assert_allclose(loaded(x, training=False), model(x, training=False), atol=1e-5)
