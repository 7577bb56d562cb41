"""Whatever a model takes and returns, it is the same function of [0, 1] images."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.models.classifier import as_classifier, as_graph
from tfrobust.models.heads import bounded_by
from tfrobust.models.inference import attackable, inference
from tfrobust.models.inputs import input_shape
from tfrobust.models.opening import load_any
from tfrobust.models.views import InputView
from tfrobust.runtime import keras as keras_2
from tfrobust.runtime import tf

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(40, 8, 8, 3)).astype("float32")


@pytest.fixture(params=["tf_keras", "keras 3"])
def library(request):
    if request.param == "tf_keras":
        return keras_2
    return pytest.importorskip("keras", minversion="3.0")


def network(library, classes=4, last=(), channels=3, first=()):
    library.utils.set_random_seed(0)
    image = x = library.Input((8, 8, channels))
    for layer in first:
        x = layer(x)
    x = library.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    logits = library.layers.Dense(classes, name="d")(library.layers.Flatten()(x))
    whole = logits
    for layer in last:
        whole = layer(whole)
    return library.Model(image, whole), library.Model(image, logits)


def centred(logits):
    logits = np.asarray(logits, np.float64)
    return logits - logits.mean(axis=1, keepdims=True)


@pytest.mark.diagonal
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "tanh", "softsign"])
def test_a_last_activation_is_cut_off(library, activation):
    model, logits = network(library, last=[library.layers.Activation(activation)])
    made = as_classifier(model, X)
    np.testing.assert_allclose(made(X), logits(X), atol=1e-5)
    assert made.plain and made.classes == 4 and len(made.notes) == 1


def test_an_activation_of_the_last_dense_layer_is_cut_off(library):
    model, logits = network(library)
    image = library.Input((8, 8, 3))
    dense = library.layers.Dense(4, activation="softmax")
    inner = library.Model(model.inputs[0], model.layers[-2].output)
    whole = library.Sequential([image, inner, dense])
    dense.set_weights(model.layers[-1].get_weights())
    np.testing.assert_allclose(as_classifier(whole, X)(X), logits(X), atol=1e-5)


def test_an_activation_deep_in_a_nested_model_is_cut_off(library):
    model, logits = network(library, last=[library.layers.Softmax()])
    image = library.Input((8, 8, 3))
    outer = library.Model(image, library.layers.Dropout(0.5)(model(image)))
    np.testing.assert_allclose(as_classifier(outer, X)(X), logits(X), atol=1e-5)


def test_softmax_as_an_operation_is_cut_off_or_inverted(library):
    _, logits = network(library)
    softmax = tf.nn.softmax if library is keras_2 else library.ops.softmax
    model = library.Model(logits.inputs[0], softmax(logits.outputs[0]))
    np.testing.assert_allclose(centred(as_classifier(model, X)(X)), centred(logits(X)), atol=1e-4)


@pytest.mark.parametrize(
    ("function", "kind"),
    [(tf.nn.softmax, "softmax"), (tf.sigmoid, "sigmoid"), (lambda z: tf.tanh(3 * z), "tanh")],
)
def test_what_a_function_returns_is_inverted(function, kind):
    _, logits = network(keras_2)
    made = as_classifier(lambda x: function(4 * logits(x)), X)
    found, expected = np.asarray(made(X)), np.asarray(logits(X))
    # Up to a constant and a factor: the same order of the classes, and a gradient.
    np.testing.assert_array_equal(np.argsort(found), np.argsort(expected))
    assert any(kind in note for note in made.notes)


def test_a_softmax_in_half_precision_does_not_pass_for_logits():
    _, logits = network(keras_2)

    def rounded(x):
        return tf.cast(tf.nn.softmax(tf.cast(logits(x), tf.bfloat16)), tf.bfloat16)

    assert any("softmax" in note for note in as_classifier(rounded, X).notes)


def test_logits_are_left_alone(library):
    model, _ = network(library)
    made = as_classifier(model, X)
    assert made.notes == () and made.plain and made.inner is model
    assert as_classifier(lambda x: model(x), X).notes == ()
    assert bounded_by(np.array([[0.2, -0.3], [0.5, 0.1]])) == ""


def test_one_output_is_two_classes(library):
    sigmoid, logits = network(library, 1, [library.layers.Activation("sigmoid")])
    z = np.asarray(logits(X))
    for model in (sigmoid, logits, lambda x: tf.sigmoid(logits(x))[:, 0]):
        made = as_classifier(model, X)
        found = tf.nn.softmax(made(X)).numpy()
        assert made.classes == 2
        np.testing.assert_allclose(found[:, 1:], 1 / (1 + np.exp(-z)), atol=1e-4)


def test_a_softmax_over_one_output_is_refused(library):
    model, _ = network(library, 1, [library.layers.Softmax()])
    with pytest.raises(TFRobustError, match="softmax over one output"):
        as_classifier(model, X)


def test_a_model_of_pixels_in_0_255_says_so_by_its_first_layer(library):
    _, plain = network(library)
    model, _ = network(library, first=[library.layers.Rescaling(1 / 255)])
    made = as_classifier(model, X)
    np.testing.assert_allclose(made(X), plain(X), atol=1e-5)
    # Attacks see the same.
    np.testing.assert_allclose(attackable(made)(tf.constant(X)), plain(X), atol=1e-5)
    # A model that makes 0..255 of [0, 1] takes [0, 1].
    other, _ = network(library, first=[library.layers.Rescaling(255.0)])
    assert as_classifier(other, X).plain


def test_only_a_first_layer_speaks_of_the_pixels(library, tmp_path):
    model, _ = network(library, first=[library.layers.Rescaling(1 / 255)])
    image = library.Input((8, 8, 3))
    outer = library.Model(image, model(image * 255.0))
    assert as_classifier(outer, X).plain
    augment = library.Sequential([library.layers.RandomFlip(), library.layers.Dropout(0.1)])
    inner = library.Model(image, model(augment(image)))
    assert not as_classifier(inner, X).plain
    # What was made a graph of [0, 1] images stays one when it is saved and read again.
    graph = as_graph(as_classifier(model, X), X.shape[1:])
    graph.save(tmp_path / "m.keras")
    again = as_classifier(load_any(tmp_path / "m.keras"), X)
    np.testing.assert_allclose(again(X), model(X * 255), atol=1e-4)


def test_a_given_range_and_mean_are_applied():
    _, plain = network(keras_2)
    view = InputView((0, 255), (100.0, 110.0, 120.0), (50.0,))
    made = as_classifier(plain, X, view)
    expected = plain((X * 255 - np.array([100, 110, 120], "float32")) / 50)
    np.testing.assert_allclose(made(X), expected, atol=1e-4)
    assert view.as_flags() == "--input-range 0,255 --input-mean 100,110,120 --input-std 50"
    for wrong in ({"input_range": (1, 0)}, {"std": (0.0,)}, {"mean": (0, 0), "std": (1, 1, 1)}):
        with pytest.raises(UsageError):
            InputView(**wrong)
    with pytest.raises(UsageError, match="1 or 3 numbers"):
        as_classifier(plain, X, InputView(mean=(0.1, 0.2)))


def test_images_without_channels_and_flat_vectors(library):
    grey = X[..., :1]
    rows = library.Sequential([library.Input((8, 8)), library.layers.Flatten(),
                               library.layers.Dense(4)])  # fmt: skip
    vectors = library.Sequential([library.Input((64,)), library.layers.Dense(4)])
    vectors.set_weights(rows.get_weights())
    expected = np.asarray(rows(grey[..., 0]))
    np.testing.assert_allclose(as_classifier(rows, grey)(grey), expected, atol=1e-5)
    np.testing.assert_allclose(as_classifier(vectors, grey)(grey), expected, atol=1e-5)
    assert input_shape(rows) == (8, 8, 1)


def test_outputs_and_inputs_that_are_several(library):
    _, logits = network(library)
    image, z = logits.inputs[0], logits.outputs[0]
    further = library.layers.Dense(2)(z)
    named = library.Model(image, {"logits": z, "further": further})
    np.testing.assert_allclose(as_classifier(named, X)(X), logits(X), atol=1e-6)
    one = library.Model(image, {"scores": z})
    np.testing.assert_allclose(as_classifier(one, X)(X), logits(X), atol=1e-6)
    for model in (library.Model(image, [z, further]), library.Model(image, {"a": z, "b": further})):
        with pytest.raises(TFRobustError, match="several outputs"):
            as_classifier(model, X)
    other = library.Input((8, 8, 3))
    both = library.layers.Dense(4)(library.layers.Flatten()(
        library.layers.Concatenate()([image, other])))  # fmt: skip
    with pytest.raises(TFRobustError, match="2 inputs at once"):
        as_classifier(library.Model([image, other], both), X)


def test_a_model_of_one_batch_size_takes_any_number(tmp_path):
    _, logits = network(keras_2)
    module = tf.Module()
    module.model = logits
    spec = tf.TensorSpec([4, 8, 8, 3], tf.float32, name="img")
    serve = tf.function(lambda x: {"output": logits(x, training=False)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": serve})
    made = as_classifier(load_any(tmp_path / "m"), X)
    for count in (1, 4, 7):
        x = tf.constant(X[:count])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            found, expected = tf.reduce_sum(made(x)[:, 0]), tf.reduce_sum(logits(x)[:, 0])
        np.testing.assert_allclose(made(x), logits(x), atol=1e-5)
        gradients = [tape.gradient(each, x) for each in (found, expected)]
        np.testing.assert_allclose(*gradients, atol=1e-5)


def test_inputs_of_whole_numbers_pass_gradients():
    image = keras_2.Input((8, 8, 3), dtype="uint8")
    x = keras_2.layers.Rescaling(1 / 255)(image)
    z = keras_2.layers.Dense(3)(keras_2.layers.Flatten()(x))
    model = keras_2.Model(image, z)
    made = as_classifier(model, X)
    expected = model(np.rint(X * 255).astype("uint8"))
    np.testing.assert_allclose(made(np.rint(X * 255) / 255), expected, atol=1e-5)
    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch(x)
        total = tf.reduce_sum(made(x)[:, 0])
    assert np.abs(tape.gradient(total, x)).max() > 0


def test_nan_on_clean_images_is_refused():
    with pytest.raises(TFRobustError, match="NaN or infinity"):
        as_classifier(lambda x: tf.math.log(x[:, 0, 0] - 2), X)


def test_a_classifier_is_one_already(library):
    model, logits = network(library, last=[library.layers.Softmax()])
    made = as_classifier(model, X)
    assert as_classifier(made, X) is made
    np.testing.assert_allclose(inference(made)(X), logits(X), atol=1e-5)


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", ["subclass", "transposed", "custom"])
def test_a_last_layer_of_another_kind_is_not_cut(library, kind):
    layers = library.layers

    class MyDense(layers.Dense):
        """Dense, and more for all that we know."""

    class Custom(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.activation = library.activations.softmax
            self.dense = layers.Dense(5)

        def call(self, x):
            return self.activation(self.dense(x))

    image = library.Input((8, 8, 3))
    if kind == "transposed":
        x = layers.Conv2D(6, 8)(image)
        x = layers.Flatten()(layers.Conv2DTranspose(5, 1, activation="softmax")(x))
    else:
        x = layers.Dense(9, "relu")(layers.Flatten()(image))
        x = MyDense(5, activation="softmax")(x) if kind == "subclass" else Custom()(x)
    model = library.Model(image, x)
    found = as_classifier(model, X)
    np.testing.assert_array_equal(np.argmax(found(X), 1), np.argmax(model(X), 1))
    assert found.classes == 5 and any("inverted" in note for note in found.notes)


@pytest.mark.diagonal
@pytest.mark.parametrize("how", ["divide", "shift", "multiply", "resized", "normalised", "bytes"])
def test_what_first_operations_say_of_the_pixels(library, how):
    layers = library.layers
    image = library.Input((8, 8, 3), dtype="uint8" if how == "bytes" else "float32")
    if how == "bytes":
        x = (tf.cast if library is keras_2 else library.ops.cast)(image, "float32") / 255.0
    else:
        x = {
            "divide": lambda: image / 255.0, "shift": lambda: (image - 127.5) / 127.5,
            "multiply": lambda: image * (1 / 255),
            "resized": lambda: layers.Rescaling(1 / 255)(layers.Resizing(8, 8)(image)),
            "normalised": lambda: layers.Normalization(
                mean=[0.0] * 3, variance=[255.0**2] * 3)(image),
        }[how]()  # fmt: skip
    model = library.Model(image, layers.Dense(4)(layers.Flatten()(x)))
    found = as_classifier(model, X)
    whole = np.rint(X * 255)
    np.testing.assert_allclose(found(whole / 255), model(whole.astype("float32")), atol=1e-3)
    assert found.range_known
    if how != "bytes":
        other = library.Model(image, layers.Dense(4)(layers.Flatten()(layers.Conv2D(3, 1)(image))))
        assert not as_classifier(other, X).range_known


def test_sigmoids_have_probabilities_of_their_own(library):
    model, _ = network(library, last=[library.layers.Activation("sigmoid")])
    made = as_classifier(model, X)
    np.testing.assert_allclose(made.probabilities(made(X)), model(X), atol=1e-5)


def test_channels_first_is_told():
    image = keras_2.Input((3, 12, 12))
    model = keras_2.Model(image, keras_2.layers.Dense(4)(keras_2.layers.Flatten()(image)))
    with pytest.raises(TFRobustError, match="channels first"):
        as_classifier(model, X)
