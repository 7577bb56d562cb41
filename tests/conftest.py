"""Fixtures that the whole suite shares."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for each core already: more threads would only be in each other's way.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
LONGEST = ("pipelines", "jobs", "training", "serving", "search")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process is left with one when the others have ended."""

    def place(item: pytest.Item) -> int:
        folder, *file = item.path.relative_to(ROOT / "tests").parts
        return 0 if folder in LONGEST else 2 if file else 1

    items.sort(key=place)


# Graphs are traced as millions of small objects, which the collector would look at ever again.
gc.set_threshold(200_000, 20, 50)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("TFROBUST_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found: expected {folder} (or set TFROBUST_SHARED)")
    return folder


@pytest.fixture
def linear_model():
    """A factory of linear classifiers on 2x2x3 images whose weights are known."""
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
def small_cnn():
    """A factory of small convolutional networks with BatchNorm, the same for the same seed."""
    from tfrobust.runtime import keras

    def make(side: int = 8, classes: int = 4, seed: int = 0):
        keras.utils.set_random_seed(seed)
        image = x = keras.Input((side, side, 3), name="image")
        for width in (8, 16):
            x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization(momentum=0.5)(x)
            x = keras.layers.ReLU()(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        logits = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
        return keras.Model(image, logits)

    return make


@pytest.fixture(params=["tf_keras", "keras 3"])
def library(request):
    """Each Keras in turn."""
    if request.param == "tf_keras":
        from tfrobust.runtime import keras

        return keras
    return pytest.importorskip("keras", minversion="3.0")
