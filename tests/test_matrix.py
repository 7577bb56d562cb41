"""What `make test-matrix` runs: the tests it names exist, and each TensorFlow has its versions."""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MINORS = ("2.18", "2.19", "2.20")  # constraints.txt is for 2.21


def chosen() -> list[Path]:
    lines = (ROOT / "tests" / "matrix.txt").read_text().split()
    return [ROOT / line.split("::")[0] for line in lines]


def pins(file: Path) -> dict[str, str]:
    lines = (line.split(" ;")[0] for line in file.read_text().splitlines())
    found = dict(line.strip().split("==") for line in lines if "==" in line)
    return {name.replace("_", "-"): version for name, version in found.items()}


def test_the_chosen_tests_exist_and_enter_every_room():
    assert all(path.exists() for path in chosen())
    tested = ROOT / "tests"
    rooms = {"data", "models", "attacks", "training", "evaluation", "explain", "pipelines"}
    assert {path.relative_to(tested).parts[0] for path in chosen()} >= rooms


def test_the_files_that_begin_first_exist():
    longest = (ROOT / "tests" / "longest.txt").read_text().split()
    assert longest and all((ROOT / name).exists() for name in longest)


@pytest.mark.parametrize("minor", [*MINORS, "2.21"])
def test_what_belongs_to_tensorflow_is_of_its_minor_version(minor):
    own = ROOT / "constraints" / f"tf{minor}.txt"
    found = pins(own if minor in MINORS else ROOT / "constraints.txt")
    for name in ("tensorflow", "tf-keras", "tensorboard", "tensorflow-serving-api"):
        assert found[name].startswith(f"{minor}."), name


def test_every_tensorflow_of_the_range_is_in_the_matrix():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert "tensorflow>=2.18,<2.22" in config["options"]["install_requires"].split()
    assert {path.stem for path in (ROOT / "constraints").iterdir()} == {f"tf{m}" for m in MINORS}


def matrix(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".ci" / "matrix"], env={**os.environ, "MATRIX_DIR": str(folder), **settings},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_python_that_is_not_at_hand_is_skipped_and_told(tmp_path):
    done = matrix(tmp_path, MATRIX_ROWS="2.20:3.99 2.21:3.98")
    assert done.stdout.splitlines() == [
        "tf2.20-py3.99: skipped, python3.99 is not at hand",
        "tf2.21-py3.98: skipped, python3.98 is not at hand",
    ]
    assert done.returncode == 1, "nothing ran"


def test_an_unknown_choice_of_tests_is_wrong_use(tmp_path):
    done = matrix(tmp_path, MATRIX="some")
    assert done.returncode == 2 and "'some'" in done.stderr
