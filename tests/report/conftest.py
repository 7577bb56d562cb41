"""Results of a bare model to report on, with a sweep and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def evaluated_as(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder name -> the folder, with the results of a small model in it."""
    from pipelines import evaluate
    from tfrobust.runtime import keras

    folder = tmp_path_factory.mktemp("report")
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    images = np.random.default_rng(0).random((24, 8, 8, 3), np.float32)
    model.save(folder / "model.keras")
    np.savez(folder / "x.npz", x=images, y=np.argmax(model(images), axis=1))

    def make(name: str) -> Path:
        args = [str(folder / "model.keras"), "--data", str(folder / "x.npz"), "--norm", "linf",
                "--eps", "2/255", "--attack", "pgd:steps=5", "--sweep", "1/255,8/255",
                "--no-figures", "--output", str(folder / name)]  # fmt: skip
        assert evaluate.main(args) == 0
        # Any pictures will do; those of an evaluation take a while to draw.
        (folder / name / "figures").mkdir(exist_ok=True)
        for number, figure in enumerate(("confusion", "triples", "saliency", "of_my_own")):
            picture = Image.new("RGB", (900 + 100 * number, 500), (60 * number, 90, 160))
            picture.save(folder / name / "figures" / f"{figure}.png")
        return folder / name

    return make
