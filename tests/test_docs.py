"""The pages: no link leads nowhere, and the README's snippet runs as it is written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "saved_models/README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            path = (page.parent / target.split("#")[0]).resolve()
            assert path.exists(), f"{page.name}: {target}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def snippets(page: str) -> list[str]:
    """The Python on a page; so many epochs as a reader has would take minutes, the words stay."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    return [source.replace("epochs=30", "epochs=1") for source in found]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What a snippet may take for given, in a folder of its own."""
    import keras
    import matplotlib

    import tfrobust as tr
    from tfrobust.runtime import tf

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    keras.utils.set_random_seed(0)
    digits = tr.load("digits").test
    x = tf.image.resize(digits.pixels(slice(0, 40)), [8, 8]).numpy()
    y = digits.labels[:40]
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(), keras.layers.Dense(10),
    ])  # fmt: skip
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    return {"tr": tr, "model": model, "x": x, "y": y, "names": list("0123456789"),
            "test_ds": data, "train_ds": data, "val_ds": data}  # fmt: skip


# What is not run here, by its first line, and why.
NOT_RUN = {
    "from tfrobust import jobs": "trains a whole network: tests/jobs calls the same functions",
    "import tensorflow as tf": "of a reader's run: tests/test_export_images.py serves one so",
    "import keras": "of a reader's run: tests/test_export.py loads one so",
}


def run_snippets(page: str, given: dict) -> None:
    """In their order; one that begins with the name of a file is that file."""
    for source in snippets(page):
        first = source.splitlines()[0]
        if first in NOT_RUN:
            continue
        if named := re.fullmatch(r"# (\w+)\.py", first):
            Path(f"{named[1]}.py").write_text(source, encoding="utf-8")
            source = f"from {named[1]} import *"
        exec(compile(source, page, "exec"), given)


def test_what_is_not_run_is_there():
    pages = [str(page.relative_to(ROOT)) for page in PAGES]
    firsts = {source.splitlines()[0] for page in pages for source in snippets(page)}
    assert set(NOT_RUN) <= firsts


def test_every_page_with_python_is_tested():
    pages = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {page for page in pages if snippets(page)} == {
        "README.md", "docs/catalogue.md", "docs/plugins.md", "docs/python.md", "docs/training.md",
        "saved_models/README.md",
    }  # fmt: skip


def test_python_s_page_begins_as_the_readme_does():
    # The same code, with other remarks; what it does is tested once, below.
    own, other = (
        ast.dump(ast.parse(snippets(page)[0])) for page in ("README.md", "docs/python.md")
    )
    assert own == other
    assert {source.splitlines()[0] for source in snippets("docs/python.md")[1:]} <= set(NOT_RUN)


def test_the_catalogue_s_snippet_runs(given, tmp_path):
    run_snippets("docs/catalogue.md", given)
    assert given["found"].distances.shape == (40,)
    assert {path.suffix for path in (tmp_path / "results").iterdir()} == {".json", ".csv", ".png"}


def test_training_s_snippet_runs(given, tmp_path):
    run_snippets("docs/training.md", given)
    assert (tmp_path / "runs/a/best.keras").is_file() and (tmp_path / "robust.keras").is_file()


def test_the_plug_in_of_its_page_keeps_the_contract(given):
    run_snippets("docs/plugins.md", given)
    given["test_theirs"]()


def test_the_readme_s_snippet_runs(given, tmp_path):
    import tfrobust as tr

    x, model = given["x"], given["model"]
    run_snippets("README.md", given)
    assert np.abs(given["x_adv"] - x).max() <= 8 / 255 + 1e-6
    assert given["maps"].shape == (40, 8, 8)
    assert (tmp_path / "runs/a/evaluation.json").is_file()
    again = tr.load_robust(tmp_path / "robust.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model(x), atol=1e-5)


def test_every_flag_has_a_line():
    from tfrobust.run import GUESSES

    files = (ROOT / "tfrobust/checks").glob("*.py")
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    flags = {*re.findall(r'\bflag\(\s*"(\w+)"', source), GUESSES}
    page = (ROOT / "docs/checks.md").read_text()
    assert len(flags) >= 15
    assert {flag for flag in flags if f"| `{flag}` |" not in page} == set()
