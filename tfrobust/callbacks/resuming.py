"""The complete training state of `fit`, in one file that is replaced atomically."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.callbacks.base import Callback
from tfrobust.callbacks.time_budget import TimeBudget
from tfrobust.errors import TFRobustError
from tfrobust.models.heads import raw
from tfrobust.runtime import random_generators, tf

# Of the file's layout; incremented when older files can no longer be read.
_VERSION = 1


class Resumable:
    """Weights, optimiser, random states and callback states after an epoch.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside: list[Callback] = []

    def before_fit(self, model: Any, given: dict[str, Any]) -> None:
        """Restores the file's state, and sets `fit` to start with the epoch after it.

        Args:
          model: the robust model, compiled.
          given: the arguments of `fit`.

        Raises:
          TFRobustError: the file cannot be read, or belongs to another model.
        """
        beside = given["callbacks"]
        beside = beside if isinstance(beside, (list, tuple)) else getattr(beside, "callbacks", [])
        self._beside = [one for one in beside if isinstance(one, Callback)]
        given.setdefault("initial_epoch", 0)
        if not self._path.is_file():
            return
        header = self._restore(model)
        given["initial_epoch"] = header["epoch"]
        if header["over"]:
            given["epochs"] = header["epoch"]

    def save(self, model: Any, epoch: int, *, over: bool = False) -> None:
        """Writes the training state.

        Args:
          model: the robust model.
          epoch: number of complete epochs.
          over: whether a callback has ended training for good.

        Raises:
          TFRobustError: the file cannot be written; the previous one is intact.
        """
        arrays = [_plain(value.numpy()) for value in _variables(model)]
        header: dict[str, Any] = {"version": _VERSION, "epoch": epoch, "over": over}
        header |= {"weights": len(arrays), "callbacks": []}
        for name, one in _named(self._beside):
            own = one.arrays()
            header["callbacks"].append({"name": name, "state": one.state(), "arrays": len(own)})
            arrays += own
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                named: dict[str, Any] = {f"a{i}": value for i, value in enumerate(arrays)}
                np.savez(file, told=np.array(json.dumps(header)), **named)
            partial.replace(self._path)
        except OSError as error:
            raise TFRobustError(
                f"{self._path} cannot be written: {error}; the previous one is intact."
            ) from error

    @property
    def time_is_up(self) -> bool:
        """Whether a time budget is used up: a resumed run may be given more time."""
        return any(isinstance(one, TimeBudget) and one.used_up for one in self._beside)

    def _restore(self, model: Any) -> dict[str, Any]:
        """Restores everything and returns the file's metadata."""
        header, arrays = self._read()
        variables = _variables(model)
        shapes = [value.shape for value in arrays[: header["weights"]]]
        if shapes != [tuple(variable.shape) for variable in variables]:
            raise TFRobustError(
                f"{self._path} belongs to another model or optimiser: expected the same as when "
                "it was written, or another folder."
            )
        for variable, value in zip(variables, arrays, strict=False):
            variable.assign(_typed(value, variable.dtype))
        place, ours = header["weights"], dict(_named(self._beside))
        for entry in header["callbacks"]:
            own = arrays[place : place + entry["arrays"]]
            place += entry["arrays"]
            if entry["name"] in ours:
                ours[entry["name"]].restore(entry["state"], own)
        return header

    def _read(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                header = json.loads(str(file["told"]))
                if header["version"] != _VERSION:
                    raise ValueError(f"expected version {_VERSION}, found {header['version']}")
                return header, [file[f"a{i}"] for i in range(len(file.files) - 1)]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TFRobustError(
                f"{self._path} cannot be resumed from ({error}): remove it to start over."
            ) from error


def _variables(model: Any) -> list[Any]:
    """All variables that a step changes, in an order that is the same in every process."""
    generators = [each.state for each in random_generators(model.base_model)]
    variables = [*model.base_model.variables, *model.optimizer.variables]
    return [*map(raw, variables), *generators, model.eps_share, model.reach]


def _named(callbacks: list[Callback]) -> Iterator[tuple[str, Callback]]:
    """Each callback with a unique name: its class and its index among that class."""
    seen: dict[str, int] = {}
    for one in callbacks:
        kind = type(one).__name__
        seen[kind] = seen.get(kind, 0) + 1
        yield f"{kind} {seen[kind]}", one


def _plain(value: np.ndarray) -> np.ndarray:
    """The same bits as a dtype that NumPy's files support."""
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _typed(value: np.ndarray, dtype: Any) -> np.ndarray:
    wanted = tf.as_dtype(dtype).as_numpy_dtype
    return value if value.dtype == wanted else value.view(wanted)
