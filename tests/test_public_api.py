"""The public names as users write them, for models and images of either Keras and any form."""

from __future__ import annotations

import configparser
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfrobust as tr
from tfrobust import typing
from tfrobust.runtime import keras as keras_2
from tfrobust.runtime import tf
from tfrobust.testing import small_model

ROOT = Path(__file__).resolve().parents[1]
COLOURS = np.array([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.8, 0.8, 0.2]])


@pytest.fixture(params=["tf_keras", "keras 3"])
def library(request):
    if request.param == "tf_keras":
        return keras_2
    return pytest.importorskip("keras", minversion="3.0")


def data(count=60):
    rng = np.random.default_rng(0)
    y = np.arange(count) % 4
    x = COLOURS[y][:, None, None] + rng.normal(0, 0.05, (count, 12, 12, 3))
    return np.clip(x, 0, 1).astype("float32"), y


def functional(library, last="softmax"):
    layers = library.layers
    image = library.Input((12, 12, 3))
    x = layers.Conv2D(3, 1, name="colours")(image)
    dense = layers.Dense(4, last)
    model = library.Model(image, dense(layers.GlobalAveragePooling2D()(x)))
    model.get_layer("colours").set_weights([np.eye(3)[None, None], np.zeros(3)])
    dense.set_weights([10 * COLOURS.T, -5 * (COLOURS**2).sum(axis=1)])
    return model


def sequential(library):
    base = functional(library)
    model = library.Sequential([library.Input((12, 12, 3)), *base.layers[1:]])
    return model


def subclassed(library):
    base = functional(library)

    class Mine(library.Model):
        def __init__(self):
            super().__init__()
            self.base = base

        def call(self, x, training=None):
            return self.base(x)

    return Mine()


BUILDERS = [functional, sequential, subclassed]


@pytest.mark.diagonal
@pytest.mark.parametrize("build", BUILDERS)
def test_a_model_is_attacked_and_measured(library, build):
    model, (x, y) = build(library), data()
    ball = tr.Linf(0.3)
    x_adv = tr.PGD(steps=5, restarts=2).perturb(model, x, y, ball, seed=0)
    assert x_adv.shape == x.shape and x_adv.dtype == np.float32
    assert np.abs(x_adv - x).max() <= 0.3 + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1
    np.testing.assert_array_equal(x_adv, tr.PGD(steps=5, restarts=2).perturb(model, x, y, ball))
    report = tr.evaluate(model, (x, y), ball, attacks="pgd:steps=5:restarts=2")
    own = (np.argmax(model(x), axis=1) == y).mean()
    assert report.clean_accuracy == pytest.approx(own, abs=1e-6)
    attacked = (np.argmax(model(x_adv), axis=1) == y).mean()
    # Other random starts: about the same.
    assert report.robust_accuracy == pytest.approx(attacked, abs=0.15)
    assert report.robust_accuracy < report.clean_accuracy


@pytest.mark.diagonal
@pytest.mark.parametrize("build", BUILDERS)
def test_a_model_is_explained(library, build):
    model, (x, _) = build(library), data(6)
    found = tr.explain(model, tf.constant(x), "saliency")
    if build is subclassed:
        # Of log p, for what lies before the softmax cannot be had.
        assert found.shape == x.shape and np.abs(found).max() > 0
        with pytest.raises(tr.UsageError, match="saliency"):
            tr.explain(model, x, "gradcam")
        return
    expected = tr.explain(functional(keras_2, None), x, "saliency")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    maps = tr.explain(model, x, method="gradcam", target=1)
    assert maps.shape == (6, 12, 12) and maps.min() >= 0 and maps.max() > 0


@pytest.mark.diagonal
@pytest.mark.parametrize("build", [functional, sequential])
def test_a_model_is_exported(library, build, tmp_path):
    model, (x, _) = build(library), data(6)
    target = tr.export(model, tmp_path / "a", class_names=list("rgby"))
    # The second time the room is a module already.
    importlib.import_module("tfrobust.export")
    tr.export(model, tmp_path / "b")
    served = tf.saved_model.load(str(target)).signatures["serving_default"](tf.constant(x))
    np.testing.assert_allclose(served["probabilities"], model(x), atol=1e-5)
    np.testing.assert_allclose(tr.load_any(target)(tf.constant(x)), served["logits"], atol=1e-6)


def of_every_form():
    x, y = data()
    whole = (x * 255).round().astype("uint8")
    pairs = tf.data.Dataset.from_tensor_slices((x, y))
    dicts = pairs.map(lambda a, b: {"image": a, "label": b})
    return {
        "arrays": (x, y), "bytes": (whole, y), "tensors": (tf.constant(x), tf.constant(y)),
        "one-hot": (x, np.eye(4)[y]), "0..255": (whole.astype("float32"), y[:, None]),
        "pairs": pairs, "batches": pairs.batch(7), "dicts": dicts,
        "batches of dicts": dicts.batch(8),
        "weights": pairs.map(lambda a, b: (a, b, 1.0)).batch(7),
    }  # fmt: skip


@pytest.mark.parametrize("form", list(of_every_form()))
def test_images_of_every_form_are_the_same_images(form):
    expected = tr.as_images(data())
    found = tr.as_images(of_every_form()[form])
    np.testing.assert_array_equal(found.labels, expected.labels)
    pixels = [one.pixels(slice(None)) for one in (found, expected)]
    np.testing.assert_allclose(*pixels, atol=0.5 / 255 + 1e-6)


def test_files_and_names_are_images_too(tmp_path):
    x, y = data()
    np.savez(tmp_path / "d.npz", x=x, y=y)
    assert len(tr.as_images(tmp_path / "d.npz")) == 60
    assert tr.as_images("digits").image_shape[2] == 3
    report = tr.evaluate(functional(keras_2), str(tmp_path / "d.npz"), tr.L2(0.1), "fgsm")
    assert report.clean_accuracy == 1
    for wrong in (x, 3, (x,), tf.data.Dataset.from_tensor_slices(x)):
        with pytest.raises(tr.UsageError):
            tr.as_images(wrong)


def test_a_report_is_saved_and_drawn(tmp_path):
    report = tr.evaluate(functional(keras_2), data(), tr.Linf(0.1), ["fgsm", "pgd:steps=3"])
    file = report.save(tmp_path / "runs" / "a")
    assert f'"robust_accuracy": {report.robust_accuracy:g}'[:24] in file.read_text()
    assert isinstance(report.flags, tuple)
    figure = report.plot()
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == [
        "clean", "fgsm", "pgd", "worst case",
    ]  # fmt: skip
    # What a notebook asks for.
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_grey_images_and_the_four_balls():
    image = keras_2.Input((12, 12, 1))
    model = keras_2.Sequential([image, keras_2.layers.Flatten(), keras_2.layers.Dense(3)])
    x = np.random.default_rng(0).uniform(size=(9, 12, 12, 1)).astype("float32")
    y = np.argmax(model(x), axis=1)
    for ball in (tr.Linf(0.05), tr.L2(0.5), tr.L1(3.0), tr.L0(3)):
        x_adv = tr.PGD(steps=4).perturb(model, x, y, ball)
        assert bool(ball.contains(tf.constant(x_adv), tf.constant(x)).numpy().all())
    assert tr.evaluate(model, (x[..., 0], y), tr.Linf(0.05), "fgsm").clean_accuracy == 1


def test_wrong_arguments_are_told():
    model, (x, y) = functional(keras_2), data()
    for images, labels in ((x * 255, y), ((x * 255).astype("uint8"), y), (x, y[:3]), (x, y / 2)):
        with pytest.raises(tr.UsageError):
            tr.PGD().perturb(model, images, labels, tr.Linf(0.1))
    with pytest.raises(tr.UsageError, match="pgd"):
        tr.evaluate(model, (x, y), tr.Linf(0.1), "pdg")


def test_the_names_are_listed_and_typed():
    assert {"evaluate", "PGD", "Linf", "explain", "export"} <= set(dir(tr))
    for name in tr.__all__:
        assert getattr(tr, name) is not None, name
    stub = (ROOT / "tfrobust" / "__init__.pyi").read_text()
    assert all(f"import {name} as {name}\n" in stub for name in tr.__all__)
    assert (ROOT / "tfrobust" / "py.typed").is_file()


def test_every_public_module_is_checked_strictly():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    (strict,) = [name for name in settings if name.startswith("mypy-tfrobust,")]
    assert settings[strict].getboolean("warn_return_any")
    assert set(tr._PLACES.values()) <= set(strict.removeprefix("mypy-").split(","))


def test_what_is_public_fits_the_protocols():
    x = np.zeros((2, 6, 6, 3), np.float32)
    assert isinstance(tr.as_classifier(small_model(), x), typing.Classifier)
    methods = (tr.Trades(), tr.Standard(), tr.Regularisation())
    assert all(isinstance(method, typing.Method) for method in methods)
    for name in tr.ATTACKS:
        attack = tr.ATTACKS[name]()
        assert isinstance(attack, typing.Attack), name
        if getattr(attack, "minimal", False):
            assert isinstance(attack, typing.MinimalAttack), name
    assert not isinstance(lambda model, x, y, ball, seed: x, typing.Attack)
    assert all(callable(one) for one in map(tr.EXPLAINERS.__getitem__, tr.EXPLAINERS))


@pytest.mark.parametrize(
    "first",
    ["import tensorflow as tf, keras", "import tf_keras",
     *(pytest.param(one, marks=pytest.mark.slow) for one in ("import keras", "import numpy"))],
)  # fmt: skip
def test_any_order_of_imports(first):
    code = f"""
{first}
import tfrobust as tr
from tfrobust import typing
import keras, numpy as np
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
x = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype("float32")
y = np.argmax(model(x), axis=1)
print(tr.evaluate(model, (x, y), tr.Linf(0.1), "fgsm").clean_accuracy)
"""
    clean = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200,
        env={**clean, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["1.0"], done.stderr[-2000:]


def test_an_unbatched_image_is_no_batch_of_rows():
    x, y = data(24)
    rows = tf.data.Dataset.from_tensor_slices((x, np.eye(12)[y]))
    found = tr.as_images(rows)
    assert found.image_shape == (12, 12, 3) and found.labels.tolist() == y.tolist()


def test_labels_of_any_form_and_of_no_class():
    model, (x, y) = functional(keras_2), data(12)
    made = [tr.PGD(steps=2).perturb(model, x, one, tr.Linf(0.1)) for one in (y, np.eye(4)[y])]
    np.testing.assert_array_equal(*made)
    with pytest.raises(tr.UsageError, match="labels in 0..3"):
        tr.PGD(steps=2).perturb(model, x, y + 3, tr.Linf(0.1))
