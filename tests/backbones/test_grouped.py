"""Grouped convolutions are Keras's, on processors that know groups and on others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfrobust.backbones import grouped
from tfrobust.backbones.grouped import GroupedConv2D
from tfrobust.models.folding import fold
from tfrobust.runtime import keras, tf

GENERATOR = np.random.default_rng(0)


def random(*shape: int) -> Any:
    return tf.constant(GENERATOR.normal(size=shape), tf.float32)


def apart(x: Any, kernel: Any, **options: Any) -> Any:
    """The definition: each group of outputs sees its own group of inputs."""
    width = kernel.shape[2]
    groups = x.shape[-1] // width
    each = kernel.shape[3] // groups
    parts = []
    for i in range(groups):
        seen, own = x[..., i * width : (i + 1) * width], kernel[..., i * each : (i + 1) * each]
        parts.append(tf.nn.conv2d(seen, own, **options))
    return tf.concat(parts, -1)


@pytest.mark.diagonal
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "valid")])
def test_equals_its_definition_and_gradients(
    at_once: bool, stride: int, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if at_once and not grouped._at_once():
        pytest.skip("this TensorFlow has no gradient of all groups at once")
    monkeypatch.setattr(grouped, "_at_once", lambda: at_once)
    layer = GroupedConv2D(12, 3, strides=stride, padding=padding, groups=4)
    x = random(2, 9, 9, 8)
    layer(x)
    layer.bias.assign(random(12))
    results = []
    for convolve in (
        layer,
        lambda x: apart(x, layer.kernel, strides=stride, padding=padding.upper()) + layer.bias,
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = convolve(x)
            total = tf.reduce_sum(y**2)
        results.append([y, *tape.gradient(total, [x, layer.kernel, layer.bias])])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("at_once", [True, False])
def test_folds_and_reloads(at_once: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not at_once:
        monkeypatch.setattr(grouped, "_at_once", lambda: False)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(8, 3)(image)
    x = GroupedConv2D(8, 3, groups=4, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    for layer in model.layers:
        layer.set_weights([GENERATOR.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    x = random(2, 8, 8, 3)
    expected = model(x, training=False)
    np.testing.assert_allclose(fold(model)(x), expected, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(again(x), expected)


def test_it_runs_without_the_compiler_that_keras_takes() -> None:
    layer = GroupedConv2D(8, 3, groups=4)
    run = tf.function(layer).get_concrete_function(tf.TensorSpec((None, 8, 8, 8)))
    graph = run.graph.as_graph_def()
    calls = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    assert not any(
        "_XlaMustCompile" in node.attr and node.attr["_XlaMustCompile"].b for node in calls
    )
    assert {"Conv2D"} <= {node.op for node in calls}
