"""The page of a run: complete, self-contained, and honest where something is missing."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import shutil
from pathlib import Path

import pytest

from pipelines import report
from tfrobust.config import RunConfig
from tfrobust.report.leaderboard import leaderboard_entry
from tfrobust.report.model_card import model_card
from tfrobust.report.runs import read_run
from tfrobust.settings import to_dict

VOID = {"meta", "link", "img", "source", "input", "br", "line", "circle", "polyline", "path", "hr"}


@pytest.fixture(scope="module")
def evaluated(evaluated_as) -> Path:
    return evaluated_as("robust <b>&")


class Page(html.parser.HTMLParser):
    """Checks that tags close in order, and gathers texts, pictures, links and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def page(evaluated) -> tuple[Page, str]:
    assert report.main([str(evaluated)]) == 0
    text = (evaluated / "report.html").read_text()
    return Page(text), text


def test_it_holds_what_was_measured(page, evaluated) -> None:
    texts = " ".join(page[0].texts)
    found = json.loads((evaluated / "evaluation.json").read_text())
    assert "robust <b>&" in texts
    low, high = found["robust_accuracy_interval"]
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in texts
    for accuracy in (found["clean_accuracy"], found["robust_accuracy"],
                     *(entry["accuracy"] for entry in found["sweep"])):  # fmt: skip
        assert f"{100 * accuracy:.1f} %" in texts
    assert "2/255" in texts and "8/255" in texts
    assert f"{found['attacks']['pgd']['gradient_evaluations']:,}" in texts


def test_it_needs_no_network_and_no_other_file(page, evaluated) -> None:
    parsed, text = page
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", text)
    pictures = [attrs["src"] for tag, attrs in parsed.found if tag == "img"]
    files = [source for source in pictures if source.startswith("data:image/png")]
    assert len(files) == len(list((evaluated / "figures").glob("*.png"))) > 0
    kinds = ("data:image/png;base64,iVBOR", "data:image/svg+xml;base64,PD94bWw")
    assert all(source.startswith(kinds) for source in pictures)
    ids = {attrs["id"] for _, attrs in parsed.found if "id" in attrs}
    links = [attrs["href"] for tag, attrs in parsed.found if tag == "a"]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)


def test_names_cannot_leave_their_place(page) -> None:
    assert not any(tag == "b" and "robust" in str(attrs) for tag, attrs in page[0].found)
    assert "robust <b>" not in page[1] and "robust &lt;b&gt;&amp;" in page[1]


def test_every_picture_has_words_and_every_table_heads(page) -> None:
    for tag, attrs in page[0].found:
        assert tag != "img" or attrs["alt"]
        assert tag != "th" or attrs["scope"] == "col"
        # What scrolls can be reached by keyboard.
        assert attrs.get("class") != "scroll" or attrs["tabindex"] == "0"


def test_two_runs_stand_side_by_side(evaluated, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(evaluated, other)
    found = json.loads((other / "evaluation.json").read_text())
    found |= {"flags": [{"name": "zero_gradients", "meaning": "gradients are masked"}],
              "unreliable": True}  # fmt: skip
    (other / "evaluation.json").write_text(json.dumps(found))
    output = tmp_path / "both.html"
    assert report.main([str(evaluated), str(other), "--output", str(output)]) == 0
    parsed = Page(output.read_text())
    texts = " ".join(" ".join(parsed.texts).split())
    assert "Side by side" in texts and "Unreliable, zero gradients: gradients are masked" in texts
    assert "other (unreliable)" in texts
    charts = [attrs for tag, attrs in parsed.found if tag == "img"]
    assert sum("radius" in str(attrs["alt"]) for attrs in charts) == 1


def test_the_leaderboard_entry_is_of_the_same_figures(evaluated) -> None:
    entry, run = json.loads((evaluated / "leaderboard.json").read_text()), read_run(evaluated)
    assert entry == leaderboard_entry(run)
    assert entry["reported"] == f"{100 * run.evaluation['robust_accuracy']:.2f}"
    assert entry["eps"] == "2/255" and entry["norm"] == "Linf" and "autoattack_acc" not in entry


def test_the_model_card_holds_the_figures_of_the_page(evaluated) -> None:
    run = read_run(evaluated)
    assert (evaluated / "model_card.md").read_text() == model_card(run)
    pgd, low = run.evaluation["attacks"]["pgd"], run.evaluation["robust_accuracy_interval"][0]
    card = model_card(run)
    assert f"| pgd | 2/255 | {pgd['accuracy']:.3f} |" in card and f"is {low:.3f} to" in card
    assert "3 classes: 0, 1, 2." in card
    # Nothing is made up of a model whose training is not known.
    assert "its training is unknown" in card and "## Training" not in card


def test_the_model_card_of_a_run_tells_its_training(evaluated) -> None:
    history = [{"seconds": 60.0}, {"seconds": 30.0}]
    run = dataclasses.replace(
        read_run(evaluated), config=to_dict(RunConfig()), history=history,
        environment={"commit": "abc", "packages": {"tensorflow": "2.21.0", "scipy": "1"}},
    )  # fmt: skip
    run.evaluation["flags"] = [{"name": "zero_gradients", "meaning": "gradients are masked"}]
    card = model_card(run)
    assert "trained with `nsl` on `digits`; its settings name linf perturbations of" in card
    assert "| time | 2 epochs in 1 min 30 s |" in card and "| commit | abc |" in card
    assert "| tensorflow | 2.21.0 |" in card and "scipy" not in card
    assert "**Unreliable**: zero_gradients: gradients are masked" in card


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{tmp}"], "expected evaluation.json"),
        (["{run}", "{run}"], "named twice"),
        (["{run}", "--output", "{tmp}"], "expected a file"),
    ],
)
def test_wrong_use_is_one_sentence(args, message, evaluated, tmp_path, capsys) -> None:
    filled = [arg.format(tmp=tmp_path, run=evaluated) for arg in args]
    assert report.main(filled) == 2
    assert message in capsys.readouterr().err


def test_damaged_results_are_told(evaluated, tmp_path, capsys) -> None:
    shutil.copytree(evaluated, tmp_path / "cut")
    (tmp_path / "cut" / "evaluation.json").write_text('{"model": ')
    assert report.main([str(tmp_path / "cut")]) == 1
    assert "cannot be read" in capsys.readouterr().err
