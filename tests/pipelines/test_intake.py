"""A model and images of other makes, through the commands: the right number, or a sentence."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pipelines import compare, evaluate, export, predict
from tfrobust.config import DataConfig, RunConfig, ThreatConfig
from tfrobust.data import load
from tfrobust.data.digests import RunImages
from tfrobust.jobs import evaluation_extras
from tfrobust.run import RunFolder
from tfrobust.runtime import keras, tf
from tfrobust.settings import save_yaml

FRUIT = ("apple", "berry", "cherry", "date")
FAST = ["--norm", "linf", "--eps", "0.02", "--attack", "fgsm", "--no-figures"]


def pictures(count=60, seed=0):
    """Images of four plain colours with noise: any model learns them at once."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 4
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]])
    x = np.clip(colours[y][:, None, None] + rng.normal(0, 20, (count, 8, 8, 3)), 0, 255)
    return x.astype("uint8"), y


def classifier(last=None, scale=1.0):
    """The model that is right on all of them: the mean colour against the four."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / scale)(image) if scale != 1 else image
    mean = keras.layers.GlobalAveragePooling2D()(x)
    dense = keras.layers.Dense(4)
    z = dense(mean)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]]) / 255
    dense.set_weights([40 * colours.T, -20 * (colours**2).sum(axis=1)])
    return keras.Model(image, keras.layers.Activation(last)(z) if last else z)


def folder(path, x, y, names=FRUIT):
    for i, (pixels, k) in enumerate(zip(x, y, strict=True)):
        (path / names[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path / names[k] / f"{i:03d}.png")
    return path


@pytest.fixture
def run(tmp_path):
    """A run folder as training leaves it, without the training."""
    photos = folder(tmp_path / "photos", *pictures())
    made = RunFolder(tmp_path / "run")
    made.create()
    config = RunConfig(data=DataConfig(dataset=str(photos)), threat=ThreatConfig(eps=0.02))
    save_yaml(config, made.config)
    RunImages.of(load(str(photos), seed=config.seed)).save(made.seen)
    classifier().save(made.best_model)
    return made


def measured(model, *flags, output):
    code = evaluate.main([str(model), *FAST, *map(str, flags), "--output", str(output)])
    assert code == 0
    with open(output / "predictions.csv", encoding="utf-8") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    return json.loads((output / "evaluation.json").read_text()), names


def test_a_later_command_never_splits_a_run_anew(run, tmp_path):
    splits = load(str(tmp_path / "photos"), seed=42)
    others = ["--seed", 7, "--test-fraction", 0.5, "--data", tmp_path / "photos"]
    for place, flags in enumerate(([], others)):
        found, names = measured(run.path, *flags, output=tmp_path / f"out{place}")
        assert sorted(names) == sorted(splits.test.names) and found["clean_accuracy"] == 1


def test_what_a_run_has_seen_is_left_out_wherever_it_lies(run, tmp_path, capsys):
    shutil.copytree(tmp_path / "photos", tmp_path / "elsewhere")
    splits = load(str(tmp_path / "photos"), seed=42)
    for model in (run.path, run.best_model):
        data = ["--data", tmp_path / "elsewhere"]
        found, names = measured(model, *data, output=tmp_path / f"out-{model.name}")
        assert sorted(names) == sorted(splits.test.names)
        assert any("this run was trained on" in note for note in found["notes"])
    np.savez(tmp_path / "train.npz", x=splits.train.images, y=splits.train.labels)
    args = [str(run.path), *FAST, "--data", str(tmp_path / "train.npz")]
    assert evaluate.main(args) == 2
    assert "not seen" in capsys.readouterr().err


def test_classes_are_matched_by_name(run, tmp_path, capsys):
    x, y = pictures(seed=5)
    some = np.isin(y, (1, 3))
    folder(tmp_path / "two", x[some], y[some])
    found, _ = measured(run.path, "--data", tmp_path / "two", output=tmp_path / "a")
    assert found["clean_accuracy"] == 1 and found["classes"] == list(FRUIT)
    folder(tmp_path / "other", x, y, ("apple", "berry", "cherry", "plum"))
    args = [
        str(run.path),
        *FAST,
        "--data",
        str(tmp_path / "other"),
        "--output",
        str(tmp_path / "b"),
    ]
    assert evaluate.main(args) == 2
    told = capsys.readouterr().err
    assert "'plum'" in told and "'date'" in told
    found, _ = measured(
        run.path, "--data", tmp_path / "other", "--class-map", "plum=date", output=tmp_path / "b"
    )
    assert found["clean_accuracy"] == 1


def test_results_of_a_model_never_replace_those_of_a_run(run, tmp_path, capsys):
    shutil.copy(run.best_model, tmp_path / "run.keras")
    np.savez(tmp_path / "new.npz", **dict(zip("xy", pictures(seed=9), strict=True)))
    args = [str(tmp_path / "run.keras"), *FAST, "--data", str(tmp_path / "new.npz")]
    assert evaluate.main(args) == 0
    assert not run.evaluation.exists()
    assert (tmp_path / "run.keras-results" / "evaluation.json").is_file()
    assert evaluate.main([*args, "--output", str(run.path)]) == 2
    assert "choose another --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scale", "flags", "flag"),
    [(1.0, [], None), (255.0, [], None), (1 / 255, [], "other_input_range"),
     (1 / 255, ["--input-range", "0,255"], None)],
)  # fmt: skip
def test_pixels_as_the_model_takes_them(tmp_path, scale, flags, flag):
    # Of scale 1/255 the model holds the factor in its weights: no layer tells.
    if scale < 1:
        model = classifier()
        weights = model.layers[-1].get_weights()
        model.layers[-1].set_weights([weights[0] / 255, weights[1]])
    else:
        model = classifier(scale=scale)
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "d.npz", **dict(zip("xy", pictures(), strict=True)))
    data = ["--data", tmp_path / "d.npz", *flags]
    found, _ = measured(tmp_path / "m.keras", *data, output=tmp_path / "out")
    names = [one["name"] for one in found["flags"]]
    assert ("other_input_range" in names) == (flag is not None)
    assert (found["clean_accuracy"] == 1) == (flag is None)


def test_the_served_probabilities_of_a_softmax_model_are_its_own(tmp_path):
    model = classifier("softmax")
    model.save(tmp_path / "soft.h5")
    x, y = pictures()
    np.savez(tmp_path / "d.npz", x=x, y=y)
    args = [str(tmp_path / "soft.h5"), "--data", str(tmp_path / "d.npz")]
    assert export.main([*args, "--output", str(tmp_path / "out")]) == 0
    served = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures["serving_default"]
    pixels = tf.constant(x[:9] / np.float32(255))
    np.testing.assert_allclose(served(pixels)["probabilities"], model(pixels), atol=1e-5)


def test_a_single_output_predicts_two_classes(tmp_path, capsys):
    model = classifier()
    z = keras.layers.Dense(1, use_bias=False)(model.output)
    single = keras.Model(model.input, keras.layers.Activation("sigmoid")(z))
    single.layers[-2].set_weights([np.array([[-1.0], [1.0], [0], [0]])])
    single.save(tmp_path / "s.keras")
    x, _ = pictures()
    for k in (0, 1):
        Image.fromarray(x[k]).save(tmp_path / f"{k}.png")
    names = [str(tmp_path / f"{k}.png") for k in (0, 1)]
    assert predict.main([str(tmp_path / "s.keras"), *names]) == 0
    lines = capsys.readouterr().out.splitlines()[1:3]
    found = [(line.split()[1], float(line.split()[2])) for line in lines]
    expected = single(x[:2] / np.float32(255)).numpy()[:, 0]
    assert [one[0] for one in found] == ["0", "1"]
    np.testing.assert_allclose([1 - found[0][1], found[1][1]], expected, atol=1e-3)


def test_what_is_left_out_is_listed_and_kept(tmp_path, capsys):
    photos = folder(tmp_path / "pets", *pictures())
    broken = sorted(photos.glob("apple/*.png"))[:3]
    for file in broken:
        file.write_bytes(b"broken")
    classifier().save(tmp_path / "m.keras")
    flags = ["--data", photos, "--skip-broken"]
    found, _ = measured(tmp_path / "m.keras", *flags, output=tmp_path / "out")
    shown = capsys.readouterr().out
    for file in broken:
        assert any(f"apple/{file.name}" in line for line in found["skipped"])
        assert file.name in shown


def test_a_reference_that_cannot_serve_is_refused_before_the_work(tmp_path, capsys):
    classifier().save(tmp_path / "m.keras")
    image = keras.Input((8, 8, 3))
    few = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    few.save(tmp_path / "few.keras")
    np.savez(tmp_path / "d.npz", **dict(zip("xy", pictures(), strict=True)))
    args = [str(tmp_path / "m.keras"), *FAST, "--data", str(tmp_path / "d.npz")]
    assert evaluate.main([*args, "--reference", str(tmp_path / "few.keras")]) == 2
    shown = capsys.readouterr()
    assert "2 classes" in shown.err and "fgsm" not in shown.out


def test_a_late_failure_loses_nothing(tmp_path, capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("no such thing")

    monkeypatch.setattr(evaluation_extras, "_with_corruptions", broken)
    classifier().save(tmp_path / "m.keras")
    np.savez(tmp_path / "d.npz", **dict(zip("xy", pictures(), strict=True)))
    args = [str(tmp_path / "m.keras"), *FAST, "--data", str(tmp_path / "d.npz"), "--corruptions"]
    assert evaluate.main([*args, "--output", str(tmp_path / "out")]) == 1
    assert "corruptions: no such thing" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["clean_accuracy"] == 1


def test_runs_of_other_images_are_not_ranked(tmp_path, capsys):
    classifier().save(tmp_path / "m.keras")
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        np.savez(tmp_path / f"{name}.npz", **dict(zip("xy", pictures(seed=seed), strict=True)))
        measured(tmp_path / "m.keras", "--data", tmp_path / f"{name}.npz", output=tmp_path / name)
    capsys.readouterr()
    places = [str(tmp_path / name) for name in ("one", "same", "other")]
    assert compare.main([*places[:2], "--output", str(tmp_path / "c")]) == 0
    assert "**" in capsys.readouterr().out
    assert compare.main([*places, "--output", str(tmp_path / "c")]) == 0
    shown = capsys.readouterr().out
    assert "different test images" in shown and "**" not in shown


@pytest.mark.parametrize("eps", ["8", "1", "255"])
def test_a_radius_without_its_255_is_refused(eps, capsys):
    assert evaluate.main(["x.keras", "--data", "y.npz", "--norm", "linf", "--eps", eps]) == 2
    assert f"--eps {eps}/255" in capsys.readouterr().err
    assert evaluate.main(["x.keras", "--data", "y.npz", "--sweep", eps]) == 2


def test_perturbed_sets_come_from_the_run_s_own_split(run, tmp_path):
    from pipelines import perturb

    splits = load(str(tmp_path / "photos"), seed=42)
    args = [str(run.path), "--seed", "7", "--test-fraction", "0.5", "--eps", "0.4",
            "--attack", "fgsm", "--output", str(tmp_path / "sets"), "--augmented-train", "0",
            "--perturbed-train", "6", "--perturbed-validation", "3", "--hold-out", "3",
            "--pixel", "0"]  # fmt: skip
    assert perturb.main(args) == 0
    text = (tmp_path / "sets" / "manifest.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    known = {"train": splits.train.names, "test": splits.test.names}
    assert rows and all(row["source"] in known[row["source_split"]] for row in rows)
