"""The pages: no link leads nowhere, and the README's snippet runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "saved_models/README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            path = (page.parent / target.split("#")[0]).resolve()
            assert path.exists(), f"{page.name}: {target}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_s_snippet_runs(tmp_path, monkeypatch):
    import keras
    import matplotlib

    import tfrobust as tr
    from tfrobust.runtime import tf

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    # So many epochs and images as a reader has would take minutes; the words stay.
    source = source.replace("epochs=30", "epochs=1")
    digits = tr.load("digits").test
    x = tf.image.resize(digits.pixels(slice(0, 40)), [8, 8]).numpy()
    y = digits.labels[:40]
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(), keras.layers.Dense(10),
    ])  # fmt: skip
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    given = {"model": model, "x": x, "y": y, "names": list("0123456789"),
             "test_ds": data, "train_ds": data, "val_ds": data}  # fmt: skip
    exec(compile(source, "README.md", "exec"), given)
    assert np.abs(given["x_adv"] - x).max() <= 8 / 255 + 1e-6
    assert given["maps"].shape == (40, 8, 8)
    assert (tmp_path / "runs/a/evaluation.json").is_file()
    again = tr.load_robust(tmp_path / "robust.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model(x), atol=1e-5)


def test_every_flag_has_a_line():
    import inspect

    from tfrobust.evaluation import checks

    source = inspect.getsource(checks)
    flags = {*re.findall(r'_flag\("(\w+)"', source), checks.GUESSES}
    page = (ROOT / "docs/checks.md").read_text()
    assert len(flags) >= 13
    assert {flag for flag in flags if f"| `{flag}` |" not in page} == set()
