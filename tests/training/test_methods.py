"""Each method's loss and update, worked by hand; and what its settings mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_cases import FGSM_STEP, PGD_STEPS, THREAT, Linear, batch_of, make

from tfrobust.attacks.gradient import PGD
from tfrobust.config import TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.models.folding import fold
from tfrobust.plugins import Choice, settings_of
from tfrobust.runtime import keras, tf
from tfrobust.training import METHODS
from tfrobust.training.from_config import recipe_from
from tfrobust.training.recipe import Recipe
from tfrobust.training.step import mean_cross_entropy
from tfrobust.training.weight_perturbation import offsets, perturbed


@pytest.fixture
def linear(linear_model):
    return Linear(linear_model)


def check_step(wrapped, linear, loss, gradient):
    """The loss of a step, and its update by SGD at 0.1: x_adv is a constant to it."""
    logs = wrapped.train_step(linear.batch)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(linear.updated(), linear.weights - 0.1 * gradient, atol=1e-5)


def test_pgd_by_hand(linear):
    x_adv = np.clip(linear.one_step(linear.flat, 0.1), 0, 1)
    wrapped = make("pgd", linear.model, attack=FGSM_STEP)
    check_step(wrapped, linear, linear.loss(x_adv), linear.gradient(x_adv))


def test_pgd_is_nsl_without_its_clean_loss(small_cnn):
    batch, found = batch_of(), []
    for method, settings in (("pgd", {}), ("nsl", {"clean_weight": 0.0})):
        model = small_cnn()
        loss = make(method, model, **settings).train_step(batch)["loss"]
        found.append([loss, *model.get_weights()])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_blend_by_hand(linear):
    x_adv = np.clip(linear.one_step(linear.flat, 0.1), 0, 1)
    # A quarter adversarial.
    mixed = 0.75 * linear.flat + 0.25 * x_adv
    wrapped = make("blend", linear.model, attack=FGSM_STEP, blend=0.25)
    check_step(wrapped, linear, linear.loss(mixed), linear.gradient(mixed))


def test_noise_by_hand(linear):
    wrapped = make("noise", linear.model, noise_std=0.25, seed=7)
    # The standard deviation of 60 normal numbers is known to about a tenth.
    noisy = wrapped.craft(linear.batch["image"], linear.batch["label"]).numpy().reshape(5, 12)
    assert np.std(noisy - linear.flat) == pytest.approx(0.25, rel=0.3)
    drawn = tf.random.stateless_normal([5, 2, 2, 3], [7, 0]).numpy().reshape(5, 12)
    expected = linear.flat + 0.25 * drawn
    check_step(wrapped, linear, linear.loss(expected), linear.gradient(expected))


def test_fast_by_hand_goes_beyond_the_ball_and_not_beyond_the_bounds(linear):
    wrapped = make("fast", linear.model, noise_reach=2.0, seed=7)
    # Noise in [-.2, .2], clipped to [0, 1]; a step of .1 from there; no projection.
    noise = tf.random.stateless_uniform([5, 12], [7, 0], -0.2, 0.2).numpy()
    start = np.clip(linear.flat + noise, 0, 1)
    x_adv = np.clip(linear.one_step(start, 0.1), 0, 1)
    assert 0.2 < np.abs(x_adv - linear.flat).max() <= 0.3
    check_step(wrapped, linear, linear.loss(x_adv), linear.gradient(x_adv))


def test_fast_without_noise_is_fgsm_and_wider_noise_is_wider(linear):
    x, y = linear.batch.values()
    wrapped = make("fast", linear.model, noise_reach=0.0)
    expected = np.clip(linear.one_step(linear.flat, 0.1), 0, 1)
    craft = tf.function(wrapped.craft, autograph=False)
    np.testing.assert_allclose(craft(x, y).numpy().reshape(5, 12), expected, atol=1e-6)
    assert wrapped.widen() == 1.0
    # The reach is a variable: the same trace, with noise of one radius.
    farthest = np.abs(craft(x, y) - linear.x).max()
    assert 0.1 < farthest <= 0.2 + 1e-6 and craft.experimental_get_tracing_count() == 1


def test_trades_by_hand(linear):
    attack = PGD(steps=1, early_stop=False)
    wrapped = make("trades", linear.model, attack=attack, beta=2.0, seed=7)
    p = linear.probs(linear.flat)
    noise = tf.random.stateless_normal([5, 2, 2, 3], [7, 0]).numpy().reshape(5, 12)
    start = linear.flat + 0.001 * noise
    # The divergence's gradient by the pixels is (q - p) W^T.
    moved = start + 0.1 * np.sign((linear.probs(start) - p) @ linear.weights.T)
    x_adv = np.clip(np.clip(moved, linear.flat - 0.1, linear.flat + 0.1), 0, 1)
    q = linear.probs(x_adv)
    each = np.sum(p * np.log(p / q), axis=1, keepdims=True)
    loss = linear.loss(linear.flat) + 2.0 * each.mean()
    # By the logits on x_adv it is q - p, by those on x p * (log p/q - divergence).
    by_adv, by_clean = (q - p) / 5, p * (np.log(p / q) - each) / 5
    gradient = linear.gradient(linear.flat) + 2.0 * (x_adv.T @ by_adv + linear.flat.T @ by_clean)
    check_step(wrapped, linear, loss, gradient)


def test_mart_by_hand(linear):
    wrapped = make("mart", linear.model, attack=FGSM_STEP, beta=5.0)
    x_adv = np.clip(linear.one_step(linear.flat, 0.1), 0, 1)
    p, q = linear.probs(linear.flat), linear.probs(x_adv)
    wrong = np.max(q * (1 - linear.own), axis=1)
    doubt = 1 - p[np.arange(5), linear.y]
    unstable = np.sum(p * np.log(p / q), axis=1) * doubt
    expected = linear.loss(x_adv) - np.log(1.0001 - wrong).mean() + 5.0 * unstable.mean()
    np.testing.assert_allclose(wrapped.train_step(linear.batch)["loss"], expected, rtol=1e-5)


def test_mart_of_a_constant_prediction(linear_model):
    # p = (3/4, 1/4) everywhere: no divergence. For label 0: -ln(.75) - ln(1.0001 - .25)
    # = .28768 + .28755; for label 1: -ln(.25) - ln(1.0001 - .75) = 1.38629 + 1.38589.
    model = linear_model(np.zeros((12, 2)), np.log([3.0, 1.0]))
    batch = {"image": tf.zeros([2, 2, 2, 3]), "label": tf.constant([0, 1])}
    loss = make("mart", model).train_step(batch)["loss"]
    assert float(loss) == pytest.approx((0.28768 + 0.28755 + 1.38629 + 1.38589) / 2, abs=1e-4)


def steps_of_kind(wrapped, kind):
    for step in range(50):
        wrapped.optimizer.iterations.assign(step)
        if int(wrapped.kind()) == kind:
            return step
    raise AssertionError(f"no batch of kind {kind} in 50 steps")


@pytest.mark.parametrize(("kind", "eps"), [(0, 0.0), (1, 0.03), (2, 0.1)])
def test_mixture_by_hand_for_each_kind_of_batch(linear, kind, eps):
    wrapped = make("mixture", linear.model, attack=FGSM_STEP, fgsm_eps=0.03)
    steps_of_kind(wrapped, kind)
    expected = np.clip(linear.one_step(linear.flat, eps), 0, 1)
    check_step(wrapped, linear, linear.loss(expected), linear.gradient(expected))
    # The batch counts for the accuracy of its own kind.
    counts = {name: float(wrapped._means[name].count) for name in wrapped._means}
    assert counts["clean_accuracy"] == (5 if kind == 0 else 0)
    assert counts["adv_accuracy"] == (0 if kind == 0 else 5)


def test_mixture_draws_the_odds_it_is_given(linear):
    for probability, expected in ((0.5, (0.5, 0.25, 0.25)), (0.2, (0.8, 0.1, 0.1))):
        wrapped = make("mixture", linear.model, adv_probability=probability)
        draw, kinds = tf.function(wrapped.kind, autograph=False), []
        for step in range(600):
            wrapped.optimizer.iterations.assign(step)
            kinds.append(int(draw()))
        # Of 600 draws a share is known to about 2 %; 4 standard deviations are 8 %.
        found = np.bincount(kinds, minlength=3) / 600
        np.testing.assert_allclose(found, expected, atol=0.08)
    for probability, kinds, names in ((0.0, {0}, {"clean"}), (1.0, {1, 2}, {"adv"})):
        wrapped = make("mixture", linear.model, adv_probability=probability)
        assert {int(wrapped.kind()) for _ in range(5)} <= kinds
        x, y = linear.batch.values()
        terms = wrapped.losses_of(x, x, y)
        assert {"clean", "adv"} & set(terms) == names


def test_mixture_computes_only_what_is_drawn(small_cnn):
    class Counting(PGD):
        calls = tf.Variable(0)

        def __call__(self, *args):
            Counting.calls.assign_add(1)
            return super().__call__(*args)

    wrapped = make("mixture", small_cnn(), attack=Counting(steps=1, early_stop=False))
    step = tf.function(wrapped.train_step, autograph=False)
    kinds = []
    for _ in range(20):
        kinds.append(int(wrapped.kind()))
        step(batch_of())
    assert int(Counting.calls) == kinds.count(2) and 0 < kinds.count(2) < 20
    assert step.experimental_get_tracing_count() == 1


def test_label_smoothing_by_hand(linear_model):
    # p = (3/4, 1/4), label 0, a fifth spread over both classes:
    # .8 * .28768 + .2 * (.28768 + 1.38629) / 2 = .39754.
    logits = tf.math.log([[3.0, 1.0]])
    assert float(mean_cross_entropy(logits, [0], 0.2)) == pytest.approx(0.39754, abs=1e-5)
    model = linear_model(np.zeros((12, 2)), np.log([3.0, 1.0]))
    batch = {"image": tf.zeros([2, 2, 2, 3]), "label": tf.constant([0, 0])}
    for method in ("standard", "nsl", "pgd", "fast", "trades"):
        sgd = keras.optimizers.SGD(0.0)
        wrapped = make(method, model, optimizer=sgd, adv_weight=0.0, label_smoothing=0.2)
        assert float(wrapped.train_step(batch)["loss"]) == pytest.approx(0.39754, abs=1e-5)


def test_targeted_training_goes_towards_the_least_likely_class(linear):
    attack = PGD(steps=1, random_start=False, early_stop=False, targeted=True)
    wrapped = make("pgd", linear.model, attack=attack)
    p = linear.probs(linear.flat)
    goal = np.eye(3)[np.argmin(p + linear.own, axis=1)]
    # log p(goal) is climbed: its gradient is (goal - p) W^T.
    x_adv = np.clip(linear.flat + 0.1 * np.sign((goal - p) @ linear.weights.T), 0, 1)
    check_step(wrapped, linear, linear.loss(x_adv), linear.gradient(x_adv))


def test_weight_perturbation_by_hand(linear):
    x_adv = np.clip(linear.one_step(linear.flat, 0.1), 0, 1)
    grad = linear.gradient(x_adv)
    norms = np.linalg.norm(linear.weights), np.linalg.norm(grad)
    worse = linear.weights + 0.2 * norms[0] / norms[1] * grad
    # The gradient is that at the worse weights, the update starts at the old ones.
    wrapped = make("pgd", linear.model, attack=FGSM_STEP, awp=0.2)
    loss = -np.mean(np.log(linear.probs(x_adv, worse)[np.arange(5), linear.y]))
    check_step(wrapped, linear, loss, linear.gradient(x_adv, worse))


def test_weight_perturbation_waits_for_its_warm_up(linear):
    x_adv = np.clip(linear.one_step(linear.flat, 0.1), 0, 1)
    wrapped = make("pgd", linear.model, attack=FGSM_STEP, awp=0.2, awp_warmup=1)
    check_step(wrapped, linear, linear.loss(x_adv), linear.gradient(x_adv))


def test_weight_perturbation_leaves_no_trace(small_cnn):
    found = []
    for awp in (0.0, 1e-7):
        model = small_cnn()
        wrapped = make("trades", model, optimizer=keras.optimizers.SGD(0.0), awp=awp)
        before = [v.numpy() for v in model.trainable_variables]
        tf.function(wrapped.train_step, autograph=False)(batch_of())
        # Restored to the bit; and a pass at the worse weights moves no statistics, which
        # would count twice here.
        for old, new in zip(before, model.trainable_variables, strict=True):
            np.testing.assert_array_equal(old, new)
        found.append(model.get_weights())
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_perturbed_weights_are_worse(linear, method):
    losses = []
    for awp in (0.0, 0.05):
        wrapped = make(method, linear.model, optimizer=keras.optimizers.SGD(0.0), awp=awp)
        losses.append(float(wrapped.train_step(linear.batch)["loss"]))
    assert losses[1] > losses[0] + 0.01


def test_offsets_are_relative_to_each_layer():
    # ||(3, 4)|| = 5, ||(0, 2)|| = 2: .1 * 5 / 2 * (0, 2) = (0, .5); a gradient of 0 moves none.
    kernels = [tf.Variable([[3.0, 4.0]]), tf.Variable([[1.0]])]
    moves = offsets(kernels, [tf.constant([[0.0, 2.0]]), tf.constant([[0.0]])], 0.1)
    np.testing.assert_allclose(moves[0], [[0.0, 0.5]], atol=1e-6)
    np.testing.assert_array_equal(moves[1], [[0.0]])
    with perturbed(kernels, moves):
        np.testing.assert_allclose(kernels[0], [[3.0, 4.5]])
    np.testing.assert_array_equal(kernels[0], [[3.0, 4.0]])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("pgd", "trades")])
def test_weight_perturbation_is_refused_elsewhere(small_cnn, method):
    with pytest.raises(UsageError, match="pgd and trades"):
        make(method, small_cnn(), awp=0.01)


@pytest.mark.parametrize("method", ["trades", "fast", "noise"])
def test_a_target_is_refused_where_nothing_aims(small_cnn, method):
    with pytest.raises(UsageError, match="target"):
        make(method, small_cnn(), attack=PGD(targeted=True))


def test_recipe_takes_everything_from_the_config():
    config = TrainingConfig(
        method="nsl:clean_weight=0.4:adv_weight=0.6:split_batch=true:crafting=nfgsm:noise_reach=1.5",
        steps=7, step_size=0.02, random_start=False, target="least_likely", awp_warmup=2.5,
        label_smoothing=0.1, ema=0.9, batch_norm="both", clean_start=0.1,
    )  # fmt: skip
    found = recipe_from(config, THREAT, 3, steps_per_epoch=8)
    # 2.5 epochs of 8 steps.
    assert replace(found, method=None) == Recipe(
        THREAT, PGD(steps=7, step_size=0.02, random_start=False, early_stop=False, targeted=True),
        0.4, 0.6, split_batch=True, batch_norm="both", seed=3, crafting="nfgsm",
        clean_steps="first", noise_reach=1.5, awp_warmup=20, label_smoothing=0.1, ema=0.9,
    )  # fmt: skip
    assert found.method.clean_weight == 0.4


@pytest.mark.parametrize("name", list(METHODS))
def test_every_setting_of_a_method_reaches_the_recipe(name):
    others = {float: lambda v: v * 0.5 + 0.1, bool: lambda v: not v, str: lambda v: "nfgsm"}
    for key, kind in settings_of(METHODS[name]).items():
        other = others[kind](getattr(METHODS[name](), key))
        config = TrainingConfig(method=Choice(name, {key: other}))
        recipe = recipe_from(config, THREAT, 3)
        assert getattr(recipe, key) == getattr(recipe.method, key) == other


def test_crafting_folds_the_model_as_the_evaluation_does(small_cnn):
    """TRADES, which calls the attack in its own way, climbs what inference sees."""
    model = small_cnn()
    wrapped, batch = make("trades", model, attack=PGD_STEPS), batch_of()
    x_adv = wrapped.craft(batch["image"], batch["label"])
    start = THREAT.project(
        batch["image"] + 0.001 * tf.random.stateless_normal(x_adv.shape, [42, 0]), batch["image"]
    )
    expected = PGD_STEPS.diverge(fold(model), *batch.values(), start, THREAT)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)


def test_nsl_on_a_split_batch_by_hand(linear):
    """Weights 1 and 4 on five images: one is clean, four are adversarial."""
    wrapped = make("nsl", linear.model, attack=FGSM_STEP, split_batch=True, adv_weight=4.0)
    moved = linear.one_step(linear.flat, 0.1)
    mixed = np.concatenate([linear.flat[:1], np.clip(moved[1:], 0, 1)])
    crafted = wrapped.craft(linear.batch["image"], linear.batch["label"])
    np.testing.assert_allclose(np.reshape(crafted, (5, 12)), mixed, atol=1e-6)
    p = linear.probs(mixed)[np.arange(5), linear.y]
    expected = -np.log(p[0]) - 4 * np.mean(np.log(p[1:]))
    measured = wrapped.train_step(linear.batch)
    np.testing.assert_allclose(measured["loss"], expected, rtol=1e-5)
    hit = linear.probs(mixed).argmax(axis=1) == linear.y
    np.testing.assert_allclose(measured["clean_accuracy"], hit[0])
    np.testing.assert_allclose(measured["adv_accuracy"], hit[1:].mean())
    # 1 / 1 and 4 / 4: each of the five images weighs the same here.
    gradient = mixed.T @ (linear.probs(mixed) - linear.own)
    np.testing.assert_allclose(linear.updated(), linear.weights - 0.1 * gradient, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_small_last_batch_can_be_split(small_cnn, count, smoothing):
    wrapped = make("nsl", small_cnn(), split_batch=True, adv_weight=3.0, label_smoothing=smoothing)
    measured = wrapped.train_step(batch_of(count))
    assert np.isfinite(float(measured["loss"]))
    assert all(np.isfinite(value).all() for value in wrapped.base_model.get_weights())
