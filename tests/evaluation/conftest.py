"""Fixtures of the evaluation's tests."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.data.types import ImageSet
from tfrobust.evaluation.evaluator import Evaluator


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
