"""What must hold of a training step, guarantee by guarantee."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from training_cases import FGSM_STEP, PGD_STEPS, THREAT, batch_of, make

from tfrobust.attacks.gradient import PGD
from tfrobust.errors import UsageError
from tfrobust.runtime import keras, nsl, setup, tf
from tfrobust.threat_model import ThreatModel
from tfrobust.training import METHODS
from tfrobust.training.batch_norm import batch_norm_layers
from tfrobust.training.nsl import adv_config
from tfrobust.training.recipe import Recipe

# Every method that crafts anything.
CRAFTING = tuple(name for name in METHODS if name != "standard")
# Those with one training pass, over what they crafted.
ALONE = tuple(name for name in CRAFTING if name not in ("nsl", "trades", "mart"))


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
    wrapped = METHODS["nsl"].step()(model, recipe)
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


@pytest.mark.diagonal
@pytest.mark.parametrize("method", CRAFTING)
@pytest.mark.parametrize("count", [1, 3])
def test_crafting_stays_in_ball_and_bounds_for_any_batch_size(small_cnn, method, count):
    wrapped = make(method, small_cnn(), adv_probability=1.0, noise_std=0.5)
    batch = batch_of(count)
    x_adv = wrapped.craft(batch["image"], batch["label"])
    assert x_adv.shape == batch["image"].shape and np.any(x_adv != batch["image"])
    # The two that add noise beyond the ball say so; `fast` still keeps to the bounds.
    assert np.all(THREAT.contains(x_adv, batch["image"])) == (method not in ("fast", "noise"))
    assert (np.min(x_adv) >= 0 and np.max(x_adv) <= 1) == (method != "noise")


@pytest.mark.parametrize("method", METHODS)
def test_crafting_never_moves_the_statistics(small_cnn, method):
    model = small_cnn()
    wrapped, before = make(method, model), moving(model)
    for step in range(4):
        wrapped.optimizer.iterations.assign(step)
        wrapped.craft(*batch_of().values())
    for old, new in zip(before, moving(model), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("method", CRAFTING)
def test_no_gradient_flows_through_what_is_crafted(small_cnn, method):
    model, batch = small_cnn(), batch_of()
    wrapped = make(method, model, adv_probability=1.0)
    with tf.GradientTape() as tape:
        x_adv = wrapped.craft(*batch.values())
        total = tf.reduce_sum(x_adv)
    grads = tape.gradient(total, model.trainable_variables)
    assert all(grad is None or not np.any(grad) for grad in grads)


@pytest.mark.parametrize("method", CRAFTING)
def test_same_seed_and_step_craft_the_same_whatever_ran_before(small_cnn, method):
    batch, attack = batch_of(), PGD(steps=1, step_size=0.05, early_stop=False)
    wrapped = make(method, small_cnn(), attack=attack)

    def crafted(step, seed=3):
        wrapped.recipe = dataclasses.replace(wrapped.recipe, seed=seed)
        wrapped.optimizer.iterations.assign(step)
        return wrapped.craft(*batch.values()).numpy()

    first = [crafted(step) for step in range(4)]
    others = [crafted(step, seed=4) for step in range(4)]
    for step in (0, 3):
        np.testing.assert_array_equal(first[step], crafted(step))
    # A mixture has clean batches, which are alike.
    assert len({each.tobytes() for each in first}) > 1
    assert any(np.any(a != b) for a, b in zip(first, others, strict=True))


def expected_means(model, wrapped, batch):
    """The first BatchNorm's mean after one step under each policy, by hand."""
    x_adv = wrapped.craft(batch["image"], batch["label"])
    conv = keras.Model(model.input, model.layers[1].output)
    means = {"clean": conv(batch["image"]), "adversarial": conv(x_adv)}
    means = {k: v.numpy().mean(axis=(0, 1, 2)) for k, v in means.items()}
    # Momentum .5 from a mean of 0: half of the batch's mean; clean first, then adversarial.
    return {
        "clean": means["clean"] / 2,
        "adversarial": means["adversarial"] / 2,
        "both": means["clean"] / 4 + means["adversarial"] / 2,
        "none": np.zeros_like(means["clean"]),
    }


@pytest.mark.diagonal
@pytest.mark.parametrize("method", ["nsl", "trades", "mart"])
@pytest.mark.parametrize("policy", ["clean", "adversarial", "both", "none"])
def test_only_the_named_batches_move_the_statistics(small_cnn, method, policy):
    model, batch = small_cnn(), batch_of()
    wrapped = make(method, model, batch_norm=policy, optimizer=keras.optimizers.SGD(0.0))
    expected = expected_means(model, wrapped, batch)[policy]
    wrapped.train_step(batch)
    found = batch_norm_layers(model)[0].moving_mean.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.diagonal
@pytest.mark.parametrize("method", ALONE)
@pytest.mark.parametrize("policy", ["clean", "adversarial"])
def test_the_only_batches_there_are_move_the_statistics(small_cnn, method, policy):
    model, batch = small_cnn(), batch_of()
    wrapped = make(method, model, batch_norm=policy, optimizer=keras.optimizers.SGD(0.0))
    expected = expected_means(model, wrapped, batch)["adversarial"]
    wrapped.train_step(batch)
    found = batch_norm_layers(model)[0].moving_mean.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


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


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[] if name in ("nsl", "mixture", "fast") else [pytest.mark.slow])
     for name in METHODS],
)  # fmt: skip
def test_same_seed_same_weights_through_fit_with_a_short_last_batch(small_cnn, method):
    model = small_cnn()
    optimizer = keras.optimizers.SGD(0.1)
    wrapped = make(method, model, optimizer=optimizer)
    data = tf.data.Dataset.from_tensor_slices(batch_of(10)).batch(4)
    begin = [v.read_value() for v in (*model.variables, *optimizer.variables)]

    def train():
        # One trace serves both runs, and within each the short batch as well.
        for variable, value in zip((*model.variables, *optimizer.variables), begin, strict=True):
            variable.assign(value)
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
        assert model.layers[1].compute_dtype == "bfloat16"
        assert model.output.dtype == tf.float32
        assert all(np.all(np.isfinite(w)) for w in model.get_weights())
    finally:
        setup(deterministic=False)


def test_wrong_settings_are_named():
    with pytest.raises(UsageError, match="batch_norm"):
        Recipe(THREAT, PGD_STEPS, batch_norm="some")
    with pytest.raises(UsageError, match="adv_weight"):
        Recipe(THREAT, PGD_STEPS, clean_weight=0.0, adv_weight=0.0)
