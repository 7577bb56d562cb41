"""Stages open blocks from the head down, also of a model inside that was frozen as a whole."""

from __future__ import annotations

import numpy as np
from robust_cases import data

import tfrobust as tr


def test_a_frozen_model_inside_opens_from_its_end(library):
    library.utils.set_random_seed(0)
    layers = library.layers
    inside = [layers.Conv2D(4, 3, activation="tanh", name=name) for name in ("low", "high")]
    base = library.Sequential([library.Input((8, 8, 3)), *inside])
    base.trainable = False
    image = library.Input((8, 8, 3))
    top = layers.Dense(3, name="top")
    model = library.Model(image, top(layers.Flatten()(base(image, training=False))))
    robust = tr.robust(model, tr.Standard(), tr.Linf(0.05))
    robust.compile(library.optimizers.Adam(0.01))
    moved = []

    class Watch(library.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.before = [np.array(one.kernel) for one in (*inside, top)]

        def on_epoch_end(self, epoch, logs=None):
            pairs = zip((*inside, top), self.before, strict=True)
            moved.append(
                [layer.name for layer, old in pairs if not np.array_equal(old, layer.kernel)]
            )

    x, y = data(16)
    stages = tr.callbacks.StagedUnfreezing("head:1:0.01,1:1:0.01,all:1:0.01")
    robust.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[stages, Watch()])
    assert moved == [["top"], ["high", "top"], ["low", "high", "top"]]
