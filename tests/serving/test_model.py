"""What is served: named by its folder, and refused in one sentence where it cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import NAMES

from tfrobust.errors import TFRobustError
from tfrobust.export.extras import FOLDER, LABELS
from tfrobust.runtime import tf
from tfrobust.serving.model import ServedModel


@pytest.mark.parametrize("place", [".", "1"])
def test_its_name_does_not_depend_on_where_one_stands(exported, monkeypatch, place: str) -> None:
    monkeypatch.chdir(exported)
    model = ServedModel(Path(place))
    assert (model.name, model.version, model.label_names) == ("colours", 1, list(NAMES))


@pytest.mark.parametrize(
    ("text", "message"),
    [('["red"]', "expected 3 class names.*found 1"), ("{}", "found no list"), ("[", "JSON list")],
)
def test_class_names_that_do_not_fit_are_told(exported, tmp_path, text: str, message: str) -> None:
    shutil.copytree(exported, tmp_path / "run")
    (tmp_path / "run" / "1" / FOLDER / LABELS).write_text(text)
    with pytest.raises(TFRobustError, match=message):
        ServedModel(tmp_path / "run")


def saved(folder: Path, shape: Any, answer: Any) -> Path:
    """A SavedModel of that input shape."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def serve(images: Any) -> dict[str, Any]:
        return {"out": answer(images)}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    return folder


def means(images: Any) -> Any:
    return tf.reduce_mean(images, axis=[1, 2])


@pytest.mark.parametrize(
    ("shape", "answer", "message"),
    [
        ([None, None, None, 3], means, "expected images of one"),
        ([None, 4, 4, 1], means, "expected images of one"),
        (None, lambda x: means(tf.reshape(x, [-1, 4, 4, 3])), "expected images of one"),
        ([None, 4, 4, 3], lambda x: x, "expected logits of shape"),
    ],
    ids=["any size", "grey", "any rank", "no logits"],
)
def test_what_cannot_be_served_is_told(tmp_path, shape: Any, answer: Any, message: str) -> None:
    with pytest.raises(TFRobustError, match=message):
        ServedModel(saved(tmp_path / "model", shape, answer))


def test_probabilities_are_served_as_they_are(tmp_path: Path) -> None:
    model = ServedModel(
        saved(tmp_path / "soft", [None, 4, 4, 3], lambda x: tf.nn.softmax(4 * means(x)))
    )
    image = np.zeros((4, 4, 3), np.float32)
    image[..., 1] = 1
    (best, *_) = model.best(model.logits(image[None])[0])
    assert best.label == 1
    assert best.probability == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-4)


def test_a_model_of_one_image_serves_any_number(tmp_path: Path) -> None:
    model = ServedModel(saved(tmp_path / "one", [1, 4, 4, 3], means))
    images = np.random.default_rng(0).uniform(size=(3, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(model.logits(images), images.mean(axis=(1, 2)), atol=1e-5)


def test_a_saved_model_without_a_number_has_its_own_name(tmp_path: Path) -> None:
    model = ServedModel(saved(tmp_path / "mine", [None, 4, 4, 3], means))
    assert (model.name, model.version, model.shape) == ("mine", 1, (4, 4))
    assert model.label_names == ["class 0", "class 1", "class 2"]
