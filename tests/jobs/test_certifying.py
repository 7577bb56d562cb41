"""`jobs.certify` as a notebook calls it, and the verb."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfrobust import jobs
from tfrobust.cli.certify import main
from tfrobust.errors import UsageError


def test_certificates_lie_in_the_run_s_folder(run, capsys):
    lines = []
    subject = jobs.open_subject(run.path, {"evaluation": {"limit": 6}})
    found = jobs.certify(subject, 0.1, samples=200, selection=50, tell=lines.append)
    assert len(found.certificates.labels) == 6 and found.certificates.certified_accuracy(0.1) > 0.5
    folder = run.path / "certificates" / "sigma_0.1"
    assert sorted(file.name for file in folder.iterdir()) == sorted(f.name for f in found.files)
    values = json.loads((folder / "certificates.json").read_text())
    assert values["num_examples"] == 6 and values["sigma"] == 0.1
    assert any(str(found.certificates) in line for line in lines)
    assert capsys.readouterr().out == ""


def test_the_verb_finds_what_the_job_finds(run, capsys):
    words = [str(run.path), "--sigma", "0.1", "--samples", "200", "--selection", "50"]
    assert main([*words, "--limit", "6"]) == 0
    assert "certified accuracy" in capsys.readouterr().out
    rows = (run.path / "certificates/sigma_0.1/certificates.csv").read_text().splitlines()[1:]
    subject = jobs.open_subject(run.path, {"evaluation": {"limit": 6}})
    again = jobs.certify(subject, 0.1, samples=200, selection=50).certificates
    radii = [float(row.split(",")[3]) for row in rows]
    np.testing.assert_allclose(radii, again.radii, atol=1e-6)
    assert main([str(run.path), "--sigma", "0"]) == 2


def test_a_sigma_out_of_range_is_refused(run):
    with pytest.raises(UsageError):
        jobs.certify(run.path, -1.0)
