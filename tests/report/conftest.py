"""Results of a bare model to report on, with a sweep and figures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

#: What is in the folder's figures before it is evaluated without any: two are an evaluation's.
OLD_FIGURES = ("per_class.png", "curves.json", "path_pixel.png", "overlay.png", "own.png")


@pytest.fixture(scope="session")
def evaluated_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a small model in it, and of `OLD_FIGURES` what is left."""
    from pipelines import evaluate
    from tfrobust.runtime import keras

    folder = tmp_path_factory.mktemp("report")
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    images = np.random.default_rng(0).random((24, 8, 8, 3), np.float32)
    model.save(folder / "model.keras")
    np.savez(folder / "x.npz", x=images, y=np.argmax(model(images), axis=1))
    output = folder / "robust <b>&"
    (output / "figures").mkdir(parents=True)
    for figure in OLD_FIGURES:
        (output / "figures" / figure).write_text("of another evaluation")
    args = [str(folder / "model.keras"), "--data", str(folder / "x.npz"), "--norm", "linf",
            "--eps", "2/255", "--attack", "pgd:steps=5", "--sweep", "1/255,8/255",
            "--no-figures", "--output", str(output)]  # fmt: skip
    assert evaluate.main(args) == 0
    return output


@pytest.fixture(scope="module")
def evaluated_as(
    evaluated_once: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A folder name -> a folder of that name with those results, and with figures, in it."""
    home = tmp_path_factory.mktemp("results")

    def make(name: str) -> Path:
        shutil.copytree(evaluated_once, home / name, ignore=shutil.ignore_patterns("figures"))
        (home / name / "figures").mkdir()
        # Any pictures will do; those of an evaluation take a while to draw.
        for number, figure in enumerate(("confusion", "triples", "saliency", "of_my_own")):
            picture = Image.new("RGB", (900 + 100 * number, 500), (60 * number, 90, 160))
            picture.save(home / name / "figures" / f"{figure}.png")
        return home / name

    return make
