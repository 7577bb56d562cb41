"""Models side by side: the figures are those of the evaluations, or measured anew."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfrobust.attacks.gradient import FGSM, PGD
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.evaluation.comparison import (
    Cell,
    Comparison,
    accuracy_on,
    comparison_figure,
    from_evaluation,
)
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.threat_model import ThreatModel


@pytest.fixture
def case(small_cnn):
    model = small_cnn()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype("uint8")
    y = np.argmax(model(pixels / np.float32(255), training=False), axis=1).astype("int32")
    y[:4] = (y[:4] + 1) % 4  # four of forty are wrong
    return model, ImageSet(pixels, y, tuple("abcd"))


def test_an_evaluation_is_read_as_it_was_measured(case, tmp_path):
    attacks = {"fgsm": FGSM(), "pgd": PGD(steps=3)}
    report = evaluate(*case, ThreatModel("linf", 2 / 255), attacks, sweep=(4 / 255,))
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(report.as_dict()))
    found = from_evaluation(path)
    assert list(found) == ["clean", "fgsm 2/255", "pgd 2/255", "fgsm 4/255", "pgd 4/255"]
    assert found["clean"] == Cell(36, 40)
    for result, name in zip((*report.attacks, *report.sweep), list(found)[1:], strict=True):
        assert found[name].hits == result.outcome.correct.sum()
        assert found[name].doubted == bool(report.flags)


def test_accuracy_on_a_set(case):
    assert accuracy_on(*case, batch_size=7) == Cell(36, 40)


def test_what_is_no_evaluation_is_told(tmp_path):
    with pytest.raises(UsageError, match="evaluate the run first"):
        from_evaluation(tmp_path / "evaluation.json")
    for text in ("{}", "nothing", "[]"):
        (tmp_path / "evaluation.json").write_text(text)
        with pytest.raises(TFRobustError, match="is not an evaluation"):
            from_evaluation(tmp_path / "evaluation.json")


def comparison() -> Comparison:
    rows = {
        "standard": {"clean": Cell(90, 100), "pgd": Cell(10, 100)},
        "robust": {"clean": Cell(80, 100), "pgd": Cell(60, 100, doubted=True)},
        "half": {"clean": Cell(70, 100)},
    }
    return Comparison(("clean", "pgd"), rows, {"pgd": 0.5})


def test_the_table_marks_the_best_and_the_doubtful():
    lines = comparison().as_text().splitlines()
    assert lines[2] == "| standard | **0.900** | 0.100 |"
    assert lines[3] == "| robust | 0.800 | **0.600 ?** |"
    assert lines[4] == "| half | 0.700 |  |"
    assert lines[5] == "| reported |  | 0.5 |"
    assert "raised doubts" in lines[-1]


def test_the_csv_has_intervals():
    lines = comparison().as_csv().splitlines()
    assert len(lines) == 6
    # Wilson for 10 of 100: .0552 to .1744.
    assert lines[2] == "standard,pgd,0.100000,0.055229,0.174366,100,0.5"


def test_the_figure_is_drawn(tmp_path):
    from PIL import Image

    with Image.open(comparison_figure(comparison(), tmp_path / "c.png", "Side by side")) as image:
        assert image.width > 800
        # Both series' colours are in it: vermilion and blue.
        colours = {pixel for _, pixel in image.convert("RGB").getcolors(1 << 24)}
    assert {(0, 114, 178), (213, 94, 0)} & colours
