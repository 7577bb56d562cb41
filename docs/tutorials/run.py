"""Runs the tutorials and stores their output in them: `make tutorials`.

`python docs/tutorials/run.py NAME ...` runs only some.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent


def run(path: Path) -> None:
    """Runs a notebook in a temporary folder and writes it back, without its warnings."""
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            book, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}},
            record_timing=False,
        ).execute()  # fmt: skip
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        for output in cell.outputs:
            # TensorFlow logs to stderr; anything else there is for the person who runs this.
            if output.get("name") == "stderr":
                print(output.text, file=sys.stderr, end="")
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    nbformat.write(book, path)


def main(names: list[str]) -> None:
    """Runs the notebooks with these names; all of them without names."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    paths = [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        begin = time.monotonic()
        run(path)
        print(f"{path.stem}: {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
