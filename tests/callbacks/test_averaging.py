"""Weight averaging, the elbow and the time budget as callbacks of any robust model."""

from __future__ import annotations

import numpy as np
import pytest
from robust_cases import data, small

import tfrobust as tr


def test_averages_are_measured_kept_and_left_in_the_model(library, tmp_path):
    x, y = data()
    model = small(library, optimizer=library.optimizers.SGD(0.1))
    base, steps, kept = model.base_model, [], []

    class Watch(library.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append([np.array(w) for w in base.get_weights()])

        def on_test_end(self, logs=None):
            kept.append([np.array(w) for w in base.get_weights()])

    first = [np.array(w) for w in base.get_weights()]
    keep = tr.callbacks.RobustCheckpoint(tmp_path)
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, validation_data=(x, y), verbose=0,
              callbacks=[Watch(), tr.callbacks.WeightAveraging(0.6), keep])  # fmt: skip
    average = first
    for step, weights in enumerate(steps, start=1):
        share = 1 - min(0.6, (1 + step) / (10 + step))
        average = [a + share * (w - a) for a, w in zip(average, weights, strict=True)]
    for one, other in zip(average, base.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for one, other in zip(kept[-1], base.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # The kept model is of an epoch's averages as they were measured.
    found = tr.load_any(keep.path).get_weights()
    for one, other in zip(found, kept[keep.epoch - 1], strict=True):
        np.testing.assert_array_equal(one, other)
    # Without the callback nothing is averaged any more.
    model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    assert model.averages is None
    with pytest.raises(tr.UsageError):
        tr.callbacks.WeightAveraging(1.0)


def test_the_elbow_is_the_epoch_of_the_lowest_loss(library, tmp_path):
    x, y = data()
    model, seen = small(library), []
    told = iter([0.2, 0.9, 0.5, 0.7])

    class Told(library.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([np.array(w) for w in model.base_model.get_weights()])
            logs["val_robust_loss"], logs["loss"] = next(told), 1.0 - epoch / 10

    elbow = tr.callbacks.KeepElbow(tmp_path, 2, monitor="val_robust_loss")
    model.fit(x, y, epochs=4, validation_data=(x, y), verbose=0, callbacks=[Told(), elbow])
    # The first epoch's loss was lower, but it is not among those that may be kept.
    assert (elbow.elbow.epoch, elbow.elbow.earlier) == (3, 1)
    found = tr.load_any(elbow.path).get_weights()
    for one, other in zip(found, seen[2], strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(tr.UsageError):
        model.fit(x, y, verbose=0, callbacks=[tr.callbacks.KeepElbow(tmp_path)])
    with pytest.raises(tr.UsageError):
        tr.callbacks.KeepElbow(tmp_path, 0)
