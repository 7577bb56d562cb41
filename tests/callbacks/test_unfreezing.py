"""Stages open blocks from the head down, also of a model inside that was frozen as a whole."""

from __future__ import annotations

import numpy as np
from robust_cases import data

import tfrobust as tr


def test_a_frozen_model_inside_opens_from_its_end(library):
    library.utils.set_random_seed(0)
    layers = library.layers
    inside = [layers.Conv2D(4, 3, activation="tanh", name=name) for name in ("low", "high")]
    still = layers.BatchNormalization()
    base = library.Sequential([library.Input((8, 8, 3)), inside[0], still, inside[1]])
    base.trainable = False
    image = library.Input((8, 8, 3))
    top = layers.Dense(3, name="top")
    model = library.Model(image, top(layers.Flatten()(base(image, training=False))))
    robust = tr.robust(model, tr.Standard(batch_norm="none"), tr.Linf(0.05))
    robust.compile(library.optimizers.Adam(0.01))
    moved = []

    class Watch(library.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.before = [one.get_weights()[0] for one in (*inside, top)]

        def on_epoch_end(self, epoch, logs=None):
            pairs = zip((*inside, top), self.before, strict=True)
            moved.append(
                [
                    layer.name
                    for layer, old in pairs
                    if not np.array_equal(old, layer.get_weights()[0])
                ]
            )

    x, y, kept = *data(16), [np.array(one) for one in still.get_weights()]
    stages = tr.callbacks.StagedUnfreezing("head:1:0.01,1:1:0.01,all:1:0.01")
    robust.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[stages, Watch()])
    assert moved == [["top"], ["high", "top"], ["low", "high", "top"]]
    # The method's own setting holds through all stages.
    for one, other in zip(kept, still.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
