"""`pipelines.evaluate` on a bare model and an .npz, as a stranger uses it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines import evaluate, explain, export
from tfrobust.attacks.named import make_attacks
from tfrobust.config import EvaluationConfig
from tfrobust.errors import UsageError

QUICK = "pgd:steps=5:restarts=1,square:queries=20,apgd-ce:steps=6"


@pytest.fixture
def case(small_cnn, tmp_path):
    """A model file, and images of some of its classes: uint8, and the same as floats."""
    model = small_cnn()
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    y = np.argmax(model(x / np.float32(255), training=False), axis=1)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "bytes.npz", x=x, y=y)
    np.savez(tmp_path / "floats.npz", x=x.astype("float64") / 255, y=y)
    return tmp_path


def run(folder, data, *more):
    output = folder / f"out-{data}"
    flags = {"--data": folder / f"{data}.npz", "--norm": "linf", "--eps": "2/255",
             "--attack": QUICK, "--output": output}  # fmt: skip
    named = [str(each) for pair in flags.items() for each in pair]
    args = [str(folder / "model.keras"), *named, "--no-figures"]
    assert evaluate.main([*args, *more]) == 0
    return json.loads((output / "evaluation.json").read_text())


def test_every_image_of_the_file_counts_and_bytes_and_floats_are_the_same(case):
    found = [run(case, data) for data in ("bytes", "floats")]
    for values in found:
        assert values["num_examples"] == 40 and values["clean_accuracy"] == 1.0
        # In order of cost, whatever order they were named in.
        assert list(values["attacks"]) == ["pgd", "apgd-ce", "square"]
        left = [attack["accuracy"] for attack in values["attacks"].values()]
        assert left == sorted(left, reverse=True) and left[-1] == values["robust_accuracy"]
        attacked = [attack["attacked"] / 40 for attack in values["attacks"].values()]
        assert attacked == [1.0, *left[:-1]]
        assert values["attacks"]["square"]["gradient_evaluations"] == 0
        assert 0 < values["attacks"]["square"]["forward_evaluations"] <= 21 * 40
        examples = values["examples"]
        assert np.mean(examples["robust"]) == values["robust_accuracy"]
        for robust, broken_by in zip(examples["robust"], examples["broken_by"], strict=True):
            assert robust == (broken_by is None)
    assert found[0]["examples"] == found[1]["examples"]
    # Of a bare model's training nothing is known, and its card says so.
    card = (case / "out-bytes" / "model_card.md").read_text()
    assert "its training is unknown" in card


def test_labels_may_leave_classes_out_and_others_are_refused(case, capsys):
    content = np.load(case / "bytes.npz")
    some = content["y"] == content["y"][0]
    np.savez(case / "some.npz", x=content["x"][some], y=content["y"][some])
    assert run(case, "some", "--attack", "fgsm")["num_examples"] == some.sum()
    np.savez(case / "high.npz", x=content["x"], y=content["y"] + 4)
    args = [str(case / "model.keras"), "--data", str(case / "high.npz")]
    assert evaluate.main(args) == 1
    assert "4 classes" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.1])
def test_pixels_out_of_range_are_refused(case, capsys, value):
    content = np.load(case / "floats.npz")
    x = content["x"].copy()
    x[3, 0, 0, 0] = value
    np.savez(case / "wrong.npz", x=x, y=content["y"])
    args = [str(case / "model.keras"), "--data", str(case / "wrong.npz")]
    assert evaluate.main(args) == 1
    assert "floats in [0, 1]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("magic", "Unknown attack 'magic'"),
        ("pgd:steps", "expected NAME or NAME:SETTING=VALUE"),
        ("pgd:stepz=3", "unknown setting 'stepz'"),
        ("pgd:steps=0", "at least 1"),
        ("autoattack:steps=3", "has its published settings"),
    ],
)
def test_wrong_attacks_are_wrong_use(case, capsys, attack, message):
    args = [str(case / "model.keras"), "--data", str(case / "bytes.npz"), "--attack", attack]
    assert evaluate.main([*args, "--output", str(case / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--norm", "l0"], "found 0.0313725"),
        (["--norm", "l0", "--eps", "2", "--attack", "autoattack"], "use sparse-rs"),
    ],
)
def test_a_norm_that_does_not_fit_is_wrong_use(case, capsys, flags, message):
    args = [str(case / "model.keras"), "--data", str(case / "bytes.npz"), *flags]
    assert evaluate.main([*args, "--output", str(case / "out")]) == 2
    assert message in capsys.readouterr().err


def test_the_pixel_attack_says_how_many_pixels_it_takes(case, capsys):
    args = [str(case / "model.keras"), "--data", str(case / "bytes.npz"), "--no-figures"]
    more = ["--norm", "l0", "--eps", "2", "--attack", "pixel:fraction=0.05:steps=2:retries=0"]
    assert evaluate.main([*args, *more, "--output", str(case / "out")]) == 0
    assert "pixel: 2 of the 64 pixels of an image" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [explain, export])
def test_verbs_that_need_layers_refuse_a_saved_model(case, capsys, verb, small_cnn):
    small_cnn().save(case / "saved", save_format="tf")
    args = [str(case / "saved"), "--data", str(case / "bytes.npz"), "--output", str(case / "out")]
    assert verb.main(args) == 2
    assert "SavedModel" in capsys.readouterr().err


def test_suites_have_the_published_composition():
    names = {version: list(make_attacks(EvaluationConfig(attacks=(version,)))) for version in
             ("autoattack", "autoattack-plus", "autoattack-rand")}  # fmt: skip
    assert names == {
        "autoattack": ["apgd-ce", "apgd-t", "fab-t", "square"],
        "autoattack-plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
        "autoattack-rand": ["apgd-ce", "apgd-dlr"],
    }


def test_settings_written_with_an_attack_win_over_the_flags():
    config = EvaluationConfig(attacks=("pgd:steps=7:loss=dlr", "bim"), steps=3, restarts=4)
    attacks = make_attacks(config)
    assert (attacks["pgd"].steps, attacks["pgd"].loss, attacks["pgd"].restarts) == (7, "dlr", 4)
    assert attacks["bim"].steps == 3
    with pytest.raises(UsageError, match="unknown setting"):
        make_attacks(EvaluationConfig(attacks=("fgsm:steps=3",)))
