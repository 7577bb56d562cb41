"""`jobs.evaluate` and `jobs.report` as a notebook calls them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfrobust import jobs
from tfrobust.cli.main import main
from tfrobust.errors import TFRobustError, UsageError


def test_the_report_comes_as_an_object_and_lies_in_the_folder(run, capsys):
    lines = []
    found = jobs.evaluate(run.path, tell=lines.append)
    assert found.run == run and found.report.clean_accuracy == 1
    assert 0 <= found.report.robust_accuracy <= 1 and found.figures == ()
    # As plain values it is what stands in the file: a page of it needs not read that.
    assert json.loads(run.evaluation.read_text()) == found.values
    for name in ("predictions.csv", "model_card.md", "leaderboard.json"):
        assert (run.path / name).is_file(), name
    assert capsys.readouterr().out == ""
    # What is told is the table.
    assert any(found.report.as_text() in line for line in lines)


def test_settings_are_laid_over_the_run_s(run):
    subject = jobs.open_subject(run.path, {"threat": {"eps": 0.3}, "evaluation": {"limit": 5}})
    assert subject.config.threat.eps == 0.3 and subject.trained.threat.eps == 0.02
    found = jobs.evaluate(subject)
    assert found.report.threat_model.eps == 0.3 and len(found.report.labels) == 5
    with pytest.raises(UsageError):
        jobs.open_subject(run.path, {"threat": {"epsilon": 0.3}})


def test_a_bare_model_has_a_folder_beside_it(run, images):
    with pytest.raises(UsageError):
        jobs.evaluate(run.best_model)
    settings = {"data": {"dataset": str(images)}, "evaluation": {"figures": False}}
    subject = jobs.open_subject(run.best_model, settings, output=images.parent / "out")
    assert subject.trained is None and subject.run.path == images.parent / "out"
    # The file lies in a run: what that has seen is left out here too.
    assert len(subject.test) < 60 and subject.notes
    assert jobs.evaluate(subject).run.evaluation.is_file()


def test_a_reference_of_other_classes_is_refused(run, linear_model, tmp_path):
    linear_model(np.zeros((192, 2)), np.zeros(2), side=8).save(tmp_path / "two.keras")
    with pytest.raises(UsageError):
        jobs.evaluate(run.path, reference=tmp_path / "two.keras")
    assert not run.evaluation.exists()


def test_a_page_of_the_report_is_the_page_of_the_folder(run, tmp_path):
    found = jobs.evaluate(run.path)
    of_object = jobs.report([found], tmp_path / "object.html")
    of_folder = jobs.report([run.path], tmp_path / "folder.html")
    assert of_object.page.read_text() == of_folder.page.read_text()
    # The report travels: a page of it needs no evaluation.json.
    run.evaluation.unlink()
    jobs.report([found], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == of_object.page.read_text()
    with pytest.raises(UsageError):
        jobs.report([run])
    with pytest.raises(UsageError):
        jobs.report([found, run])


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(UsageError):
        jobs.evaluate(tmp_path)
    with pytest.raises(TFRobustError):
        jobs.open_subject(tmp_path / "none.keras", {"data": {"dataset": "digits"}})


def test_a_published_set_of_corruptions_is_measured_beside(run, images, tmp_path, capsys):
    """Four severities of the run's own images, and one of black ones."""
    with np.load(images) as content:
        x, y = content["x"], content["y"]
    folder = tmp_path / "My-C"
    folder.mkdir()
    np.save(folder / "fog.npy", np.concatenate([x, x, x, x, 0 * x]))
    np.save(folder / "labels.npy", np.tile(y, 5))
    settings = {"evaluation": {"corruptions": True, "corruption_set": str(folder), "limit": 20}}
    found = jobs.evaluate(jobs.open_subject(run.path, settings), reference=run.path)
    told = found.values["corruptions"]
    assert told["set"] == "My-C" and told["by_corruption"]["fog"][:4] == [1] * 4
    assert told["by_corruption"]["fog"][4] < 1
    assert [one["value"] for one in told["mce"]] == [1] and "20 images" in told["note"]
    for wrong in (tmp_path / "none", tmp_path):
        assert main(["evaluate", str(run.path), "--corruptions", str(wrong)]) == 2
    assert "CIFAR-10-C" in capsys.readouterr().err
