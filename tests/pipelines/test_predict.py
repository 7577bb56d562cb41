"""`pipelines.predict`: single images in, the most probable classes out."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import predict
from tfrobust.data.images import decode
from tfrobust.export import export
from tfrobust.jobs import prediction
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, tf

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("top", "bottom", "left")
SIDE = 4


@pytest.fixture
def halves(linear_model):
    """A model of 4x4 images: its logits are 10 times the mean of the top, bottom and left half."""
    masks = np.zeros((SIDE, SIDE, 3, 3))
    masks[:2, :, :, 0] = masks[2:, :, :, 1] = masks[:, :2, :, 2] = 10 / 24
    return linear_model(masks.reshape(-1, 3), np.zeros(3), side=SIDE)


@pytest.fixture
def model(halves, tmp_path):
    halves.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def image(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def white(rows=slice(None), columns=slice(None)):
    pixels = np.zeros((SIDE, SIDE, 3), "uint8")
    pixels[rows, columns] = 255
    return pixels


def table(folder, model, *args):
    """The rows of the CSV file."""
    assert predict.main([str(model), *args, "--output", str(folder / "out" / "p.csv")]) == 0
    return list(csv.DictReader((folder / "out" / "p.csv").open()))


def softmax(*logits):
    return np.exp(logits) / np.exp(logits).sum()


def test_probabilities_by_hand(tmp_path, model, capsys):
    file = image(tmp_path / "a.png", white(rows=slice(2)))
    (row,) = table(tmp_path, model, file)
    # White above: logits 10, 0 and 5.
    p = softmax(10, 0, 5)
    assert row == {
        "file": file,
        "class_1": "0", "word_1": "0", "probability_1": f"{p[0]:.6f}",
        "class_2": "2", "word_2": "2", "probability_2": f"{p[2]:.6f}",
        "class_3": "1", "word_3": "1", "probability_3": f"{p[1]:.6f}",
    }  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "top", "1", "top", "2", "top", "3"]
    assert lines[1].split() == [file, "0", f"{p[0]:.3f}", "2", f"{p[2]:.3f}", "1", f"{p[1]:.3f}"]


def test_standard_error_stays_empty(tmp_path, model):
    file = image(tmp_path / "a.png", white())
    command = [sys.executable, "-m", "pipelines.predict", str(model), file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and file in done.stdout


def test_a_photograph_is_turned_upright(tmp_path, model):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [
        image(tmp_path / "plain.png", white(columns=slice(2))),
        # What is stored on the left is shown above.
        image(tmp_path / "turned.png", white(columns=slice(2)), exif=exif),
    ]
    rows = table(tmp_path, model, *files, "--top", "1")
    assert [WORDS[int(row["class_1"])] for row in rows] == ["left", "top"]


def test_images_of_any_size_and_mode_are_read_as_data_are(tmp_path, halves, model):
    rng = np.random.default_rng(0)
    files = [
        image(tmp_path / "wide.png", rng.integers(0, 256, (9, 30, 3), "uint8")),
        image(tmp_path / "grey.jpg", rng.integers(0, 256, (20, 8), "uint8")),
        image(tmp_path / "clear.png", rng.integers(0, 256, (5, 5, 4), "uint8")),
        image(tmp_path / "deep.png", rng.integers(0, 65536, (6, 7), "uint16")),
    ]
    x = np.stack([decode(tmp_path / file, (SIDE, SIDE)).pixels for file in files])
    expected = tf.nn.softmax(halves(x.astype("float32") / 255)).numpy()
    for row, p in zip(table(tmp_path, model, *files), expected, strict=True):
        order = np.argsort(-p)
        assert [int(row[f"class_{i}"]) for i in (1, 2, 3)] == order.tolist()
        found = [float(row[f"probability_{i}"]) for i in (1, 2, 3)]
        np.testing.assert_allclose(found, p[order], atol=2e-6)


def test_more_images_than_a_batch_keep_their_order(tmp_path, model, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH", 2)
    shades = [250, 10, 90, 170, 30]
    for place, shade in enumerate(shades):
        image(tmp_path / "many" / f"{place}.png", white(rows=slice(2)) // 255 * np.uint8(shade))
    rows = table(tmp_path, model, str(tmp_path / "many"), "--top", "1")
    assert [row["file"][-5:] for row in rows] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    expected = [softmax(10 * s / 255, 0, 5 * s / 255)[0] for s in shades]
    found = [float(row["probability_1"]) for row in rows]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_folder_is_read_however_deep_without_what_systems_leave_in_it(tmp_path, model):
    folder = tmp_path / "images"
    files = [image(folder / name, white()) for name in ("b.png", "a/z.png", "a/deep/y.png")]
    for name in (".hidden.png", "Thumbs.db", "a/.git/config", "__MACOSX/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    rows = table(tmp_path, model, str(folder))
    assert [row["file"] for row in rows] == sorted(files)


def test_a_broken_image_is_named_or_left_out(tmp_path, model, capsys):
    sound = image(tmp_path / "images" / "a.png", white())
    broken = tmp_path / "images" / "b.png"
    broken.write_bytes((tmp_path / "images" / "a.png").read_bytes()[:40])
    args = [str(model), str(tmp_path / "images")]
    assert predict.main(args) == 1
    err = capsys.readouterr().err
    assert f"error: {broken}: " in err and "--skip-broken" in err and err.count("\n") == 1
    rows = table(tmp_path, model, str(tmp_path / "images"), "--skip-broken")
    assert [row["file"] for row in rows] == [sound]
    assert f"Skipped 1 of 2:\n  {broken}: " in capsys.readouterr().out
    assert predict.main([str(model), str(broken), "--skip-broken"]) == 1
    assert f"No image can be read: {broken}: " in capsys.readouterr().err


def test_classes_are_called_by_their_words(tmp_path, halves, capsys):
    run = RunFolder(tmp_path / "run")
    run.create()
    halves.save(run.best_model)
    file = image(tmp_path / "a.png", white(rows=slice(2)))
    run.evaluation.write_text(json.dumps({"classes": ["oben", "unten", "links"]}))
    (row,) = table(tmp_path, run.path, file)
    assert [row[f"word_{i}"] for i in (1, 2, 3)] == ["oben", "links", "unten"]
    # The SavedModel was made with the data's own words: it is believed first.
    export(halves, run.path, WORDS, check_images=np.zeros((1, SIDE, SIDE, 3), np.float32))
    for source in (run.path, run.path / "1"):
        (row,) = table(tmp_path, source, file)
        assert [row[f"word_{i}"] for i in (1, 2, 3)] == ["top", "left", "bottom"]
    assert f"top {softmax(10, 0, 5)[0]:.3f}" in capsys.readouterr().out
    # Words of other classes are no words of these.
    (run.path / "1" / "assets.extra" / "labels.json").write_text("[")
    run.evaluation.write_text(json.dumps({"classes": ["one", "two"]}))
    (row,) = table(tmp_path, run.path, file)
    assert row["word_1"] == "0"


def test_a_model_of_any_size_sees_images_as_they_are(tmp_path):
    pixels = keras.Input((None, None, 3))
    mean = keras.layers.GlobalAveragePooling2D()(pixels)
    keras.Model(pixels, keras.layers.Rescaling(10.0)(mean)).save(tmp_path / "any.keras")
    spotted = np.zeros((5, 7, 3), "uint8")
    # One red pixel of 35.
    spotted[2, 3, 0] = 255
    files = [image(tmp_path / "a.png", spotted), image(tmp_path / "b.png", white())]
    first, second = table(tmp_path, tmp_path / "any.keras", *files, "--top", "1")
    assert (first["class_1"], first["probability_1"]) == ("0", f"{softmax(10 / 35, 0, 0)[0]:.6f}")
    assert second["probability_1"] == f"{1 / 3:.6f}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{file}", "--top", "0"], "--top: expected at least 1, found 0"),
        (["{file}", "{folder}/none.png"], "none.png not found"),
        (["{folder}/empty"], "expected images in it, found no file"),
    ],
)
def test_wrong_use_is_told_before_the_model_is_read(tmp_path, capsys, args, message):
    file = image(tmp_path / "a.png", white())
    (tmp_path / "empty").mkdir()
    given = [arg.format(file=file, folder=tmp_path) for arg in args]
    assert predict.main([str(tmp_path / "none.keras"), *given]) == 2
    assert message in capsys.readouterr().err
    assert predict.main([str(tmp_path / "none.keras"), file]) == 2
    assert "none.keras not found" in capsys.readouterr().err


def test_probabilities_stay_what_they_are_and_logits_that_add_up_to_1_are_logits(
    tmp_path, halves, model, linear_model, capsys
):
    file = image(tmp_path / "a.png", white(rows=slice(2)) // 255 * np.uint8(17))
    # Logits of 10 * 17 / 255 = 2/3, 0 and 1/3.
    (row,) = table(tmp_path, model, file, "--top", "1")
    assert row["probability_1"] == f"{softmax(2 / 3, 0, 1 / 3)[0]:.6f}"
    keras.Model(halves.input, keras.layers.Softmax()(halves.output)).save(tmp_path / "soft.keras")
    (soft,) = table(tmp_path, tmp_path / "soft.keras", file, "--top", "1")
    assert soft["probability_1"] == row["probability_1"]
    linear_model(np.full((48, 3), np.nan), np.zeros(3), side=SIDE).save(tmp_path / "nan.keras")
    assert predict.main([str(tmp_path / "nan.keras"), file]) == 1
    assert "The model returns NaN" in capsys.readouterr().err
