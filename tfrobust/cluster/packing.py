"""Models and what belongs to them as bytes, for processes elsewhere."""

from __future__ import annotations

import importlib
import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError, first_line


def pack(value: Any) -> bytes:
    """`value` as bytes: functions by what they do, Keras models as the files that they save.

    Raises:
      TFRobustError: something in it stays in its process.
    """
    cloudpickle = importlib.import_module("ray.cloudpickle")

    class Packer(cloudpickle.CloudPickler):  # type: ignore[name-defined]
        def reducer_override(self, found: Any) -> Any:
            if library := _library_of(found):
                return _opened, (library, _saved(found, library))
            return super().reducer_override(found)

    file = io.BytesIO()
    try:
        Packer(file).dump(value)
    # What cannot be pickled raises whatever it likes.
    except Exception as error:
        first = first_line(error)
        raise TFRobustError(
            f"The model or attack cannot be sent to other processes ({first}): save the model as a "
            ".keras file or SavedModel and give its path, or leave --on away."
        ) from error
    return file.getvalue()


def unpack(content: bytes) -> Any:
    """What `pack` made bytes of."""
    return pickle.loads(content)


def _library_of(found: Any) -> str:
    """The Keras that a model is of; '' for what is none, without importing any for it."""
    roots = {cls.__module__.partition(".")[0] for cls in type(found).__mro__}
    if roots.isdisjoint(("keras", "tf_keras")) or not hasattr(found, "save"):
        return ""
    from tfrobust.models.heads import is_keras, library_of

    return str(library_of(found).__name__) if is_keras(found) else ""


def _saved(model: Any, library: str) -> bytes:
    """A Keras model as a .keras file."""
    # tf_keras may write HDF5 in a thread, unless it is told not to.
    how = {"save_format": "keras_v3"} if library == "tf_keras" else {}
    with tempfile.TemporaryDirectory(prefix="tfrobust-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path, **how)
        return path.read_bytes()


def _opened(library: str, content: bytes) -> Any:
    """The model in a .keras file that this project's own process has saved."""
    # It may name layers of ours, which are registered where they are defined.
    importlib.import_module("tfrobust.models.opening")
    load: Callable[..., Any] = importlib.import_module(library).models.load_model
    with tempfile.TemporaryDirectory(prefix="tfrobust-") as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        # The process that saved it has run this code: it is trusted as that one is.
        return load(path, compile=False, safe_mode=False)
