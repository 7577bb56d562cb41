"""What the tests of figures share."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfrobust.data.types import ImageSet
from tfrobust.evaluation.evaluator import Evaluator

sys.path.insert(0, str(Path(__file__).parent))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def images(figure: Figure) -> list[np.ndarray]:
    """What each picture of a figure shows, in the order drawn."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


@pytest.fixture
def said():
    return texts


@pytest.fixture
def shown():
    return images


def beside_images(figure: Figure, words: str) -> bool:
    """Whether each text of these words ends before the pictures begin."""
    FigureCanvasAgg(figure).draw()
    ends = [t.get_window_extent().x1 for t in figure.texts if t.get_text() == words]
    return bool(ends) and max(ends) <= min(axes.get_window_extent().x0 for axes in figure.axes)


@pytest.fixture
def beside():
    return beside_images


@pytest.fixture
def linear(linear_model):
    """A linear model of two classes, its images, and their minimal radii in L-infinity."""
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
