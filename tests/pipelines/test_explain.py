"""`pipelines.explain` on bare models, as a stranger uses it."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import explain
from tfrobust.explain import maximise
from tfrobust.explain.measure_names import COLUMNS
from tfrobust.figures import FIGURES
from tfrobust.figures import figure as figure_room
from tfrobust.figures.provenance import TABLE, provenance
from tfrobust.jobs import explanation
from tfrobust.runtime import keras

SIDE = 8


def network(seed: int, maps: bool = True) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = x = keras.Input((SIDE, SIDE, 3), name="image")
    if maps:
        x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="early")(x)
        x = keras.layers.Conv2D(6, 2, activation="relu", name="late")(x)
    logits = keras.layers.Dense(3, name="logits")
    return keras.Model(image, logits(keras.layers.Flatten()(x)))


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Path:
    """Two models with maps, one without, and images that the first gets right."""
    folder = tmp_path_factory.mktemp("explain")
    models = {"own": network(0), "other": network(1), "flat": network(0, maps=False)}
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
    x = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    y = np.argmax(models["own"](x / np.float32(255)), axis=1)
    np.savez(folder / "x.npz", x=x, y=y)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """A few steps to the images of classes, and small pictures of few images."""
    monkeypatch.setattr(maximise, "maximise", functools.partial(maximise.maximise, steps=2))
    monkeypatch.setattr(explanation, "ROWS", 1)
    monkeypatch.setattr(figure_room.encoded, "__defaults__", (20,))


def run(case: Path, model: str, output: str, *more: str) -> int:
    args = [str(case / f"{model}.keras"), "--data", str(case / "x.npz"), "--eps", "8/255",
            "--per-group", "1", "--output", str(case / output)]  # fmt: skip
    return explain.main([*args, *more])


def test_two_models_are_drawn_and_measured_side_by_side(case, capsys) -> None:
    args = ["--against", str(case / "other.keras"), "--measure", "24", "--class-images", "2",
            "--methods", "gradcam", "--target-layer", "early",
            "--layers", "late"]  # fmt: skip
    assert run(case, "own", "both", *args) == 0
    folder, said = case / "both", capsys.readouterr().out
    written = {path.stem for path in (folder / "figures").glob("*.png")}
    assert written == {"saliency", "overlay", "top5", "maps", "feature_maps", "channels",
                       "classes", "faithfulness"} <= set(FIGURES)  # fmt: skip
    for path in (folder / "figures").glob("*.png"):
        assert min(Image.open(path).size) > 20 and f"Figure: {path}" in said
    # What each was made with, for the report.
    notes = provenance(folder / "figures")
    assert set(notes) == {TABLE, *(n for n in written if FIGURES[n].shows_attack)}
    assert notes["maps"] == {"attack": "PGD with 20 steps", "norm": "linf", "eps": 8 / 255}
    with (folder / "explanations.csv").open() as file:
        rows = list(csv.DictReader(file))
    methods = ["gradcam", "random map"]
    assert [(row["model"], row["method"]) for row in rows] == [
        (model, method) for model in ("own.keras", "other.keras") for method in methods
    ]
    # The labels are the first model's own predictions; the second gets some wrong, and those
    # are not attacked.
    assert [row["images"] for row in rows] == ["24"] * 4 and rows[0]["attacked"] == "24"
    assert 0 < int(rows[2]["attacked"]) < 24
    assert f"other.keras: stability is measured on {rows[2]['attacked']} of the 24 images" in said
    every = set(COLUMNS) - {"completeness"}  # which is of integrated gradients alone
    for row in rows:
        measured = {column for column in COLUMNS if row[column]}
        assert measured == ({"deletion", "insertion"} if row["method"] == "random map" else every)
        assert 0 <= float(row["deletion"]) <= 1 and float(row["deletion_95"]) > 0


def test_a_model_without_maps_is_explained_by_what_needs_none(case, capsys) -> None:
    assert run(case, "flat", "flat", "--methods", "saliency", "--classes", "2,0") == 0
    said = capsys.readouterr().out
    assert "Channels: no convolution has a map larger than 1x1; none are drawn." in said
    written = {path.stem for path in (case / "flat" / "figures").glob("*.png")}
    assert written == {"saliency", "overlay", "top5", "maps", "feature_maps", "classes"}


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        # Its advice can be followed: see above.
        ("flat", ["--methods", "saliency,gradcam"], "use saliency or integrated-gradients"),
        ("own", ["--methods", "saliency", "--target-layer", "logits"], "a layer without one"),
        ("own", ["--layers", "early,logits"], "--layers logits: expected convolutions"),
        ("flat", ["--methods", "saliency", "--layers", "logits"], "it has none"),
        ("own", ["--classes", "0,lion"], "a number in 0..2 or a name such as '0', found 'lion'"),
        ("own", ["--class-images", "-1"], "--class-images: expected at least 0, found -1"),
    ],
)
def test_wrong_use_is_one_sentence_before_anything_long(
    case, capsys, model, flags, message
) -> None:
    assert run(case, model, "wrong", *flags) == 2
    assert message in capsys.readouterr().err
    assert not list((case / "wrong" / "figures").glob("*"))
