"""Model files from strangers: read before Keras does, and refused where they carry code."""

from __future__ import annotations

import builtins
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError

# Where the classes and functions of an honest model come from.
TRUSTED = ("keras", "tf_keras", "tfrobust.backbones", "builtins")


def refuse_code(path: Path) -> None:
    """Refuses a Keras model file that would run code of its own when it is opened.

    A Lambda layer is stored as byte code, which Keras runs from an .h5 file without
    asking, and a .keras file may name any importable function.

    Args:
      path: a .keras or .h5 file.

    Raises:
      TFRobustError: it has a Lambda layer, or names code outside of Keras and tfrobust.
    """
    for entry in _entries(_configuration(path)):
        name, module = str(entry.get("class_name")), entry.get("module")
        foreign = module is not None and not _is_trusted(str(module), str(entry.get("config")))
        if name in ("Lambda", "__lambda__") or foreign:
            what = f"{module}.{name}" if foreign else "a Lambda layer"
            raise TFRobustError(
                f"Model {path} carries code of its own ({what}), which opening it would run: "
                "expected Keras's own layers; if you trust it, open it yourself and go through "
                "Python: tfrobust.evaluate(model, ...)."
            )


def _is_trusted(module: str, function: str) -> bool:
    # Keras writes its own functions as built-in ones, such as 'relu'; Python's are others.
    if module == "builtins" and hasattr(builtins, function):
        return False
    return any(f"{module}.".startswith(f"{known}.") for known in TRUSTED)


def keras_version(path: Path) -> str:
    """The version that a model file says wrote it; '' where it says nothing."""
    try:
        if zipfile.is_zipfile(path):
            return str(json.loads(_member(path, "metadata.json"))["keras_version"])
        return str(_attribute(path, "keras_version"))
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return ""


def _configuration(path: Path) -> Any:
    """The architecture as parsed JSON; None where there is none to read, and so none to run."""
    try:
        if zipfile.is_zipfile(path):
            return json.loads(_member(path, "config.json"))
        return json.loads(_attribute(path, "model_config"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _attribute(path: Path, name: str) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        value = file.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def _entries(node: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a tree of dicts and lists."""
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield item
            todo += item.values()
        elif isinstance(item, list):
            todo += item
