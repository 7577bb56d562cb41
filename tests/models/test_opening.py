"""Any classifier, from any file, is the same function of images."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.transfer import transfer
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.export import export
from tfrobust.models.classifier import as_classifier
from tfrobust.models.counter import Counter
from tfrobust.models.inference import inference
from tfrobust.models.opening import load_any
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import ThreatModel

X = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype("float32")


@pytest.fixture
def model(small_cnn):
    made = small_cnn()
    made(X, training=True)  # moves the statistics away from their initial values
    return made


def keras_3_copy(model, path):
    keras_3 = pytest.importorskip("keras", minversion="3.0")
    image = x = keras_3.Input((8, 8, 3))
    for width in (8, 16):
        x = keras_3.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras_3.layers.BatchNormalization(momentum=0.5)(x)
        x = keras_3.layers.ReLU()(x)
    x = keras_3.layers.GlobalAveragePooling2D()(x)
    copy = keras_3.Model(image, keras_3.layers.Dense(4)(x))
    copy.set_weights(model.get_weights())
    copy.save(path)


def test_every_kind_of_file_gives_the_same_logits_and_gradients(model, tmp_path):
    expected = model(X, training=False).numpy()
    model.save(tmp_path / "a.keras", save_format="keras")
    model.save(tmp_path / "b.h5")
    model.save(tmp_path / "c", save_format="tf")
    export(model, tmp_path / "d", ("a", "b", "c", "d"), check_images=X)
    keras_3_copy(model, tmp_path / "e.keras")
    gradients = []
    for name in ("a.keras", "b.h5", "c", "d/1", "e.keras"):
        logits = inference(load_any(tmp_path / name))
        np.testing.assert_allclose(logits(X), expected, atol=1e-5, err_msg=name)
        with tf.GradientTape() as tape:
            x = tf.constant(X)
            tape.watch(x)
            total = tf.reduce_sum(logits(x)[:, 0])
        gradients.append(tape.gradient(total, x).numpy())
        np.testing.assert_allclose(gradients[-1], gradients[0], atol=1e-5, err_msg=name)
    assert np.abs(gradients[0]).max() > 0


def test_a_keras_3_model_and_a_function_are_evaluated_like_the_model(model, tmp_path):
    keras_3_copy(model, tmp_path / "e.keras")
    pixels = (X * 255).astype("uint8")
    y = np.argmax(model(pixels / np.float32(255), training=False), axis=1).astype("int32")
    data = ImageSet(pixels, y, tuple("abcd"))
    threat, attacks = ThreatModel("linf", 0.02), {"pgd": PGD(steps=5, random_start=False)}
    kinds = (model, load_any(tmp_path / "e.keras"), lambda x: model(x, training=False))
    masks = [evaluate(kind, data, threat, attacks).robust for kind in kinds]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_what_is_no_model_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="not found"):
        load_any(tmp_path / "none.keras")
    for name in ("broken.keras", "broken.h5"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(TFRobustError, match="cannot be read by tf_keras"):
            load_any(tmp_path / name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(TFRobustError, match="SavedModel .* cannot be read"):
        load_any(tmp_path / "folder")


def test_a_saved_model_of_two_outputs_without_logits_is_refused(tmp_path):
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(image)
    outputs = {name: keras.layers.Dense(2, name=name)(flat) for name in ("one", "two")}
    keras.Model(image, outputs).save(tmp_path / "two", save_format="tf")
    with pytest.raises(TFRobustError, match="one output, or one named 'logits'"):
        load_any(tmp_path / "two")


def test_forward_and_backward_passes_are_counted_in_loops_too(model):
    counter = Counter()
    counted = counter.wrap(inference(model))

    @tf.function
    def work(x):
        def step(i, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(counted(x))
            return i + 1, x + tape.gradient(total, x)

        _, x = tf.while_loop(lambda i, x: i < 3, step, (tf.constant(0), x))
        return counted(x[:2])

    work(tf.constant(X))
    # Three steps on 6 images, then a forward pass of 2.
    assert counter.total() == (20, 18)


def test_a_function_with_control_flow_of_its_own_is_traced(model):
    def halved_where_bright(x):
        # A condition on a tensor: outside of a graph of its own it would be an error.
        if tf.reduce_mean(x) > 2:
            return 0.5 * model(x, training=False)
        return model(x, training=False)

    pixels = (X * 255).astype("uint8")
    y = np.argmax(model(pixels / np.float32(255), training=False), axis=1).astype("int32")
    data = ImageSet(pixels, y, tuple("abcd"))
    threat, attacks = ThreatModel("linf", 0.02), {"pgd": PGD(steps=5, random_start=False)}
    masks = [evaluate(kind, data, threat, attacks).robust for kind in (model, halved_where_bright)]
    np.testing.assert_array_equal(*masks)


class HalvedWhereDark(keras.layers.Layer):
    """A layer of a user's own, with a condition on a tensor."""

    def call(self, x):
        if tf.reduce_mean(x) > 2:
            return x
        return 0.5 * x


def test_a_graph_of_layers_with_a_layer_of_its_own_is_evaluated(linear_model):
    plain = linear_model(np.random.default_rng(0).normal(size=(12, 4)), np.zeros(4))
    image = keras.Input((2, 2, 3))
    halved = keras.Model(image, HalvedWhereDark()(plain(image)))
    pixels = np.random.default_rng(1).integers(0, 256, (5, 2, 2, 3)).astype("uint8")
    y = np.argmax(plain(pixels / np.float32(255)), axis=1).astype("int32")
    data, threat = ImageSet(pixels, y, tuple("abcd")), ThreatModel("linf", 0.05)
    attacks = {"pgd": PGD(steps=5, random_start=False)}
    masks = [evaluate(model, data, threat, attacks).robust for model in (plain, halved)]
    np.testing.assert_array_equal(*masks)
    assert 0 < masks[0].sum() < len(y)


def test_images_of_another_size_are_refused_in_a_sentence(model, tmp_path):
    keras_3_copy(model, tmp_path / "e.keras")
    model.save(tmp_path / "c", save_format="tf")
    for kind in (model, load_any(tmp_path / "c"), load_any(tmp_path / "e.keras")):
        with pytest.raises(TFRobustError, match="does not take images of 9 x 9 x 3"):
            as_classifier(kind, np.zeros((1, 9, 9, 3), "float32"))
        assert as_classifier(kind, X).classes == 4


def test_transfer_takes_any_two_models(model, tmp_path):
    model.save(tmp_path / "c", save_format="tf")
    keras_3_copy(model, tmp_path / "e.keras")
    kinds = {"own": model, "saved": load_any(tmp_path / "c"),
             "keras_3": load_any(tmp_path / "e.keras"),
             "function": lambda x: model(x, training=False)}  # fmt: skip
    pixels = (X * 255).astype("uint8")
    y = np.argmax(model(pixels / np.float32(255), training=False), axis=1).astype("int32")
    data = ImageSet(pixels, y, tuple("abcd"))
    attack, threat = PGD(steps=20, random_start=False), ThreatModel("linf", 0.3)
    models = list(kinds.values())
    hits = [transfer(one, models, data, attack, threat) for one in models]
    # The same function four times: what fools one fools all, whichever was attacked.
    accuracies = {float(own.mean()) for each in hits for own in each}
    assert len(accuracies) == 1 and accuracies.pop() < 1
