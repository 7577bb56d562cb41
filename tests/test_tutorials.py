"""The tutorials: they run from top to bottom, find what they say, and use what is public alone."""

from __future__ import annotations

import ast
import base64
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

import tfrobust as tr
from tfrobust import callbacks, jobs, models

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tutorials"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# What a reader has beside Python itself once tfrobust is installed.
PACKAGES = {"keras", "matplotlib", "numpy", "PIL", "scipy", "tensorflow", "tfrobust"}
ROOMS = {"callbacks": callbacks, "jobs": jobs, "models": models}
MOST_BYTES = 60_000
ABSOLUTE = re.compile(r"(?<![\w.:/<])/(tmp|home|root|work|usr|opt|Users)/|\b[A-Z]:\\")


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(name: str) -> list[Any]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def test_there_are_six_and_each_is_on_the_index():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert len(NAMES) == 6
    assert {name for name in NAMES if f"({name}.ipynb)" not in index} == set()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_notebook_that_was_run_in_order(name):
    book = read(name)
    nbformat.validate(book)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [one for one in outputs if one.output_type == "error"]
    # Warnings are for whoever writes the notebook, not for its readers.
    assert not [one for one in outputs if one.get("name") == "stderr"]


@pytest.mark.parametrize("name", NAMES)
def test_its_pictures_are_small(name):
    outputs = [output for cell in code(name) for output in cell.outputs]
    pictures = [one.data["image/png"] for one in outputs if "image/png" in one.get("data", {})]
    assert pictures
    assert max(len(base64.b64decode(picture)) for picture in pictures) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_no_absolute_path(name):
    for cell in read(name).cells:
        told = [cell.source]
        for output in cell.get("outputs", []):
            told += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
        for text in told:
            assert not ABSOLUTE.search(text)


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name):
    words = [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(words)):
        assert target.startswith("https://") or (FOLDER / target.split("#")[0]).is_file(), target


@pytest.mark.parametrize("name", NAMES)
def test_it_uses_what_is_public_alone(name):
    trees = [ast.parse(cell.source) for cell in code(name)]
    imported, used = [], set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            imported.append(node.module)
        if isinstance(node, ast.Attribute):
            used.add(ast.unparse(node))
    assert "tfrobust" in imported
    assert not [module for module in imported if module.startswith("tfrobust.")]
    tops = {module.split(".")[0] for module in imported}
    assert tops - set(sys.stdlib_module_names) <= PACKAGES
    own = [path.split(".")[1:] for path in used if re.fullmatch(r"tr(\.\w+)+", path)]
    assert own and {path[0] for path in own} <= {*tr.__all__, "__version__"}
    for path in own:
        if path[0] in ROOMS and len(path) > 1:
            assert path[1] in ROOMS[path[0]].__all__


@pytest.mark.parametrize("name", NAMES)
def test_tensorflow_and_keras_come_first(name):
    lines = code(name)[0].source.splitlines()
    places = [lines.index(f"import {module}") for module in ("keras", "tensorflow as tf")]
    assert max(places) < lines.index("import tfrobust as tr")


# ---- what they find ----


def attacked(found: dict[str, Any]) -> None:
    clean, noise, fgsm, pgd = (found[key] for key in ("clean", "noise", "fgsm", "pgd"))
    assert clean > 0.93 and noise > clean - 0.05
    assert pgd <= fgsm < clean - 0.3
    assert found["moved"] <= 0.1 + 1e-6
    assert 0 < found["median"] < 0.1
    assert found["reached"] > 0.3 and found["square"] < clean - 0.1


def measured(found: dict[str, Any]) -> None:
    assert found["flags"]["plain"] == []
    assert {"no_iterative_attack", "vanishing_gradients"} <= set(found["flags"]["fgsm"])
    assert {"zero_gradients", "never_falls_to_zero"} <= set(found["flags"]["masked"])
    # The false scores are the high ones.
    assert found["fgsm"] > found["plain"] + 0.3
    assert abs(found["suite"] - found["plain"]) < 0.05
    assert found["masked"] > max(found["square"], found["bpda"]) + 0.1
    assert found["full"] <= found["quick"] <= found["full"] + 0.05


def trained(found: dict[str, Any]) -> None:
    assert found["after"] > found["before"] + 0.3
    assert found["clean"] > 0.9
    assert found["trades"] > found["before"] + 0.3
    assert found["kept"]


def explained(found: dict[str, Any]) -> None:
    areas, stable = found["areas"], found["stable"]
    for model in ("plain", "robust"):
        random = areas.pop(f"{model} random")
        assert {name for name in areas if name.startswith(model) and areas[name] > random} == set()
    assert min(stable.values()) > 0.5


def served(found: dict[str, Any]) -> None:
    assert found["first"] == found["expected"] and found["batch"] == [found["second"]] * 2
    assert found["refusal"] == 400 and found["code"] == 0
    assert found["robust"] < found["clean"]


def scaled(found: dict[str, Any]) -> None:
    assert found["held"] == "memmap"
    assert found["robust"] > 0.4 and found["flags"] == []
    assert found["codes"] == [0, 0] and found["epochs"] == [1, 2, 3, 4, 5, 6]
    assert found["shared"] > 0.2


# What is taken out of each at its end, and what has to hold of it.
FOUND: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "attack": (
        """accuracies | {"moved": float(np.abs(x_adv - x_test).max()), "median": nearest.median,
        "reached": reached, "square": accuracy(x_square)}""",
        attacked,
    ),
    "measure": (
        """{"plain": report.robust_accuracy, "fgsm": fgsm_only.robust_accuracy,
        "masked": masked.robust_accuracy, "square": by_square.robust_accuracy,
        "bpda": by_bpda.robust_accuracy, "suite": whole_suite.robust_accuracy,
        "quick": quick.robust_accuracy, "full": full.robust_accuracy,
        "flags": {name: [flag["name"] for flag in one.flags] for name, one in
                  {"plain": report, "fgsm": fgsm_only, "masked": masked}.items()}}""",
        measured,
    ),
    "train": (
        """{"before": before.robust_accuracy, "after": after.robust_accuracy,
        "clean": after.clean_accuracy, "trades": trades["robust_accuracy"],
        "kept": checkpoint.path.is_file()}""",
        trained,
    ),
    "explain": (
        """{"areas": {" ".join(key): value for key, value in areas.items()},
        "stable": {" ".join(key): value for key, value in stable.items()}}""",
        explained,
    ),
    "serve": (
        """{"first": first[0]["name"], "expected": names[y_test[0]],
        "batch": [one["label_name"] for one in batch["predictions"]], "second": names[y_test[1]],
        "refusal": refusal, "code": server.returncode, "clean": report.clean_accuracy,
        "robust": report.robust_accuracy}""",
        served,
    ),
    "scale": (
        """{"held": type(held).__name__, "robust": report.robust_accuracy,
        "flags": [flag["name"] for flag in report.flags],
        "codes": [process.returncode for process in running],
        "epochs": rows["epoch"].astype(int).tolist(), "shared": found["robust_accuracy"]}""",
        scaled,
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_finds_what_it_says(name, tmp_path):
    NotebookClient = pytest.importorskip("nbclient").NotebookClient

    expression, check = FOUND[name]
    book = read(name)
    book.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({expression}))"))
    client = NotebookClient(book, timeout=600, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path)}})  # fmt: skip
    # A cell that fails raises, with its traceback.
    client.execute()
    (told,) = [one.text for one in book.cells[-1].outputs if one.get("name") == "stdout"]
    check(json.loads(told))
