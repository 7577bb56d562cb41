"""The guard of any robust model: what it sees, and what it puts back."""

from __future__ import annotations

import numpy as np
import pytest
from robust_cases import IN_KERAS_3, data, small

import tfrobust as tr
from tfrobust.callbacks.overfitting import _first
from tfrobust.runtime import tf
from tfrobust.training import guard as guard_module

TWO_STEPS = tr.AdversarialTraining(attack=tr.PGD(steps=2))


class Scripted:
    """A stand-in for a robust model whose epochs go as they are told to."""

    single_step, crafts, stop_training, averages = False, True, False, None

    def __init__(self, epochs):
        from types import SimpleNamespace

        self.weight = tf.Variable(0.0)
        self.base_model = SimpleNamespace(variables=[self.weight])
        self.recipe = SimpleNamespace(attack=tr.PGD(steps=2))
        self.epochs = epochs

    def kept(self):
        from contextlib import nullcontext

        return nullcontext()

    def fit(self, guard):
        guard.before_fit(self, {"validation_data": ([], [])})
        guard.set_model(self)
        guard.on_train_begin()
        for epoch, (loss, robust) in enumerate(self.epochs):
            self.weight.assign(epoch + 1.0)
            guard.on_epoch_begin(epoch)
            guard.on_epoch_end(epoch, {"loss": loss, "val_robust_accuracy": robust})
            if self.stop_training:
                return epoch + 1
        return None


@pytest.mark.parametrize(
    ("epochs", "ended", "weight"),
    [
        # Robust accuracy falls, the loss falls on: back to the best epoch, the second.
        ([(1.0, 0.3), (0.9, 0.5), (0.8, 0.45), (0.7, 0.4), (0.6, 0.1)], 4, 2.0),
        # The loss does not fall: that is no overfitting.
        ([(1.0, 0.3), (0.6, 0.5), (0.8, 0.45), (0.7, 0.4)], None, 4.0),
        # It stays within `drop`.
        ([(1.0, 0.3), (0.9, 0.5), (0.8, 0.49), (0.7, 0.49)], None, 4.0),
        # It comes back.
        ([(1.0, 0.3), (0.9, 0.5), (0.8, 0.3), (0.7, 0.6), (0.6, 0.5)], None, 5.0),
    ],
)
def test_robust_overfitting(epochs, ended, weight, capfd):
    guard, model = tr.callbacks.OverfittingGuard(patience=2), Scripted(epochs)
    assert model.fit(guard) == ended and float(model.weight) == weight
    assert guard.stopped == (None if ended is None else 2)
    assert ("Robust overfitting" in capfd.readouterr().err) == (ended is not None)


@IN_KERAS_3
def test_it_gives_the_weights_of_the_best_epoch_back(library):
    x, y = data()
    model, seen = small(library, TWO_STEPS), []
    guard = tr.callbacks.OverfittingGuard(patience=1, drop=0.0)
    falling = iter([0.9, 0.5, 0.4])

    class Told(library.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with model.kept():
                seen.append([np.array(w) for w in model.base_model.get_weights()])
            logs["val_robust_accuracy"] = next(falling)

    averages = tr.callbacks.WeightAveraging(0.5)
    history = model.fit(
        x, y, epochs=9, validation_data=(x, y), verbose=0, callbacks=[Told(), guard, averages]
    )
    assert len(history.epoch) == 2 and guard.stopped == 1
    for one, other in zip(seen[0], model.base_model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.diagonal
@pytest.mark.parametrize("method", [tr.Fast(), tr.AdversarialTraining(attack=tr.FGSM())],
                         ids=["noise", "fgsm"])  # fmt: skip
def test_catastrophic_overfitting_is_undone(library, method, monkeypatch, capfd):
    x, y = data()
    looks = []

    def third(rows, least):
        looks.append(rows[-1])
        return len(looks) == 3

    monkeypatch.setattr(guard_module, "overfits_to_fgsm", third)
    model, seen = small(library, method), []
    guard = tr.callbacks.OverfittingGuard(every=2, images=40)

    class Watch(library.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([np.array(w) for w in model.base_model.get_weights()])

    history = model.fit(x, y, batch_size=16, epochs=2, shuffle=False, validation_data=(x, y),
                        verbose=0, callbacks=[guard, Watch()])  # fmt: skip
    # Looks after steps 2 and 4 of the first epoch, and after 2 of the second, which is undone.
    assert guard.rollbacks == 1 and "Catastrophic overfitting" in capfd.readouterr().err
    assert all({"select_fgsm", "select_pgd"} <= set(row) for row in looks)
    for one, other in zip(seen[3], seen[5], strict=True):
        np.testing.assert_array_equal(one, other)
    if model.single_step:
        assert float(model.reach.numpy()) == 3.0 and len(seen) == 8 and len(history.epoch) == 2
    else:
        assert len(seen) == 6


def test_validation_data_of_every_kind():
    x, y = data(40)
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    kinds = [(x, y), {"image": x, "label": y}, pairs,
             pairs.map(lambda a, b: {"image": a, "label": b})]  # fmt: skip
    for kind in kinds:
        found = np.concatenate([np.asarray(one) for one, _ in _first(kind, 20)])
        assert len(found) in (20, 32)
        np.testing.assert_array_equal(found[:20], x[:20])


def test_arguments_are_checked(library):
    for wrong in ({"patience": 0}, {"drop": 1.0}, {"every": 0}, {"images": 0}):
        with pytest.raises(tr.UsageError):
            tr.callbacks.OverfittingGuard(**wrong)
    x, y = data(16)
    with pytest.raises(tr.UsageError):
        small(library).fit(x, y, verbose=0, callbacks=[tr.callbacks.OverfittingGuard()])
