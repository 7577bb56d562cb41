"""`jobs.distances`, `spatial`, `universal` and `patch` as a notebook calls them, and the verb."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfrobust import jobs
from tfrobust.cli.probe import main
from tfrobust.errors import UsageError
from tfrobust.runtime import keras

FEW = {"evaluation": {"limit": 12}}


def values_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_distances_lie_in_the_run_s_folder_with_a_figure_for_each_norm(run, capsys):
    lines = []
    subject = jobs.open_subject(run.path, FEW)
    attacks = ("fmn:steps=4", "deepfool:steps=4")
    made = jobs.distances(subject, attacks, ("linf",), tell=lines.append)
    assert [one.attack for one in made.found] == list(attacks)
    folder = run.path / "distances"
    values = values_of(folder / "fmn_steps=4_linf", "minimal_distances")
    assert values["num_examples"] == 12 and values["median"] == pytest.approx(made.found[0].median)
    assert (folder / "linf.png").is_file() and all(file.is_file() for file in made.files)
    assert any(str(made.found[1]) in line for line in lines) and capsys.readouterr().out == ""


def test_the_verb_measures_turns_and_shifts(run, capsys):
    words = ["spatial", str(run.path), "--limit", "12", "--degrees", "0", "--pixels", "7"]
    assert main([*words, "--grid", "1,3"]) == 0
    assert "accuracy" in capsys.readouterr().out
    values = values_of(run.path / "spatial", "spatial")
    # An image of 8 x 8 that is shifted by 7 pixels is all but black.
    assert values["tried"] == 9 and values["robust_accuracy"] < values["clean_accuracy"] == 1
    rows = (run.path / "spatial/spatial.csv").read_text().splitlines()[1:]
    assert np.mean([row.split(",")[3] == "1" for row in rows]) == values["robust_accuracy"]
    assert (run.path / "spatial/spatial.png").is_file()


def test_one_perturbation_and_one_patch_for_all_on_grey_images(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (24, 8, 8, 1), np.uint8), np.arange(24) % 3
    np.savez(tmp_path / "grey.npz", x=x, y=y)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
                              keras.layers.Dense(3)])  # fmt: skip
    model.save(tmp_path / "grey.keras")
    given = [str(tmp_path / "grey.keras"), "--data", str(tmp_path / "grey.npz"), "--epochs", "2"]
    assert main(["universal", *given, "--eps", "0.1"]) == 0
    assert main(["patch", *given, "--size", "4", "--target", "1"]) == 0
    folder = tmp_path / "grey.keras-results"
    with np.load(folder / "universal/universal.npz") as content:
        assert content["delta"].shape == (8, 8, 1) and np.abs(content["delta"]).max() <= 0.1 + 1e-6
    with np.load(folder / "patch/patch.npz") as content:
        assert content["pixels"].shape == (4, 4, 1)
    values = values_of(folder / "patch", "patch")
    assert values["target"] == 1 and values["made_on"]["images"] == 12
    assert f"{values['reached']:.1%}" in capsys.readouterr().out
    assert (folder / "universal/universal.png").is_file() and (folder / "patch/patch.png").is_file()


@pytest.mark.parametrize("words", [
    ("patch",), ("patch", "--size", "3", "--target", "zebra"), ("spatial", "--size", "3"),
    ("distances", "--attack", "pgd"), ("distances", "--norms", "l3"),
    ("universal", "--norm", "l0", "--eps", "3"), ("universal", "--on", "ray"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(words, run):
    assert main([words[0], str(run.path), "--limit", "4", *words[1:]]) == 2


def test_a_class_is_named_or_numbered(run):
    with pytest.raises(UsageError):
        jobs.patch(jobs.open_subject(run.path, FEW), 3, target=99)
