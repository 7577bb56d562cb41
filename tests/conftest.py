"""Fixtures shared by the whole suite."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for each core already: more threads would only compete with each other.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
LONGEST = ROOT / "tests" / "longest.txt"
# Tests that take long and add little coverage; both lists are written by .ci/choose_tests.py.
SLOW = ROOT / "tests" / "slow.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-listed", action="store_true", help="also run the tests listed in tests/slow.txt"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks listed tests and tests off the diagonals as slow; long files come first, so that no
    process is left with one when the others have finished."""
    if not config.option.all_listed:
        left_out = set(SLOW.read_text(encoding="utf-8").split("\n"))
        for item in items:
            if item.nodeid in left_out:
                item.add_marker(pytest.mark.slow)
    mark_diagonals(items)
    places = {name: place for place, name in enumerate(LONGEST.read_text().split())}
    # A file that is not in the list is short.
    items.sort(key=lambda item: places.get(item.nodeid.split("::")[0], len(places)))


def mark_diagonals(items: list[pytest.Item]) -> None:
    """Reduces a test marked `diagonal` to few cases that cover each value of each parameter."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("diagonal") and not item.get_closest_marker("slow"):
            cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    for found in cases.values():
        for item in beside_the_diagonal(found):
            item.add_marker(pytest.mark.slow)


def beside_the_diagonal(cases: list[pytest.Item]) -> list[pytest.Item]:
    """The cases that remain once each value of each parameter has been covered."""
    values = {
        # Values that cannot be compared or hashed are equal if they are the same object.
        id(item): {(name, id(value)) for name, value in item.callspec.params.items()}
        for item in cases
    }
    unseen, used, left = set().union(*values.values()), Counter(), list(cases)

    def worth(item: pytest.Item) -> tuple[int, int]:
        """New values first, then those used least."""
        own = values[id(item)]
        return len(own & unseen), -sum(used[value] for value in own)

    while unseen:
        chosen = max(left, key=worth)
        unseen -= values[id(chosen)]
        used.update(values[id(chosen)])
        left.remove(chosen)
    return left


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "tensorflow" in sys.modules and "not slow" in item.config.option.markexpr:
        trace_at_less_cost()


@cache
def trace_at_less_cost() -> None:
    """By default graphs are not optimised, and the origin of their operations is not recorded.

    The tests run a graph only a few times, and optimising it takes longer than that. Recording
    pytest's deep stack for each operation takes a sixth of the tracing. The slow tests do not use
    this, nor do the commands that tests start.
    """
    import tensorflow as tf
    from tensorflow.python.framework import ops

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    here = ops.tf_stack.extract_stack()
    ops.tf_stack.extract_stack = lambda *args, **kwargs: here


# Graphs are traced as millions of small objects, which the collector would scan repeatedly.
gc.set_threshold(200_000, 20, 50)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real data; tests that need it are skipped if it is absent."""
    folder = Path(os.environ.get("TFROBUST_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found: expected {folder} (or set TFROBUST_SHARED)")
    return folder


@pytest.fixture
def linear_model():
    """A factory of linear classifiers on 2x2x3 images with known weights."""
    import numpy as np

    from tfrobust.runtime import keras

    def make(weights: np.ndarray, bias: np.ndarray, side: int = 2):
        image = keras.Input((side, side, 3), name="image")
        logits = keras.layers.Dense(weights.shape[1], name="logits")
        model = keras.Model(image, logits(keras.layers.Flatten()(image)))
        logits.set_weights([weights.astype("float32"), bias.astype("float32")])
        return model

    return make


@pytest.fixture
def linear(linear_model):
    """A linear model of two classes, its images, and their minimal radii in L-infinity."""
    import numpy as np

    from tfrobust.data.types import ImageSet
    from tfrobust.evaluation.evaluator import Evaluator

    rng = np.random.default_rng(1)
    weights = rng.normal(size=(12, 2))
    model = linear_model(weights, -0.5 * weights.sum(axis=0))
    images = rng.integers(100, 156, (60, 2, 2, 3)).astype("uint8")
    x = images.astype("float32") / 255
    y = np.argmax(model(x), axis=1).astype("int32")
    w = weights[:, 1] - weights[:, 0]
    radii = np.abs((x.reshape(60, -1) - 0.5) @ w) / np.abs(w).sum()
    y[:6] = 1 - y[:6]  # Six are misclassified without an attack.
    radii[:6] = 0
    return Evaluator(model, ImageSet(images, y, ("no", "yes"))), radii


@pytest.fixture
def small_cnn():
    """A factory of small convolutional networks with BatchNorm, the same for the same seed."""
    from tfrobust.runtime import keras

    def make(side: int = 8, classes: int = 4, seed: int = 0, widths: tuple[int, ...] = (8, 16)):
        keras.utils.set_random_seed(seed)
        image = x = keras.Input((side, side, 3), name="image")
        for width in widths:
            x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization(momentum=0.5)(x)
            x = keras.layers.ReLU()(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        logits = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
        return keras.Model(image, logits)

    return make


@pytest.fixture
def said():
    """figure -> its texts."""
    return lambda figure: [text.get_text() for text in figure.texts]


@pytest.fixture
def shown():
    """figure -> the content of each of its images, in drawing order."""
    import numpy as np

    return lambda figure: [
        np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images
    ]


@pytest.fixture
def beside():
    """(figure, words) -> whether each text of these words ends before the images start."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def ends_before(figure, words: str) -> bool:
        FigureCanvasAgg(figure).draw()
        ends = [t.get_window_extent().x1 for t in figure.texts if t.get_text() == words]
        return bool(ends) and max(ends) <= min(a.get_window_extent().x0 for a in figure.axes)

    return ends_before


@pytest.fixture(params=["tf_keras", "keras 3"])
def library(request):
    """Each Keras in turn."""
    if request.param == "tf_keras":
        from tfrobust.runtime import keras

        return keras
    return pytest.importorskip("keras", minversion="3.0")
