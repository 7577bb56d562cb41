"""`jobs.export` as a notebook calls it."""

from __future__ import annotations

import json

import pytest

from tfrobust import jobs
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import GUESSES


@pytest.mark.slow
def test_a_model_is_exported_and_a_further_format_compared(run):
    found = jobs.export(run.path, version=3, formats=("tflite",), images=4)
    assert found.saved_model == run.path / "3" and (run.path / "model.tflite").is_file()
    (one,) = found.compared
    assert one.name == "tflite"
    data = {"data": {"dataset": "digits"}}
    with pytest.raises(UsageError):
        jobs.open_subject(found.saved_model, data, output=run.path)


def test_a_model_that_guesses_is_not_exported(run):
    flags = [{"name": GUESSES, "meaning": "no better than guessing"}]
    run.evaluation.write_text(json.dumps({"flags": flags}))
    with pytest.raises(TFRobustError):
        jobs.export(run.path)
    assert jobs.export(run.path, anyway=True).saved_model.is_dir()
    with pytest.raises(UsageError):
        jobs.export(run.path, formats=("pickle",), anyway=True)
