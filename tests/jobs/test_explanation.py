"""`jobs.explain` as a notebook calls it."""

from __future__ import annotations

import pytest

from tfrobust import jobs
from tfrobust.errors import UsageError
from tfrobust.figures import figure
from tfrobust.jobs import explanation


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(explanation, "ROWS", 1)
    monkeypatch.setattr(figure.encoded, "__defaults__", (20,))


@pytest.mark.slow
def test_figures_come_back_and_what_methods_are_worth(run, quick, capsys):
    lines = []
    found = jobs.explain(
        run.path, methods="saliency", per_group=1, class_images=0, measure=4, tell=lines.append
    )
    assert found.run == run and all(path.is_file() for path in found.figures)
    names = [path.stem for path in found.figures]
    assert names[0] == "saliency" and {"overlay", "maps", "faithfulness"} <= set(names)
    assert sum(line.startswith("Figure: ") for line in lines) == len(names)
    (rows,) = found.measured.values()
    assert rows[0].method == "saliency"
    assert (run.path / "explanations.csv").is_file() and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "wrong",
    [{"per_group": 0}, {"measure": -1}, {"methods": "magic"}, {"classes": "none such"},
     {"layers": "none_such"}, {"target_layer": "none_such"}],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_is_drawn(run, wrong):
    with pytest.raises(UsageError):
        jobs.explain(run.path, **wrong)
    assert not list(run.figures.iterdir())
