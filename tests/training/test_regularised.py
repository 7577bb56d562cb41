"""The gradient of the clean pass shared with the attack, as stock NSL does."""

from __future__ import annotations

import numpy as np
import pytest
from robust_cases import data, network
from training_cases import batch_of, make

import tfrobust as tr
from tfrobust.runtime import keras, nsl
from tfrobust.training.nsl import adv_config
from tfrobust.training.recipe import Recipe


@pytest.mark.parametrize("ball", [tr.Linf(0.1), tr.L2(0.5)], ids=["linf", "l2"])
def test_it_is_stock_nsl_with_fgsm(small_cnn, ball):
    """Losses and weights of stock NSL's own training, with BatchNorm in training mode."""
    attack = tr.PGD(steps=1, random_start=False, early_stop=False)
    recipe = Recipe(ball, attack, adv_weight=2.0, batch_norm="both", shared_gradient=True)
    stock_base, shared_base, ours_base = (small_cnn() for _ in range(3))
    stock = nsl.keras.AdversarialRegularization(
        stock_base, label_keys=("label",), adv_config=adv_config(recipe)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    stock.compile(keras.optimizers.SGD(0.1), loss=loss)
    shared = make("nsl", shared_base, attack=attack, adv_weight=2.0, batch_norm="both",
                  shared_gradient=True)  # fmt: skip
    shared.recipe = recipe
    ours = tr.robust(ours_base, tr.Regularisation(attack=attack, adv_weight=2.0, batch_norm="both",
                                                  shared_gradient=True), ball)  # fmt: skip
    ours.compile(keras.optimizers.SGD(0.1))
    for seed in range(3):
        batch = batch_of(16, seed=seed)
        expected = float(stock.train_on_batch(batch, return_dict=True)["loss"])
        found = [float(shared.train_step(batch)["loss"]),
                 ours.train_on_batch(*batch.values(), return_dict=True)["loss"]]  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        for each in (stock, shared, ours):
            each.reset_metrics()
    for base in (shared_base, ours_base):
        for one, other in zip(stock_base.get_weights(), base.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_without_batch_statistics_it_is_the_step_with_a_pass_of_its_own(library):
    x, y = data()
    models, losses = [], []
    for shared in (False, True):
        library.utils.set_random_seed(0)
        image = library.Input((8, 8, 3))
        hidden = library.layers.Conv2D(6, 3, strides=2, activation="relu",
                                       kernel_regularizer="l2")  # fmt: skip
        z = library.layers.Dense(3)(library.layers.Flatten()(hidden(image)))
        models.append(library.Model(image, z))
        method = tr.Regularisation(attack=tr.FGSM(), shared_gradient=shared, clean_weight=0.5)
        wrapped = tr.robust(models[-1], method, tr.L2(0.3))
        wrapped.compile(library.optimizers.SGD(0.05))
        fit = wrapped.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        losses.append([fit.history[name] for name in ("loss", "clean_accuracy", "adv_accuracy")])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_cannot_share_is_refused(small_cnn):
    for wrong in ({"attack": tr.PGD(steps=2, random_start=False)}, {"attack": tr.PGD(steps=1)},
                  {"attack": tr.FGSM(), "clean_weight": 0.0},
                  {"attack": tr.FGSM(), "split_batch": True},
                  {"attack": tr.FGSM(), "crafting": "nfgsm"}):  # fmt: skip
        with pytest.raises(tr.UsageError):
            tr.robust(small_cnn(), tr.Regularisation(shared_gradient=True, **wrong), tr.Linf(0.1))


def test_attacks_of_every_kind_are_saved_with_the_method(library, tmp_path):
    for attack in (tr.FGSM(), tr.BIM(steps=3), tr.PGD(steps=2, random_start=False)):
        method = tr.Regularisation(attack=attack)
        tr.robust(network(library), method, tr.Linf(0.1)).save(tmp_path / "one.keras")
        assert tr.load_robust(tmp_path / "one.keras").method == method
