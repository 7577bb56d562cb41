"""The example of every public name runs, and shows what it says."""

import doctest
import importlib
import inspect

import numpy as np
import pytest

import tfrobust as tr
from tfrobust.runtime import tf

# Tables have entries rather than calls: `tests/test_testing.py` runs the contracts over them.
TABLES = ("ATTACKS", "BACKBONES", "DATASETS", "EXPLAINERS", "METHODS")
# Rooms hold names of their own.
ROOMS = {
    "callbacks": ("OverfittingGuard", "RobustCheckpoint", "StagedUnfreezing", "TimeBudget"),
    "jobs": ("study",),  # the others are called in tests/jobs
    "models": ("ensemble", "expectation", "smoothed", "straight_through"),
}
NAMES = sorted(set(tr.__all__) - set(TABLES) - set(ROOMS))


@pytest.fixture(scope="module")
def names():
    """What an example may use: a small Keras 3 model of digits, images, a ball."""
    import keras

    keras.utils.set_random_seed(0)
    data = tr.load("digits")
    train, test = data.train, data.test
    small = tf.image.resize(train.pixels(slice(None)), [8, 8]).numpy()
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(), keras.layers.Dense(10),
    ])  # fmt: skip
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(small, train.labels, epochs=6, verbose=0)
    x = tf.image.resize(test.pixels(slice(0, 64)), [8, 8]).numpy()
    return {"tr": tr, "tf": tf, "np": np, "keras": keras, "model": model, "x": x,
            "y": test.labels[:64], "ball": tr.Linf(8 / 255)}  # fmt: skip


def run_example(thing, name, given):
    if inspect.ismodule(thing):
        # A room that was imported before is called like the function that it is named after; in
        # the room that name may be the function's module.
        thing = getattr(importlib.import_module(tr._PLACES[name]), name)
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", given, name, None, 0)
    assert found.examples, f"{name}: no example in its docstring"
    told = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    outcome = doctest.DocTestRunner(optionflags=flags).run(found, out=told.append)
    assert not outcome.failed, "".join(told)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_s_example(name, names, tmp_path):
    # A model of its own weights: some examples train it.
    weights = names["model"].get_weights()
    try:
        run_example(getattr(tr, name), name, {**names, "folder": tmp_path})
    finally:
        names["model"].set_weights(weights)


@pytest.mark.parametrize("room, name", [(room, name) for room in ROOMS for name in ROOMS[room]])
def test_an_example_in_a_room(room, name, names, tmp_path):
    weights = names["model"].get_weights()
    try:
        run_example(getattr(getattr(tr, room), name), name, {**names, "folder": tmp_path})
    finally:
        names["model"].set_weights(weights)
