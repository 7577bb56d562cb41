"""What page and card tell of a run, worked by hand."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from pipelines import report
from tfrobust.report.model_card import model_card
from tfrobust.report.runs import RunData, read_run
from tfrobust.report.summary import attack_settings, robustness_rows, transfer
from tfrobust.report.summary_data import data_rows
from tfrobust.report.summary_explanations import explanations

CORRUPTED = {"mean_accuracy": 0.456, "note": "made here",
             "by_corruption": {"gaussian_noise": [0.9, 0.8, 0.7, 0.6, 0.123]}}  # fmt: skip
TRANSFER = {"reference": "plain", "attack": "pgd", "eps": 2 / 255, "eps_text": "2/255",
            "accuracy": {"plain": 0.051, "robust": 0.588}}  # fmt: skip
CONVERTED = {"original": "plain", "images": 24, "agreement": 0.875,
             "clean_accuracy": {"original": 0.9, "converted": 0.8},
             "attacks": {"square": {"original": 0.7, "converted": 0.6}},
             "robust_accuracy": {"original": 0.5, "converted": 0.417}}  # fmt: skip
EXPLAINED = """\
model,method,images,attacked,deletion,deletion_95,stability,stability_95,random_half,\
random_half_95,completeness,completeness_95
own,integrated-gradients,48,40,0.1476,0.0383,0.8522,0.0158,0.3134,0.0300,0.0123,0.0010
own,random map,48,,0.1720,0.0400,,,,,,
"""


@pytest.fixture(scope="module")
def whole(evaluated_as) -> RunData:
    """Results with all that an evaluation can hold."""
    folder = evaluated_as("whole")
    found = json.loads((folder / "evaluation.json").read_text())
    found |= {"transfer": TRANSFER, "corruptions": CORRUPTED, "conversion": CONVERTED}
    (folder / "evaluation.json").write_text(json.dumps(found))
    (folder / "explanations.csv").write_text(EXPLAINED)
    assert report.main([str(folder)]) == 0
    return read_run(folder)


@pytest.fixture(scope="module")
def page(whole) -> str:
    return " ".join((whole.path / "report.html").read_text().split())


def test_parameters_of_an_attack_in_words() -> None:
    values = {"steps": 20, "step_size": None, "random_start": True, "early_stop": False,
              "loss": "cross_entropy", "momentum": 0.0, "decay": 0.75, "targeted": False,
              "target": "least_likely", "reach_target": False}  # fmt: skip
    aimed = {"queries": 5000, "targeted": True, "target": "second"}
    attacks: dict[str, Any] = {"pgd": {"parameters": values}, "aimed": {"parameters": aimed}}
    assert attack_settings({**attacks, "old": {}}) == [
        ("pgd", "steps 20, step size by default, random start, loss cross entropy, decay 0.75"),
        ("aimed", "queries 5000, targeted, target second"),
        ("old", "none recorded"),
    ]


def test_page_and_card_tell_the_attacks_settings(whole, page) -> None:
    card = model_card(whole)
    assert "pgd: steps 5, step size by default, random start" in card
    assert "<dt>pgd</dt><dd>steps 5, step size by default, random start" in page


def test_top5_is_told_where_it_was_measured(whole, page) -> None:
    rows = list(robustness_rows(whole.evaluation))
    # 3 classes: the label is always among the 5 largest.
    assert [row["top5"] for row in rows] == [1.0] * (len(rows) - 1) + [None]
    assert page.count("<td>100.0 %</td></tr>") == len(rows) - 1
    assert f"| clean |  | {whole.evaluation['clean_accuracy']:.3f} | 1.000 |" in model_card(whole)
    old = {**whole.evaluation}
    del old["clean_top5_accuracy"]
    assert next(robustness_rows(old))["top5"] is None


def test_transfer_and_corruptions_are_told(whole, page) -> None:
    moved = transfer(whole.evaluation)
    assert moved == {"head": "pgd at 2/255, crafted on plain",
                     "rows": [("plain", 0.051), ("robust", 0.588)]}  # fmt: skip
    assert "<td>plain</td><td>5.1 %</td>" in page and "<td>robust</td><td>58.8 %</td>" in page
    assert "Mean accuracy 45.6 %" in page and "<td>gaussian noise</td><td>90.0 %</td>" in page
    assert "<td>12.3 %</td></tr>" in page
    card = model_card(whole)
    assert "crafted on plain: plain 0.051, robust 0.588." in card
    assert "Mean accuracy over 1 corruptions: 0.456 (made here)." in card
    assert transfer({"transfer": None}) is None


def test_a_conversion_is_told_beside_its_original(whole, page) -> None:
    assert "<td>square</td><td>70.0 %</td><td>60.0 %</td>" in page and "87.5 % of the clean" in page
    assert "worst case 0.500 and 0.417." in model_card(whole)


def test_explanations_have_every_measure_with_its_interval(whole, page) -> None:
    table = explanations(whole.explanations)
    assert table is not None and table.heads == [
        "deletion ↓", "stability ↑", "half randomised → 0", "completeness gap → 0",
    ]  # fmt: skip
    assert table.rows[0][:3] == [
        "own, integrated-gradients",
        "48 (40 attacked)",
        "0.148 ±\xa00.038",
    ]
    assert table.rows[0][-1] == "0.012 ±\xa00.001"
    assert table.rows[1] == ["own, random map", "48", "0.172 ±\xa00.040", "", "", ""]
    for cell in (*table.heads, "48 (40 attacked)", "0.852 ± 0.016"):
        assert " ".join(cell.split()) in page
    assert explanations([]) is None


def run_of(config: dict[str, Any], environment: dict[str, Any], labels: list[int]) -> RunData:
    found = {"num_examples": len(labels), "examples": {"label": labels},
             "classes": ["goldfish, Carassius auratus", "cat"]}  # fmt: skip
    return RunData("run", None, config, environment, [], found, [])  # type: ignore[arg-type]


def test_data_are_told_as_far_as_the_folder_knows_them() -> None:
    config = {
        "data": {"dataset": "/home/me/own.zip", "limit_train": 3000, "select_fraction": 0.1,
                 "image_size": 64, "augment_with": "sets/noise.npz"},
        "augment": {"flip": True, "crop_padding": 4, "brightness": 0.2, "hue": 0.0},
    }  # fmt: skip
    assert dict(data_rows(run_of(config, {}, [0, 0, 1]))) == {
        "data set": "own.zip", "size": "64×64", "classes": "2: goldfish; cat",
        "train": "limited to 3,000, with the perturbed set noise.npz",
        "select": "10% of the training images", "test": "3 images evaluated, 1 to 2 per class",
        "augmentation": "flip, crop padding 4, brightness 0.2",
    }  # fmt: skip


def test_split_sizes_are_those_that_training_noted() -> None:
    noted = {"data": {"train": 27000, "select": 3000, "test": 5000, "image_shape": [64, 64, 3]}}
    rows = dict(data_rows(run_of({}, noted, [0, 1])))
    assert rows["size"] == "64×64×3" and rows["train"] == "27,000 images"
    assert rows["select"] == "3,000 images"
    assert rows["test"] == "2 images evaluated of 5,000, 1 to 1 per class"


def test_side_by_side_tells_norm_and_attacks(whole, tmp_path) -> None:
    other = shutil.copytree(whole.path, tmp_path / "other")
    assert report.main([str(whole.path), str(other), "--output", str(tmp_path / "both.html")]) == 0
    text = " ".join((tmp_path / "both.html").read_text().split())
    accuracy = 100 * whole.evaluation["robust_accuracy"]
    assert text.count(f"<span>{accuracy:.1f} % at linf, eps 2/255</span>") == 2
    assert "<td>pgd</td></tr>" in text


def test_regularisation_without_a_clean_loss_is_told():
    """`nsl` whose clean loss weighs nothing is adversarial training, and the card says so."""
    from tfrobust.config import RunConfig
    from tfrobust.report.model_card import _origin
    from tfrobust.report.summary import weighs_clean
    from tfrobust.settings import to_dict

    config = to_dict(RunConfig())
    assert weighs_clean(config) and "weigh 0" not in _origin(config)
    config["training"]["method"]["clean_weight"] = 0.0
    assert not weighs_clean(config) and "the clean weight is 0" in _origin(config)
    # What the last stage says holds, and other methods have no such weight.
    config["training"]["stages"][-1]["clean_weight"] = 1.0
    assert weighs_clean(config)
    config["training"] |= {"method": "pgd", "stages": []}
    assert weighs_clean(config)
    # A run of before, whose configuration has the settings of all methods.
    for name, weighs in (("pgd", True), ("nsl", False)):
        config["training"] |= {"method": name, "clean_weight": 0.0, "beta": 6.0}
        assert weighs_clean(config) == weighs
