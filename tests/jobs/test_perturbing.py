"""`jobs.perturb` as a notebook calls it."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust import jobs
from tfrobust.errors import TFRobustError, UsageError

FEW = {"augmented_train": 0, "perturbed_train": 5, "perturbed_validation": 0, "hold_out": 3,
       "pixel": 0}  # fmt: skip


def test_sets_are_built_and_kept(run, tmp_path, capsys):
    def build(resume):
        lines = []
        found = jobs.perturb(
            run.path, tmp_path / "sets", {"threat": {"eps": 0.4}}, sizes=FEW, attack="fgsm",
            resume=resume, tell=lines.append,
        )  # fmt: skip
        return found, lines

    found, _ = build(resume=False)
    assert list(found.sets) == ["perturbed_train", "hold_out"] and found.manifest.is_file()
    for name, file in found.sets.items():
        assert len(np.load(file)["x"]) == found.entries[name]["images"]
    again, lines = build(resume=True)
    assert again.entries == found.entries and sum("(kept)" in line for line in lines) == 2
    assert capsys.readouterr().out == ""


def test_wrong_sizes_and_attacks_are_refused(run, tmp_path):
    for wrong in ({"sizes": {"nothing": 3}}, {"sizes": {"hold_out": -1}}, {"attack": "magic"},
                  {"sizes": dict.fromkeys(FEW, 0)}, {"batch_size": 0}):  # fmt: skip
        with pytest.raises(UsageError):
            jobs.perturb(run.path, tmp_path / "sets", **wrong)
    with pytest.raises(TFRobustError):
        jobs.perturb(run.path, tmp_path / "s", {"threat": {"eps": 0.0}}, sizes=FEW, attack="fgsm")
