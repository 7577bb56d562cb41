"""Files are written as a whole or not at all, and come back as they were."""

from __future__ import annotations

import os

import pytest

from tfrobust.errors import TFRobustError
from tfrobust.io import csv_text, read_csv, read_json, write_bytes, write_json, write_text


def test_json_comes_back_and_a_list_of_numbers_is_one_line(tmp_path):
    values = {"curve": [0.1, 2, None], "nested": {"ä": [{"a": 1}, {}], "empty": []}}
    path = tmp_path / "new" / "values.json"
    write_json(path, values)
    assert read_json(path) == values
    assert '"curve": [0.1, 2, null],' in path.read_text()


def test_what_json_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "values.json", [float("nan")])
    assert not list(tmp_path.iterdir())


def test_a_table_comes_back(tmp_path):
    rows = [["a, b", 1, None], ['say "c"\n', 0.5, "ä"]]
    write_text(tmp_path / "table.csv", csv_text(["name", "number", "more"], rows))
    assert read_csv(tmp_path / "table.csv") == [
        {"name": "a, b", "number": "1", "more": ""},
        {"name": 'say "c"\n', "number": "0.5", "more": "ä"},
    ]


def test_a_write_that_fails_leaves_the_file_of_before(tmp_path, monkeypatch):
    path = tmp_path / "model.bin"
    write_bytes(path, b"before")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TFRobustError, match="No space left"):
        write_bytes(path, b"after")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
