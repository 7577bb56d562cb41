"""What the tests of serving share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# `servers` is imported by its own name, as the builders of other tests are.
sys.path.append(str(Path(__file__).parent))
from servers import NAMES, SIDE, Client, running


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with version 1: which colour is the brightest on the whole?"""
    from tfrobust.export import export
    from tfrobust.runtime import keras

    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(3, 1, use_bias=False, name="conv")(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    model.get_layer("conv").set_weights([20 * np.eye(3, dtype="float32").reshape(1, 1, 3, 3)])
    folder = tmp_path_factory.mktemp("served") / "colours"
    images = np.random.default_rng(0).random((9, SIDE, SIDE, 3), np.float32)
    export(model, folder, NAMES, check_images=images)
    return folder


@pytest.fixture(scope="module")
def client(exported: Path) -> Iterator[Client]:
    with running(exported) as found:
        yield found
