"""The convolution by unfolding equals TensorFlow's, backward too, and travels in files."""

from __future__ import annotations

import itertools
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrobust.backbones import build
from tfrobust.backbones.unfold import UnfoldConv2D, unfold_conv2d
from tfrobust.errors import UsageError
from tfrobust.models.opening import load_any
from tfrobust.runtime import keras, tf

GENERATOR = np.random.default_rng(0)


def random(*shape: int) -> Any:
    return tf.constant(GENERATOR.normal(size=shape), tf.float32)


def assert_close(found: Any, expected: Any) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def with_gradients(convolve: Any, inputs: list[Any], upstream: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = convolve(*inputs)
        total = tf.reduce_sum(y * upstream[tuple(map(slice, y.shape))])
    return [y, *tape.gradient(total, inputs)]


def test_one_patch_by_hand() -> None:
    # (1, 2; 3, 4) times (10, 20; 30, 40) and 5: 10 + 40 + 90 + 160 + 5.
    x = tf.reshape(tf.constant([1.0, 2, 3, 4]), (1, 2, 2, 1))
    kernel = tf.reshape(tf.constant([10.0, 20, 30, 40]), (2, 2, 1, 1))
    args = [x, kernel, tf.constant([5.0])]
    y, of_x, of_kernel, of_bias = with_gradients(
        lambda *args: unfold_conv2d(*args, padding="valid"), args, tf.ones((1, 1, 1, 1))
    )
    assert y.numpy().item() == 305
    assert of_x.numpy().ravel().tolist() == [10, 20, 30, 40]
    assert of_kernel.numpy().ravel().tolist() == [1, 2, 3, 4]
    assert of_bias.numpy().tolist() == [1]


STRIDES = [(1, 1), (2, 2), (3, 3), (2, 1), (1, 3)]
DILATIONS = [(1, 1), (2, 2), (3, 1)]
KERNELS = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 2), (7, 7)]
IMAGES = [(8, 8), (9, 9), (11, 7)]


@pytest.mark.diagonal
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("dilations", DILATIONS)
def test_equals_tensorflow_s_convolution_and_its_gradients(
    padding: str, strides: tuple[int, int], dilations: tuple[int, int]
) -> None:
    """Relative to the largest number, within 1e-5; TensorFlow's in float64 is the truth."""
    upstream = random(2, 11, 9, 4)
    for size, image in itertools.product(KERNELS, IMAGES):
        reach = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
        if padding == "valid" and (reach[0] > image[0] or reach[1] > image[1]):
            continue
        inputs = [random(2, *image, 3), random(*size, 3, 4), random(4)]
        options = {"strides": strides, "padding": padding, "dilations": dilations}

        def theirs(x: Any, kernel: Any, bias: Any) -> Any:
            # TensorFlow's processors have no gradient for dilations: zeros between the
            # kernel's taps are the same.
            kernel = spread(kernel, dilations)
            return tf.nn.conv2d(x, kernel, strides, padding.upper()) + bias

        exact = [tf.cast(one, tf.float64) for one in inputs]
        expected = with_gradients(theirs, exact, tf.cast(upstream, tf.float64))
        found = with_gradients(partial(unfold_conv2d, **options), inputs, upstream)
        for mine, right in zip(found, expected, strict=True):
            assert_close(mine, right)
        forward = tf.nn.conv2d(*inputs[:2], strides, padding.upper(), dilations=dilations)
        assert_close(found[0], forward + inputs[2])


def spread(kernel: Any, dilations: tuple[int, int]) -> Any:
    """A kernel with zeros between its taps."""
    places = [
        tf.one_hot(np.arange(k) * d, (k - 1) * d + 1, dtype=kernel.dtype)
        for k, d in zip(kernel.shape[:2], dilations, strict=True)
    ]
    return tf.einsum("ia,jb,ijco->abco", *places, kernel)


def test_pixels_that_no_patch_holds_get_no_gradient() -> None:
    # Of 6 pixels, kernels of 1 at steps of 4 see the first and the fifth.
    x, kernel = random(1, 6, 6, 1), tf.ones((1, 1, 1, 1))
    _, of_x, _ = with_gradients(
        lambda x, k: unfold_conv2d(x, k, strides=(4, 4), padding="valid"),
        [x, kernel], tf.ones((1, 2, 2, 1)),
    )  # fmt: skip
    assert [tuple(place) for place in np.argwhere(of_x[0, ..., 0])] == [
        (0, 0), (0, 4), (4, 0), (4, 4)
    ]  # fmt: skip


def test_second_derivatives_are_tensorflow_s_too() -> None:
    x, kernel = random(1, 5, 5, 2), random(3, 3, 2, 3)

    def second(convolve: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(kernel)
                total = tf.reduce_sum(convolve(x, kernel) ** 3)
            of_kernel = inner.gradient(total, kernel)
            squared = tf.reduce_sum(of_kernel**2)
        return outer.gradient(squared, x)

    assert_close(
        second(lambda x, k: unfold_conv2d(x, k, strides=(2, 2))),
        second(lambda x, k: tf.nn.conv2d(x, k, 2, "SAME")),
    )


def test_runs_in_a_graph_on_any_batch() -> None:
    kernel = random(3, 3, 3, 2)
    signature = [tf.TensorSpec((None, 8, 8, 3), tf.float32)]
    run = tf.function(
        lambda x: unfold_conv2d(x, kernel), input_signature=signature, autograph=False
    )
    for size in (1, 4):
        x = random(size, 8, 8, 3)
        assert run(x).shape == (size, 8, 8, 2)
        assert_close(run(x), tf.nn.conv2d(x, kernel, 1, "SAME"))


def test_the_layer_is_keras_s_layer() -> None:
    options = {"strides": 2, "padding": "same", "activation": "relu"}
    ours, theirs = UnfoldConv2D(5, 3, **options), keras.layers.Conv2D(5, 3, **options)
    x = random(2, 9, 7, 3)
    assert ours(x).shape == theirs(x).shape == (2, 5, 4, 5)
    theirs.set_weights([ours.kernel, random(5)])
    ours.set_weights(theirs.get_weights())
    assert_close(ours(x), theirs(x))
    again = UnfoldConv2D.from_config(ours.get_config())
    assert again.get_config() == ours.get_config()


def test_it_computes_in_the_policy_s_numbers() -> None:
    layer = UnfoldConv2D(4, 3, dtype="mixed_bfloat16")
    x = random(2, 8, 8, 3)
    with tf.GradientTape() as tape:
        y = layer(x)
        total = tf.reduce_sum(tf.cast(y, tf.float32))
    grads = tape.gradient(total, layer.trainable_weights)
    assert y.dtype == tf.bfloat16 and [g.dtype for g in grads] == [tf.float32] * 2


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        ({"groups": 2}, (8, 8, 4), "expected one group and channels last, found 2"),
        ({"data_format": "channels_first"}, (4, 8, 8), "found 1 and channels_first"),
        ({}, (None, 8, 4), r"expected images of a .*, found \(None, None, 8, 4\)"),
        ({"kernel_size": 9}, (8, 8, 4), r"found one of \(9, 9\) on \(8, 8\): choose padding"),
    ],
)
def test_what_it_does_not_do_is_told(layer: Any, shape: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        UnfoldConv2D(**{"filters": 4, "kernel_size": 3, **layer})(keras.Input(shape))


# ---- in files ----

LOADED_ANEW = """
import sys, numpy as np
from pathlib import Path
from tfrobust.models.opening import load_any
x = np.load({x!r})
for name in ("a.keras", "b.h5"):
    np.testing.assert_array_equal(load_any(Path({folder!r}) / name)(x), np.load({y!r}))
"""
SERVED = """
import sys, numpy as np, tensorflow as tf
assert "tfrobust" not in sys.modules
x, y = np.load({x!r}), np.load({y!r})
serve = tf.saved_model.load({folder!r} + "/1").signatures["serving_default"]
np.testing.assert_allclose(serve(images=tf.constant(x))["logits"], y, atol=1e-5)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks with our layers in every kind of file, images and logits."""
    from tfrobust.export import export

    path = tmp_path_factory.mktemp("unfold")
    model = build("simplenet", num_classes=3, image_shape=(32, 32, 3), convolution="unfold", seed=2)
    x = GENERATOR.random((3, 32, 32, 3), np.float32)
    np.save(path / "x.npy", x)
    np.save(path / "y.npy", model(x).numpy())
    model.save(path / "a.keras")
    keras.models.save_model(model, path / "b.h5", save_format="h5")
    export(model, path, ("a", "b", "c"), check_images=x)
    return path


def assert_runs_anew(code: str, folder: Path) -> None:
    names = {"x": str(folder / "x.npy"), "y": str(folder / "y.npy"), "folder": str(folder)}
    command = [sys.executable, "-c", code.format(**names)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_clean_process_loads_files_that_name_the_layer(folder: Path) -> None:
    assert_runs_anew(LOADED_ANEW, folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_saved_model_needs_nothing_of_ours(folder: Path) -> None:
    assert_runs_anew(SERVED, folder)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_saved_model_has_our_gradients(folder: Path) -> None:
    x, gradients = np.load(folder / "x.npy"), []
    for name in ("1", "a.keras"):
        image = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = tf.reduce_sum(load_any(folder / name)(image)[:, 0])
        gradients.append(tape.gradient(total, image))
    assert_close(*gradients)
