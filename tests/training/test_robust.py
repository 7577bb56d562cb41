"""A robust model is a Keras model, whichever Keras and whatever it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from robust_cases import IN_KERAS_3, RNG, data, network, same_start

import tfrobust as tr
from tfrobust.runtime import keras as keras_2
from tfrobust.runtime import nsl, tf
from tfrobust.training import trades
from tfrobust.training.recipe import Recipe

METHODS = [tr.Standard, tr.AdversarialTraining, tr.Regularisation, tr.Trades, tr.Mart, tr.Fast,
           tr.Mixture, tr.Blend, tr.Noise]  # fmt: skip


# The methods share all but their loss; three of them run by default.
DIFFERENT = (tr.Regularisation, tr.Trades, tr.Fast)


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=[] if one in DIFFERENT else [pytest.mark.slow]) for one in METHODS],
)
def test_both_keras_train_alike(method, monkeypatch):
    # Where TRADES starts, 0.001 from x, the gradient of the divergence is a difference of nearly
    # equal predictions, mostly rounding errors: two Keras, or one with BatchNorm folded and one
    # without, then climb another way (losses 0.7 % apart after 20 steps). From farther off the
    # method is the same, and its gradients are well conditioned.
    monkeypatch.setattr(trades, "_START", 0.1)
    keras_3 = pytest.importorskip("keras", minversion="3.0")
    # Two Keras round differently. Where ReLU bends, that is enough to send the rest another way,
    # about once in a few hundred draws: a smooth network, and always the same draw.
    x, y = data(rng=np.random.default_rng(0))
    models = [network(one, None, activation="tanh") for one in (keras_2, keras_3)]
    same_start(models, np.random.default_rng(1))
    losses = []
    settings = {} if method in (tr.Standard, tr.Fast, tr.Noise) else {
        "attack": tr.PGD(steps=2)}  # fmt: skip
    for one, model in zip((keras_2, keras_3), models, strict=True):
        # In L2 a rounding error moves an image by as little; in linf it may turn a sign.
        wrapped = tr.robust(model, method(**settings), tr.L2(0.5))
        wrapped.compile(one.optimizers.SGD(0.01))
        found = wrapped.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0)
        losses.append(found.history["loss"])
    # What a rounding error of TRADES grows to in the last steps depends on the processor and on
    # TensorFlow's kernels; the first twelve are alike everywhere.
    near = 1e-2 if method is tr.Trades else 1e-5
    np.testing.assert_allclose(losses[0][:3], losses[1][:3], rtol=1e-5)
    np.testing.assert_allclose(*losses, rtol=near)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=near)


def test_regularisation_is_nsl_s_own_loss():
    from tfrobust.training.nsl import NSL

    x, y = data(16)
    base = network(keras_2, None)
    recipe = Recipe(tr.Linf(0.05), tr.PGD(steps=2, early_stop=False), adv_weight=2.0)
    wrapped = NSL(base, recipe)
    wrapped.compile(keras_2.optimizers.SGD(0.0))
    ours = tr.robust(base, tr.Regularisation(attack=tr.PGD(steps=2), adv_weight=2.0), tr.Linf(0.05))
    ours.compile(keras_2.optimizers.SGD(0.0))
    x_adv = ours.craft(tf.constant(x), tf.constant(y, tf.int32))
    losses = [one.losses_of(tf.constant(x), x_adv, tf.constant(y, tf.int32))["loss"]
              for one in (wrapped, ours)]  # fmt: skip
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert isinstance(wrapped, nsl.keras.AdversarialRegularization)


@pytest.mark.diagonal
@pytest.mark.parametrize("last", ["softmax", "sigmoid", None])
def test_the_last_activation_plays_no_part_in_training_and_stays(library, last):
    x, y = data()
    models = [network(library, last), network(library, None)]
    same_start(models)
    for model in models:
        method = tr.Regularisation(attack=tr.PGD(steps=2))
        wrapped = tr.robust(model, method, tr.L2(0.5))
        wrapped.compile(library.optimizers.SGD(0.05))
        wrapped.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    found = wrapped.predict(x, verbose=0)
    np.testing.assert_allclose(found, models[1](x, training=False), atol=1e-5)
    assert models[0].get_layer("top").activation.__name__ == (last or "linear")


@pytest.mark.diagonal
@pytest.mark.parametrize(
    "form", ["arrays", "pairs", "dicts", "one-hot", "weights", "class weights"]
)
def test_fit_takes_what_keras_takes(library, form):
    x, y = data()
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    dicts = pairs.map(lambda a, b: {"image": a, "label": b})
    given = {
        "arrays": (x, y), "pairs": (pairs,), "dicts": (dicts,), "one-hot": (x, np.eye(3)[y]),
        "weights": (x, y), "class weights": (x, y),
    }[form]  # fmt: skip
    more = {"weights": {"sample_weight": np.linspace(0, 2, len(x))},
            "class weights": {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}}.get(form, {})  # fmt: skip
    wrapped = tr.robust(network(library), tr.AdversarialTraining(attack=tr.PGD(steps=2)),
                        tr.Linf(0.05))  # fmt: skip
    wrapped.compile(library.optimizers.Adam(0.01), metrics=["accuracy"])
    history = wrapped.fit(*given, epochs=12, validation_data=pairs, verbose=0, **more).history
    assert {"loss", "adv_accuracy", "val_accuracy", "val_robust_accuracy"} <= set(history)
    assert history["loss"][-1] < history["loss"][0]
    measured = wrapped.evaluate(pairs, verbose=0, return_dict=True)
    assert all(isinstance(one, float) for one in [*measured.values(), *sum(history.values(), [])])
    own = (np.argmax(wrapped.base_model.predict(x, verbose=0), axis=1) == y).mean()
    assert measured["accuracy"] == pytest.approx(own, abs=1e-6)
    assert measured["robust_accuracy"] <= measured["accuracy"]


def test_images_of_no_weight_teach_nothing(library):
    x, y = data()
    wrong = np.concatenate([y[:32], (y[32:] + 1) % 3])
    weights = np.repeat([1.0, 0.0], 32)
    models = [network(library, None), network(library, None)]
    same_start(models)
    for model, labels in zip(models, (y, wrong), strict=True):
        wrapped = tr.robust(model, tr.Trades(attack=tr.PGD(steps=1)), tr.Linf(0.05))
        wrapped.compile(library.optimizers.SGD(0.1))
        wrapped.fit(x, labels, sample_weight=weights, batch_size=64, epochs=2, shuffle=False,
                    verbose=0)  # fmt: skip
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@IN_KERAS_3
def test_a_backbone_with_augmentation_and_pixels_of_0_to_255(library):
    library.utils.set_random_seed(0)
    layers = library.layers
    base = library.applications.MobileNetV2(
        input_shape=(32, 32, 3), include_top=False, weights=None, alpha=0.35
    )
    base.trainable = False
    image = library.Input((32, 32, 3))
    x = layers.RandomFlip("horizontal")(layers.Rescaling(1 / 127.5, offset=-1)(image))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(base(x, training=False)))
    model = library.Model(image, layers.Dense(1, "sigmoid")(x))
    y = np.arange(16) % 2
    x = RNG.uniform(0, 120, (16, 32, 32, 3)) + 130 * y[:, None, None, None]
    wrapped = tr.robust(model, tr.Fast(), tr.Linf(8 / 255))
    before = [np.array(w) for w in base.get_weights()]
    wrapped.compile("adam")
    wrapped.fit(x, y, batch_size=8, epochs=2, validation_data=(x, y), verbose=0)
    for one, other in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert wrapped.predict(x, verbose=0).shape == (16, 1)
    crafted = wrapped.craft(wrapped._pixels(tf.constant(x, tf.float32)), tf.constant(y, tf.int32))
    assert float(tf.reduce_min(crafted)) >= 0 and float(tf.reduce_max(crafted)) <= 1


@pytest.mark.parametrize(("nested", "scale"), [(False, 255), (True, 1)])
def test_random_layers_at_the_beginning_come_before_the_attack(library, nested, scale):
    layers = library.layers
    first = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.3)]
    first = [library.Sequential(first)] if nested else first
    model = network(library, first=[*first, *([layers.Rescaling(1 / 255)] if scale > 1 else [])])
    wrapped = tr.robust(model, tr.Trades(attack=tr.PGD(steps=1)), tr.Linf(0.05))
    wrapped.compile("adam")
    x, y = data(scale=scale)
    pixels, seen = tf.constant(x / scale, tf.float32), []

    def craft(images, labels):
        seen.append(images.numpy())
        return images

    object.__setattr__(wrapped, "craft", craft)
    # Of one and the same view of the image, the clean and the adversarial prediction agree.
    wrapped.train_step((tf.constant(x), tf.constant(y)))
    assert np.abs(seen[0] - pixels).max() > 0.05 and 0 <= seen[0].min() <= seen[0].max() <= 1
    views = [wrapped.logits(pixels, training=True) for _ in range(2)]
    np.testing.assert_array_equal(*views)
    assert wrapped.predict(x, verbose=0).shape == (64, 3)


@IN_KERAS_3
def test_it_is_saved_and_trained_on(library, tmp_path):
    x, y = data()
    wrapped = tr.robust(network(library), tr.Trades(beta=3.0, attack=tr.PGD(steps=2)), tr.L2(0.5))
    wrapped.compile("adam")
    wrapped.fit(x, y, epochs=1, verbose=0)
    wrapped.save(tmp_path / "robust.keras")
    loaded = tr.load_robust(tmp_path / "robust.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), wrapped.predict(x, verbose=0), atol=1e-6
    )
    assert loaded.method == wrapped.method and loaded.recipe.threat_model == tr.L2(0.5)
    loaded.compile("adam")
    loaded.fit(x, y, epochs=1, verbose=0)
    wrapped.base_model.save(tmp_path / "base.keras")
    report = tr.evaluate(tmp_path / "base.keras", (x, y), tr.Linf(0.02), "fgsm")
    own = (np.argmax(wrapped.predict(x, verbose=0), axis=1) == y).mean()
    assert report.clean_accuracy == pytest.approx(own, abs=1e-6)


@IN_KERAS_3
def test_a_subclassed_softmax_trains_as_its_logits_do(library):
    class Soft(library.Model):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def call(self, x, training=None):
            return self.base(x, training=training)

    x, y = data()
    plain, inner = network(library, None), network(library)
    same_start([plain, inner])
    soft = Soft(inner)
    soft(x[:1])
    losses = []
    for model in (plain, soft):
        wrapped = tr.robust(model, tr.AdversarialTraining(attack=tr.PGD(steps=2)), tr.L2(0.3))
        wrapped.compile(library.optimizers.SGD(0.02))
        found = wrapped.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        losses.append(found.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)


@IN_KERAS_3
def test_a_subclassed_model_and_keras_s_own_callbacks(library, tmp_path):
    base = network(library)

    class Mine(library.Model):
        def __init__(self):
            super().__init__()
            self.base = base

        def call(self, x, training=None):
            return self.base(x, training=training)

    x, y = data()
    model = Mine()
    model(x[:1])
    wrapped = tr.robust(model, tr.AdversarialTraining(attack=tr.PGD(steps=2)), tr.Linf(0.05))
    schedule = library.optimizers.schedules.CosineDecay(0.05, 20)
    wrapped.compile(library.optimizers.SGD(schedule))
    stop = library.callbacks.EarlyStopping("val_robust_accuracy", patience=1, mode="max")
    history = wrapped.fit(x, y, epochs=30, validation_data=(x, y), callbacks=[stop], verbose=0)
    assert len(history.history["loss"]) < 30


def test_wrong_arguments_are_told(library):
    with pytest.raises(tr.UsageError, match="Keras model"):
        tr.robust(lambda x: x)
    wrapped = tr.robust(network(library))
    with pytest.raises(tr.UsageError, match="loss"):
        wrapped.compile("adam", loss="mse")


@IN_KERAS_3
def test_the_callbacks(library, tmp_path):
    x, y = data()
    wrapped = tr.robust(network(library), tr.AdversarialTraining(attack=tr.PGD(steps=1)),
                        tr.Linf(0.05))  # fmt: skip
    wrapped.compile(library.optimizers.Adam(0.01))
    base = wrapped.base_model
    first = [np.array(w) for w in base.layers[1].get_weights()]
    seen = []

    class Watch(library.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernel = np.array(base.layers[1].get_weights()[0])
            rate = float(np.asarray(wrapped.optimizer.learning_rate))
            seen.append((np.array_equal(kernel, first[0]), round(rate, 4)))

    keep = tr.callbacks.RobustCheckpoint(tmp_path / "run", tr.PGD(steps=3))
    stages = tr.callbacks.StagedUnfreezing("head:2:0.05,all:2:0.01")
    history = wrapped.fit(x, y, epochs=9, batch_size=16, validation_data=(x, y), verbose=0,
                          callbacks=[stages, keep, Watch()])  # fmt: skip
    # The head alone for two epochs, then all for two, each at its own rate; then no more.
    assert seen[:4] == [(True, 0.05), (True, 0.05), (False, 0.01), (False, 0.01)]
    assert len(history.history["loss"]) <= 5
    assert keep.best == pytest.approx(max(history.history["val_robust_accuracy"]))
    report = tr.evaluate(keep.path, (x, y), tr.Linf(0.05), "fgsm")
    assert report.clean_accuracy >= keep.best - 1e-6
    budget = tr.callbacks.TimeBudget(minutes=0.002)
    wrapped.fit(x, y, epochs=10_000, batch_size=16, callbacks=[budget], verbose=0)


def test_callbacks_refuse_what_they_cannot_do(library, tmp_path):
    x, y = data(16)
    wrapped = tr.robust(network(library), tr.Standard(), tr.Linf(0.05))
    wrapped.compile("adam")
    with pytest.raises(tr.UsageError, match="validation_data"):
        wrapped.fit(x, y, verbose=0, callbacks=[tr.callbacks.RobustCheckpoint(tmp_path)])
    with pytest.raises(tr.UsageError, match="blocks"):
        wrapped.fit(x, y, verbose=0, callbacks=[tr.callbacks.StagedUnfreezing("77:1:0.1")])
    with pytest.raises(tr.UsageError, match="minutes"):
        tr.callbacks.TimeBudget(0)


@pytest.mark.diagonal
@pytest.mark.parametrize("kind", ["bytes", "unit"])
def test_pixels_of_another_range_are_refused(library, kind):
    first = [library.layers.Rescaling(1 / 255)] if kind == "unit" else []
    wrapped = tr.robust(network(library, first=first), tr.Standard(), tr.Linf(0.05))
    wrapped.compile("adam")
    x, y = data(16, 255.0 if kind == "bytes" else 1.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="images: expected values in 0"):
        wrapped.fit(x, y, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="images: expected values in 0"):
        wrapped.evaluate(x, y, verbose=0)
