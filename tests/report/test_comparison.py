"""Models side by side: the figures are those of the evaluations, or measured anew."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tfrobust.attacks import ATTACKS
from tfrobust.attacks.autoattack import autoattack
from tfrobust.attacks.gradient import FGSM, PGD
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.figures.accuracies import ModelsSideBySide
from tfrobust.figures.style import LIGHT
from tfrobust.report.comparison import (
    Cell,
    Comparison,
    accuracies,
    accuracy_on,
    from_evaluation,
)
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
    attacked = ["fgsm 2/255", "pgd 2/255", "fgsm 4/255", "pgd 4/255"]
    assert list(found) == ["clean", "clean top-5", *attacked[:2], "worst case 2/255", *attacked[2:]]
    assert found["clean"] == Cell(36, 40)
    # There are four classes.
    assert found["clean top-5"] == Cell(40, 40, aside=True)
    assert found["worst case 2/255"].hits == report.attacks[-1].outcome.correct.sum()
    for result, name in zip((*report.attacks, *report.sweep), attacked, strict=True):
        assert found[name].hits == result.outcome.correct.sum()
        assert found[name].doubted == bool(report.flags)


def test_a_column_names_aim_norm_and_transfer(case, tmp_path):
    aimed = {"bim": PGD(steps=2, random_start=False, targeted=True, target="least_likely")}
    report = evaluate(*case, ThreatModel("l2", 0.5), aimed)
    values = report.as_dict()
    figures = {"accuracy": {"base": 0.1, values["model"]: 0.7}, "eps_text": "0.5"}
    (tmp_path / "evaluation.json").write_text(json.dumps(values | {"transfer": figures}))
    found = from_evaluation(tmp_path / "evaluation.json")
    assert list(found) == ["clean", "clean top-5", "bim least likely l2 0.5", "transfer l2 0.5"]
    assert found["transfer l2 0.5"].hits == 28


def test_every_attack_has_its_column(case, tmp_path):
    report = evaluate(*case, ThreatModel("linf", 2 / 255), {"fgsm": FGSM()}).as_dict()
    ran, parts = report["attacks"]["fgsm"], {**autoattack("plus"), **autoattack()}
    attacks = {name: ATTACKS[name]() for name in ATTACKS} | parts
    report["attacks"] = {
        name: ran | {"parameters": asdict(attack)} for name, attack in attacks.items()
    }
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(report))
    columns = [f"{name} 2/255" for name in attacks]
    assert list(from_evaluation(path))[2:] == [*columns, "worst case 2/255"]


def test_a_crowded_figure_leaves_out_what_stands_aside():
    def drawn(rows, reported):
        found = accuracies(Comparison(columns, rows, reported), "title")
        return tuple(found.columns)

    columns = ("clean", "top-5", "pgd")
    cells = {"clean": Cell(1, 2), "top-5": Cell(2, 2, aside=True), "pgd": Cell(0, 2)}
    assert drawn({str(i): cells for i in range(13)}, {}) == columns
    crowd = {str(i): cells for i in range(14)}
    assert drawn(crowd, {}) == ("clean", "pgd")
    assert drawn(crowd, {"top-5": 0.9}) == columns


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
    noted = replace(comparison(), note="What it means.").as_text()
    assert noted.splitlines()[-1] == "What it means."


def test_the_csv_has_intervals():
    lines = comparison().as_csv().splitlines()
    assert len(lines) == 6
    # Wilson for 10 of 100: .0552 to .1744.
    assert lines[2] == "standard,pgd,0.100000,0.055229,0.174366,100,0.5"


def test_the_figure_is_drawn(tmp_path):
    from PIL import Image

    path = ModelsSideBySide().save(accuracies(comparison(), "Side by side"), tmp_path / "c.png")
    with Image.open(path) as image:
        assert image.width > 800
        # All three series' colours are in it.
        colours = {pixel for _, pixel in image.convert("RGB").getcolors(1 << 24)}
    series = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in LIGHT.series[1:4]}
    assert series <= colours


@pytest.mark.parametrize("models", [1, 4, 8])
def test_the_legend_leaves_the_title_and_the_bars_free(models):
    cells = {"clean": Cell(9, 10), "pgd 8/255": Cell(4, 10)}
    rows = {f"simplenet_plus-blend-{number}": cells for number in range(models)}
    found = Comparison(tuple(cells), rows, {})
    drawn = ModelsSideBySide().draw(accuracies(found, "Networks side by side"))
    FigureCanvasAgg(drawn).draw()
    axes = drawn.axes[0]
    legend, title = (part.get_window_extent() for part in (axes.get_legend(), axes._left_title))
    assert axes.get_window_extent().y1 <= legend.y0 + 1 and legend.y1 <= title.y0
    assert title.y1 <= drawn.bbox.y1 and legend.x1 <= drawn.bbox.x1
