"""Models that need AutoGraph, beside graphs of ours that go without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrobust.config import RunConfig, StageConfig, TrainingConfig
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.explain import EXPLAINERS
from tfrobust.explain.measures import deletion
from tfrobust.export import export
from tfrobust.models.inference import attackable, inference, needs_autograph
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, tf
from tfrobust.training.fit import fit

X = np.random.default_rng(0).random((6, 8, 8, 3), np.float32)


@keras.utils.register_keras_serializable("tests")
class HalvedWhereDark(keras.layers.Layer):
    """Asks a tensor in Python: AutoGraph makes a condition of it."""

    def call(self, x: Any) -> Any:
        if tf.reduce_mean(x) > 2:
            return x
        return 0.5 * x


@pytest.fixture
def own(small_cnn: Any) -> Any:
    """The small network, with half of its logits."""
    image, plain = keras.Input((8, 8, 3)), small_cnn()
    return keras.Model(image, HalvedWhereDark()(plain(image)))


def test_only_networks_of_known_layers_go_without_autograph(small_cnn: Any, own: Any) -> None:
    assert not needs_autograph(small_cnn())
    assert needs_autograph(own) and needs_autograph(lambda x: x)


def test_graphs_of_keras_3_do_too() -> None:
    import keras as keras_3

    image = keras_3.Input((8, 8, 3))
    dense = keras_3.layers.Dense(4)(keras_3.layers.Flatten()(image))

    class Mine(keras_3.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    assert not needs_autograph(keras_3.Model(image, dense))
    assert not needs_autograph(keras_3.Sequential([image, keras_3.layers.Flatten()]))
    assert needs_autograph(keras_3.Model(image, Mine()(dense)))
    assert needs_autograph(keras_3.Sequential([image, Mine()]))


@pytest.mark.parametrize("seen", [inference, attackable])
def test_a_condition_of_the_model_s_own_is_traced(seen: Any, own: Any) -> None:
    run = tf.function(seen(own), autograph=False)
    np.testing.assert_allclose(run(X), own(X, training=False), atol=1e-6)


def test_a_network_with_a_layer_of_its_own_is_trained_and_measured(
    own: Any, tmp_path: Path
) -> None:
    images = ImageSet((X * 255).astype("uint8"), np.arange(6, dtype="int32") % 4, tuple("abcd"))
    run = RunFolder(tmp_path / "run")
    run.create()
    stages = (StageConfig(epochs=1, learning_rate=0.1),)
    training = TrainingConfig(stages=stages, batch_size=3, select_steps=2)
    before = own.get_weights()
    splits = Splits(images, images, images, ReadLog())
    state = fit(own, splits, RunConfig(training=training), run)
    (row,) = state.rows
    assert np.isfinite(row["loss"]) and row["select_pgd"] <= row["select_clean"]
    assert not all(map(np.array_equal, before, own.get_weights()))
    assert run.best_model.is_file()


@pytest.mark.parametrize("name", ["saliency", "integrated-gradients"])
def test_it_is_explained_like_the_network_without(name: str, own: Any, small_cnn: Any) -> None:
    # Half of the logits have half of the gradient.
    target = np.zeros(6, int)
    maps, plain = (EXPLAINERS[name](model, X, target) for model in (own, small_cnn()))
    np.testing.assert_allclose(maps, plain / 2, atol=1e-6)


def test_its_deletion_curve_begins_at_its_own_probability(own: Any) -> None:
    target, maps = np.zeros(6, int), np.ones((6, 8, 8), np.float32)
    curve = deletion(own, X, target, maps, steps=2)
    np.testing.assert_allclose(curve[:, 0], tf.nn.softmax(own(X))[:, 0], atol=1e-6)


def test_it_is_exported(own: Any, tmp_path: Path) -> None:
    # The export compares the served logits with the model's itself.
    folder = export(own, tmp_path / "1", label_names=tuple("abcd"), check_images=X)
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    np.testing.assert_allclose(served(images=tf.constant(X))["logits"], own(X), atol=1e-5)
