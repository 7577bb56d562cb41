"""`tfrobust VERB`: finds verbs, imports little, and says what was meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tfrobust.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("tensorflow", "tf_keras", "keras", "matplotlib")


def test_every_verb_has_a_file_and_a_module():
    files = {path.stem for path in (ROOT / "tfrobust" / "cli").glob("*.py")}
    assert set(VERBS) <= files
    modules = {path.stem for path in (ROOT / "pipelines").glob("*.py")} - {"__init__"}
    assert modules == set(VERBS)


def test_help_imports_nothing_heavy():
    words = [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)]
    code = (
        f"import sys; from tfrobust.cli.main import main\nfor words in {words}:\n"
        "    try: code = main(words)\n    except SystemExit as stop: code = stop.code\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    if words == ['--help'] and 'numpy' in sys.modules: heavy.append('numpy')\n"
        "    print(*words, code, heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines() == [f"{' '.join(one)} 0 []" for one in words]
    assert all(verb in done.stdout for verb in VERBS)


def test_python_m_tfrobust_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tfrobust", "trian"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "Did you mean 'train'" in done.stderr and not done.stdout


def test_without_a_verb_the_verbs_are_listed(capsys):
    assert main([]) == 0
    assert "verbs:" in capsys.readouterr().out


def test_a_verb_works_and_fails_as_its_module_does(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "expected evaluation.json" in capsys.readouterr().err
    counts = ["--counts", ",".join(["2"] * 10)]
    assert main(["imbalance", *counts, "--output", str(tmp_path / "a.pt")]) == 0
    assert "20" in capsys.readouterr().out and (tmp_path / "a.pt").is_file()
