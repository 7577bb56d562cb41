"""`jobs.compare` and `jobs.imbalance` as a notebook calls them."""

from __future__ import annotations

import pytest

from tfrobust import jobs
from tfrobust.errors import UsageError


def test_models_are_compared_on_sets_and_by_their_evaluations(run, images, tmp_path, capsys):
    sets = {"own": "test", "all": str(images)}
    models = {"a": run.path, "b": str(run.best_model)}
    found = jobs.compare({"a": run.path}, tmp_path / "c", sets=sets, reported={"own": 0.5})
    assert found.comparison.columns == ("own", "all") and found.figure.is_file()
    assert found.comparison.rows["a"]["own"].accuracy == 1
    assert found.comparison.reported == {"own": 0.5}
    with pytest.raises(UsageError):
        jobs.compare(models, tmp_path / "c", sets=sets, reported={"other": 1})
    for on in (None, "ray"):
        with pytest.raises(UsageError):
            jobs.compare({"a": run.path}, tmp_path / "c", on=on)
    jobs.evaluate(run.path)
    found = jobs.compare({"a": run.path}, tmp_path / "c")
    assert "clean" in found.comparison.columns
    assert capsys.readouterr().out == ""


def test_an_imbalanced_set_has_the_counts(tmp_path):
    found = jobs.imbalance(tmp_path / "set.pt", counts=range(2, 12), grey=0)
    assert found.counts == tuple(range(2, 12)) and found.file.is_file()
    assert len(found.class_names) == 10
    with pytest.raises(UsageError):
        jobs.imbalance(tmp_path / "set.pt", grey=2)
