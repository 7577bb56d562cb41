"""What Keras offers to every model works for a robust one too, in both Keras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from robust_cases import assert_same, data, small

import tfrobust as tr
from tfrobust.data import load
from tfrobust.runtime import keras as keras_2
from tfrobust.runtime import tf

ROOT = Path(__file__).resolve().parents[2]


def test_the_snippet_of_the_documentation(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library.utils.set_random_seed(0)
    splits, layers = load("digits"), library.layers

    def batches(part, count):
        x, y = part.pixels(slice(count)), part.labels[:count]
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)

    train_ds, val_ds = batches(splits.train, 400), batches(splits.select, 64)
    test_ds, x = batches(splits.test, 64), splits.test.pixels(slice(8))
    model = library.Sequential([
        library.Input(x.shape[1:]), layers.AveragePooling2D(4),
        layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(10),
    ])  # fmt: skip

    robust = tr.robust(model, tr.Trades(beta=6, attack=tr.PGD(steps=7)), tr.Linf(8 / 255))
    robust.compile("sgd", metrics=["accuracy"])
    robust.fit(train_ds, validation_data=val_ds, epochs=30, callbacks=[
        tr.callbacks.RobustCheckpoint("runs/a", tr.PGD(steps=10)),
        tr.callbacks.StagedUnfreezing("head:2:0.05,all:10:0.01"),
        tr.callbacks.OverfittingGuard(), tr.callbacks.TimeBudget(minutes=10)])  # fmt: skip
    clean, robust_accuracy = (
        robust.evaluate(test_ds, return_dict=True)[name] for name in ("accuracy", "robust_accuracy")
    )
    robust.predict(x)
    robust.save("robust.keras")

    assert 0.2 < robust_accuracy <= clean
    kept = tr.load_any("runs/a/best.keras")
    assert len(kept.get_weights()) == len(model.get_weights())
    loaded = tr.load_robust("robust.keras")
    np.testing.assert_allclose(loaded.predict(x), robust.base_model.predict(x), atol=1e-6)
    loaded.compile("sgd")
    loaded.fit(train_ds, epochs=1)


X, Y = data()


def losses(model, x=X, y=Y, **given):
    history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, validation_data=(x, y),
                        verbose=0, **given)  # fmt: skip
    return history.history["loss"]


def test_several_steps_in_one_execution_are_the_same_steps(library):
    one, four = small(library), small(library, steps_per_execution=4)
    np.testing.assert_array_equal(losses(one), losses(four))
    assert_same(one.base_model, four.base_model)


JIT = """
import sys
import numpy as np
sys.path.append("tests/training")
from robust_cases import data, network
import tfrobust as tr
from tfrobust.runtime import keras as library
if sys.argv[1] == "keras":
    import keras as library
x, y = data()
# XLA draws other random numbers.
method = tr.AdversarialTraining(attack=tr.PGD(steps=2, random_start=False))
found = []
for jit in (False, True):
    model = tr.robust(network(library, None), method, tr.L2(0.3))
    model.compile(library.optimizers.SGD(0.05), jit_compile=jit)
    assert bool(model.jit_compile if library.__name__ == "keras" else model._jit_compile) == jit
    fit = model.fit(x, y, batch_size=16, epochs=2, shuffle=False, validation_data=(x, y), verbose=0)
    found.append(fit.history["loss"])
np.testing.assert_allclose(*found, rtol=1e-3)
"""

MIRRORED = """
import sys
import numpy as np
sys.path.append("tests/training")
from tfrobust.runtime import keras as library, tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from robust_cases import data
import tfrobust as tr
if sys.argv[1] == "keras":
    import keras as library
x, y = data()
plain = tr.PGD(steps=2, random_start=False)
def trained(scope, method):
    with scope.scope():
        library.utils.set_random_seed(0)
        image = z = library.Input((8, 8, 3))
        z = library.layers.Conv2D(6, 3, strides=2, activation="relu")(z)
        z = library.layers.Dense(3, "softmax")(library.layers.Flatten()(z))
        model = tr.robust(library.Model(image, z), method, tr.L2(0.3), validation_attack=plain)
        model.compile(library.optimizers.SGD(0.05, momentum=0.9))
    given = dict(batch_size=16, epochs=2, shuffle=False, validation_data=(x, y), verbose=0)
    weights = np.linspace(0.5, 1.5, len(x)).astype("float32")
    found = model.fit(x, y, sample_weight=weights, callbacks=[tr.callbacks.WeightAveraging(0.5)],
                      **given).history
    measured = model.evaluate(x, y, verbose=0, return_dict=True)
    assert measured["accuracy"] == found["val_accuracy"][-1]
    return found, model.base_model.get_weights()
spread = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert spread.num_replicas_in_sync == 2
both = (tf.distribute.get_strategy(), spread)
(one, mine), (two, theirs) = (trained(each, tr.Mart(attack=plain)) for each in both)
assert one.keys() == two.keys()
for name in one:
    np.testing.assert_allclose(one[name], two[name], rtol=1e-4, err_msg=name)
for a, b in zip(mine, theirs):
    np.testing.assert_allclose(a, b, atol=1e-4)
"""


@pytest.mark.parametrize("name", [pytest.param("tf_keras", marks=pytest.mark.slow), "keras"])
@pytest.mark.parametrize(
    "script",
    [pytest.param(JIT, marks=pytest.mark.slow, id="jit"), pytest.param(MIRRORED, id="mirrored")],
)
def test_in_a_process_of_its_own(script, name):
    """Two devices are made, or determinism, which XLA goes without, is off, before all else."""
    done = subprocess.run([sys.executable, "-c", script, name], cwd=ROOT, capture_output=True,
                          text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(params=["while training", "while making"])
def halves(request, library):
    """What sets the float16 policy, and what takes it back before training or after."""
    put = keras_2.mixed_precision.set_global_policy
    if library is not keras_2:
        put = library.config.set_dtype_policy
    yield put, request.param
    put("float32")


@pytest.mark.diagonal
def test_float16_learns_without_nan(library, halves):
    put, when = halves
    put("mixed_float16")
    layers = library.layers
    library.utils.set_random_seed(0)
    image = library.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(6, 3, strides=2, activation="relu")(image))
    base = library.Model(image, layers.Dense(3, dtype="float32")(x))
    if when == "while making":
        put("float32")
    model = tr.robust(base, tr.Trades(attack=tr.PGD(steps=2)), tr.Linf(0.05))
    model.compile(library.optimizers.Adam(0.01))
    assert "LossScale" in type(model.optimizer).__name__
    scale = model.optimizer.loss_scale if library is keras_2 else model.optimizer.dynamic_scale
    first = float(np.asarray(scale))
    found = losses(model)
    assert first > 1000 and np.isfinite(found).all() and found[-1] < found[0]
    assert all(np.isfinite(w).all() for w in base.get_weights())
    assert {np.asarray(w).dtype for w in base.get_weights()} == {np.dtype("float32")}


def test_tiny_gradients_survive_float16(library):
    """A loss so small that its gradient in float16 is 0 without scaling."""
    put = keras_2.mixed_precision.set_global_policy
    if library is not keras_2:
        put = library.config.set_dtype_policy
    x, y = data(16)
    put("mixed_float16")
    try:
        layers = library.layers
        library.utils.set_random_seed(0)
        image = library.Input((8, 8, 3))
        z = layers.Dense(4, use_bias=False, name="first")(layers.Flatten()(image))
        base = library.Model(image, layers.Dense(3, dtype="float32")(z))
    finally:
        put("float32")
    model = tr.robust(base, tr.Standard(), tr.Linf(0.05))
    model.compile(library.optimizers.SGD(1.0))
    before = np.array(base.get_layer("first").get_weights()[0])
    model.fit(x, y, sample_weight=np.full(16, 1e-8, "float32"), batch_size=16, verbose=0)
    assert np.abs(base.get_layer("first").get_weights()[0] - before).max() > 0
