"""What must hold of a training step, guarantee by guarantee."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.errors import UsageError
from tfrobust.runtime import keras, nsl, setup, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.batch_norm import batch_norm_layers
from tfrobust.training.nsl import adv_config
from tfrobust.training.step import Recipe

THREAT = ThreatModel("linf", 0.1)
FGSM_STEP = PGD(steps=1, random_start=False, early_stop=False)
PGD_STEPS = PGD(steps=3, early_stop=False)


def make(method, model, *, attack=PGD_STEPS, optimizer=None, **settings):
    wrapped = METHODS[method](model, Recipe(THREAT, attack, **settings))
    wrapped.compile(optimizer or keras.optimizers.SGD(0.1))
    return wrapped


def batch_of(count=6, side=8, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": tf.constant(rng.uniform(0, 1, (count, side, side, 3)), tf.float32),
        "label": tf.constant(rng.integers(0, classes, count), tf.int32),
    }


def moving(model):
    return [v.numpy() for layer in batch_norm_layers(model) for v in layer.non_trainable_weights]


def softmax_loss(logits, y):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y])


def linear_case(linear_model):
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(12, 3)), rng.normal(size=3)
    x = rng.uniform(0.2, 0.8, (5, 2, 2, 3)).astype("float32")
    return linear_model(weights, bias), weights, bias, x, np.array([0, 1, 2, 0, 1], "int32")


def test_nsl_loss_and_update_by_hand_on_a_linear_model(linear_model):
    model, weights, bias, x, y = linear_case(linear_model)
    wrapped = make("nsl", model, attack=FGSM_STEP, adv_weight=0.2)
    logs = wrapped.train_step({"image": tf.constant(x), "label": tf.constant(y)})

    def terms(flat):
        # p - onehot is the gradient by the logits, (p - onehot) W^T that by the pixels.
        logits = flat @ weights + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return logits, p / p.sum(axis=1, keepdims=True) - np.eye(3)[y]

    flat = x.reshape(5, 12)
    logits, error = terms(flat)
    adversarial = np.clip(flat + 0.1 * np.sign(error @ weights.T), 0, 1)
    adv_logits, adv_error = terms(adversarial)
    expected = softmax_loss(logits, y) + 0.2 * softmax_loss(adv_logits, y)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    # One step of SGD at 0.1; x_adv is a constant to it: no gradient flows through it.
    grad = (flat.T @ error + 0.2 * adversarial.T @ adv_error) / 5
    updated = model.get_layer("logits").get_weights()[0]
    np.testing.assert_allclose(updated, weights - 0.1 * grad, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_nsl_agrees_with_stock_nsl_where_that_crafts_rightly(linear_model, steps):
    model, *_, x, y = linear_case(linear_model)
    recipe = Recipe(THREAT, PGD(steps=steps, random_start=False, early_stop=False), adv_weight=0.5)
    stock = nsl.keras.AdversarialRegularization(
        model, label_keys=("label",), adv_config=adv_config(recipe)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    stock.compile(keras.optimizers.SGD(0.0), loss=loss)
    batch = {"image": tf.constant(x), "label": tf.constant(y)}
    expected = stock.evaluate(batch, verbose=0, return_dict=True)["loss"]
    wrapped = METHODS["nsl"](model, recipe)
    wrapped.compile(keras.optimizers.SGD(0.0))
    np.testing.assert_allclose(wrapped.train_step(batch)["loss"], expected, atol=1e-5)


def test_nsl_parameters_are_all_set_from_the_threat_model():
    neighbor = adv_config(Recipe(ThreatModel("l2", 0.5), PGD(steps=5), adv_weight=2.0))
    config = neighbor.adv_neighbor_config
    assert neighbor.multiplier == 2.0
    assert config.adv_grad_norm == nsl.configs.NormType.L2
    assert (config.pgd_epsilon, config.pgd_iterations, config.random_init) == (0.5, 5, True)
    # In l2: 4 * eps / steps = 4 * .5 / 5
    assert config.adv_step_size == pytest.approx(0.4)
    assert (config.clip_value_min, config.clip_value_max) == ({"image": 0.0}, {"image": 1.0})


@pytest.mark.parametrize("count", [1, 3, 6])
def test_crafting_stays_in_ball_and_bounds_for_any_batch_size(small_cnn, count):
    wrapped = make("nsl", small_cnn())
    batch = batch_of(count)
    x_adv = tf.function(wrapped.craft)(batch["image"], batch["label"])
    assert np.all(THREAT.contains(x_adv, batch["image"]))
    assert np.any(x_adv != batch["image"])


def test_crafting_never_moves_the_statistics(small_cnn):
    model = small_cnn()
    wrapped, before = make("nsl", model), moving(model)
    wrapped.craft(**dict(zip("xy", batch_of().values(), strict=True)))
    for old, new in zip(before, moving(model), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("policy", ["clean", "adversarial", "both", "none"])
def test_only_the_named_batches_move_the_statistics(small_cnn, policy):
    model, batch = small_cnn(), batch_of()
    wrapped = make("nsl", model, batch_norm=policy, optimizer=keras.optimizers.SGD(0.0))
    first = batch_norm_layers(model)[0]
    x_adv = wrapped.craft(batch["image"], batch["label"])
    conv = keras.Model(model.input, model.layers[1].output)
    means = {"clean": conv(batch["image"]), "adversarial": conv(x_adv)}
    means = {k: v.numpy().mean(axis=(0, 1, 2)) for k, v in means.items()}
    wrapped.train_step(batch)
    # Momentum .5 from a mean of 0: half of the batch's mean; clean first, then adversarial.
    expected = {
        "clean": means["clean"] / 2,
        "adversarial": means["adversarial"] / 2,
        "both": means["clean"] / 4 + means["adversarial"] / 2,
        "none": np.zeros_like(means["clean"]),
    }[policy]
    np.testing.assert_allclose(first.moving_mean.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_frozen_batch_norm_neither_moves_nor_learns(small_cnn, method):
    model = small_cnn()
    for layer in batch_norm_layers(model):
        layer.trainable = False
    wrapped = make(method, model)
    before = [v.numpy() for layer in batch_norm_layers(model) for v in layer.weights]
    wrapped.train_step(batch_of())
    after = [v.numpy() for layer in batch_norm_layers(model) for v in layer.weights]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_weights_through_fit_with_a_short_last_batch(small_cnn, method):
    def train():
        model = small_cnn()
        wrapped = make(method, model)
        data = tf.data.Dataset.from_tensor_slices(batch_of(10)).batch(4)
        wrapped.fit(data, epochs=2, verbose=0)
        return model.get_weights()

    for one, two in zip(train(), train(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_metrics_are_those_of_the_batch(small_cnn):
    wrapped = make("nsl", small_cnn(), optimizer=keras.optimizers.SGD(0.0))
    batch = batch_of()
    logs = wrapped.train_step(batch)
    logits = wrapped.base_model(batch["image"], training=True)
    expected = np.mean(np.argmax(logits, axis=1) == batch["label"].numpy())
    np.testing.assert_allclose(logs["clean_accuracy"], expected, atol=1e-6)
    assert 0 <= float(logs["adv_accuracy"]) <= 1


def test_a_weight_of_zero_leaves_the_pass_out(small_cnn):
    wrapped = make("nsl", small_cnn(), clean_weight=0.0)
    batch = batch_of()
    x_adv = wrapped.craft(batch["image"], batch["label"])
    terms = wrapped.losses_of(batch["image"], x_adv, batch["label"])
    assert "clean" not in terms and "adv" in terms


def test_mixed_bfloat16_trains_without_nan(small_cnn):
    try:
        setup(precision="mixed_bfloat16", deterministic=False)
        model = small_cnn()
        setup(deterministic=False)
        wrapped = make("nsl", model)
        for seed in range(5):
            logs = wrapped.train_step(batch_of(seed=seed))
        assert np.isfinite(float(logs["loss"]))
        assert model.compute_dtype == "bfloat16" or model.layers[1].compute_dtype == "bfloat16"
        assert model.output.dtype == tf.float32
        assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    finally:
        setup(deterministic=False)


def test_training_makes_a_network_more_robust_than_standard_training(small_cnn):
    """Two classes told apart by a weak colour and a strong brightness signal."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 256).astype("int32")
    x = rng.uniform(0.3, 0.5, (256, 8, 8, 3)).astype("float32")
    x += 0.02 * (2 * y - 1)[:, None, None, None]
    x[:, :4] += 0.3 * y[:, None, None, None]
    x = np.clip(x, 0, 1)
    data = tf.data.Dataset.from_tensor_slices({"image": x, "label": y}).batch(64)
    robust = {}
    for method in METHODS:
        model = small_cnn(classes=2)
        make(method, model, optimizer=keras.optimizers.Adam(0.01)).fit(data, epochs=15, verbose=0)
        x_adv = PGD(steps=20)(model, tf.constant(x), y, THREAT, tf.constant([0, 0]))
        robust[method] = np.mean(np.argmax(model(x_adv), axis=1) == y)
    assert robust["nsl"] > 0.9
    assert robust["nsl"] > robust["standard"] + 0.05


def test_wrong_settings_are_named():
    with pytest.raises(UsageError, match="batch_norm"):
        Recipe(THREAT, PGD_STEPS, batch_norm="some")
    with pytest.raises(UsageError, match="adv_weight"):
        Recipe(THREAT, PGD_STEPS, clean_weight=0.0, adv_weight=0.0)
