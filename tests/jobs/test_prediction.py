"""`jobs.predict` as a notebook calls it."""

from __future__ import annotations

import pytest
from PIL import Image

from tfrobust import jobs
from tfrobust.errors import TFRobustError, UsageError


def test_images_and_folders_are_predicted(run, tmp_path, capsys):
    x, y = jobs.load_splits(run.read_config().data, 42).test.images[:4], [0, 1, 2, 3]
    for k, pixels in enumerate(x):
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    found = jobs.predict(run.path, sorted(tmp_path.glob("*.png")), top=2)
    assert len(found.predictions) == 4 and found.skipped == ()
    labels = jobs.load_splits(run.read_config().data, 42).test.labels[:4]
    assert [one.classes[0] for one in found.predictions] == labels.tolist()
    assert all(one.probabilities[0] >= one.probabilities[1] for one in found.predictions)
    assert len(found.as_csv().splitlines()) == len(y) + 1
    assert found.as_text().splitlines()[0].split() == ["file", "top", "1", "top", "2"]
    assert capsys.readouterr().out == ""


def test_broken_images_are_left_out_or_refused(run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"broken")
    Image.new("RGB", (8, 8), (200, 60, 60)).save(tmp_path / "red.png")
    files = [tmp_path / "broken.png", tmp_path / "red.png"]
    with pytest.raises(TFRobustError):
        jobs.predict(run.path, files)
    found = jobs.predict(run.path, files, skip_broken=True)
    assert found.predictions[0].classes[0] == 0 and len(found.skipped) == 1
    for top, names in ((0, files), (1, [tmp_path / "none.png"])):
        with pytest.raises(UsageError):
            jobs.predict(run.path, names, top=top)
