"""Figures on the page: each has a title and a place, and none passes for what it does not show."""

from __future__ import annotations

import shutil

import pytest

from pipelines import report
from tfrobust.figures import FIGURES
from tfrobust.figures.provenance import provenance, record
from tfrobust.report.runs import read_run


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
    assert notes["saliency"] == "The eps of the attack is not recorded."
    # In these nothing is attacked, or it is the evaluation's own.
    assert notes["channels"] == notes["confusion"] == "" and set(provenance(figures)) == {"overlay"}
    record(figures, "saliency", "linf", 1 / 255)
    assert set(provenance(figures)) == {"overlay", "saliency"}
    assert report.main([str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "linf, eps 1/255; the evaluation used linf, eps 2/255." in text


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_note_is_none(tmp_path, content) -> None:
    (tmp_path / "made.json").write_text(content)
    assert provenance(tmp_path) == {}
