"""Figures on the page: each has a title and a place, and none passes for what it does not show."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pipelines import report
from tfrobust.evaluation.figures import PATHS
from tfrobust.explain.made import ATTACKED, made, record
from tfrobust.figures import FIGURES
from tfrobust.report.runs import read_run

ROOT = Path(__file__).resolve().parents[2]


def named(file: str, pattern: str) -> set[str]:
    """What a pattern finds in a file of the project."""
    return set(re.findall(pattern, (ROOT / file).read_text(encoding="utf-8")))


def test_every_figure_that_is_written_has_a_title_and_a_place() -> None:
    evaluation = named("tfrobust/evaluation/figures.py", r'folder / f?"([\w{}-]+)\.png"')
    assert "path_{name}" in evaluation
    evaluation = (evaluation - {"path_{name}"}) | {f"path_{name}" for name in PATHS}
    training = named("tfrobust/jobs/training.py", r'figures / "(\w+)\.png"')
    explained = named("tfrobust/jobs/explanation.py", r'(?:_path\("|figures / ")(\w+)')
    assert evaluation == {name for name, one in FIGURES.items() if one.of_evaluation}
    # Both ways: no figure without a title, and no title without a figure.
    assert evaluation | training | explained == set(FIGURES)
    assert set(ATTACKED) <= explained | {"explanations"}


def test_the_adversarial_gallery_comes_early_and_unknown_figures_last(evaluated_as) -> None:
    figures = read_run(evaluated_as("gallery")).figures
    names = [figure.name for figure in figures]
    assert names == ["triples", "confusion", "saliency", "of_my_own"]
    titles = [figure.title for figure in figures]
    assert titles[0] == "Adversarial gallery" and titles[-1] == "Of my own"
    assert list(FIGURES).index("triples") == 1


def test_an_evaluation_leaves_no_figure_of_the_one_before(evaluated_once) -> None:
    # It was evaluated without figures, where there were of another: those of other verbs stay.
    left = {path.name for path in (evaluated_once / "figures").iterdir()}
    assert left == {"overlay.png", "own.png"}


def test_explanations_of_another_eps_say_so(evaluated_as) -> None:
    folder = evaluated_as("captions")
    figures = folder / "figures"
    for name in ("overlay", "channels"):
        shutil.copy(figures / "saliency.png", figures / f"{name}.png")
    record(figures, "overlay", "linf", 2 / 255)
    record(figures, "channels", "linf", 2 / 255)
    notes = {figure.name: figure.note for figure in read_run(folder).figures}
    assert notes["overlay"] == "Attacked by PGD with 20 steps, linf, eps 2/255."
    assert notes["saliency"] == "Which eps it was attacked with is not recorded."
    # In these nothing is attacked, or it is the evaluation's own.
    assert notes["channels"] == notes["confusion"] == "" and set(made(figures)) == {"overlay"}
    record(figures, "saliency", "linf", 1 / 255)
    assert set(made(figures)) == {"overlay", "saliency"}
    assert report.main([str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "linf, eps 1/255; the evaluation is of linf, eps 2/255." in text


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_note_is_none(tmp_path, content) -> None:
    (tmp_path / "made.json").write_text(content)
    assert made(tmp_path) == {}
