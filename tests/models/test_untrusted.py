"""Opening a model file runs none of the code that it carries."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from tfrobust.errors import TFRobustError
from tfrobust.models.inference import inference
from tfrobust.models.opening import load_any
from tfrobust.models.untrusted import keras_version
from tfrobust.runtime import keras


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
