"""All that a killed `fit` goes on from, in one file that is replaced as a whole."""

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

# Of the file's layout; raised when an older one can no longer be read.
_VERSION = 1


class Resumable:
    """Weights, optimiser, random states and the state of our callbacks after an epoch.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside: list[Callback] = []

    def before_fit(self, model: Any, given: dict[str, Any]) -> None:
        """Restores what the file holds, and has `fit` begin with the epoch after it.

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
        told = self._restore(model)
        given["initial_epoch"] = told["epoch"]
        if told["over"]:
            given["epochs"] = told["epoch"]

    def save(self, model: Any, epoch: int, *, over: bool = False) -> None:
        """Writes where training stands.

        Args:
          model: the robust model.
          epoch: how many are done.
          over: whether a callback has ended training for good.

        Raises:
          TFRobustError: the file cannot be written; the one before is intact.
        """
        arrays = [_plain(value.numpy()) for value in _variables(model)]
        told: dict[str, Any] = {"version": _VERSION, "epoch": epoch, "over": over}
        told |= {"weights": len(arrays), "callbacks": []}
        for name, one in _named(self._beside):
            own = one.arrays()
            told["callbacks"].append({"name": name, "state": one.state(), "arrays": len(own)})
            arrays += own
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                named: dict[str, Any] = {f"a{i}": value for i, value in enumerate(arrays)}
                np.savez(file, told=np.array(json.dumps(told)), **named)
            partial.replace(self._path)
        except OSError as error:
            raise TFRobustError(
                f"{self._path} cannot be written: {error}; the one before is intact."
            ) from error

    @property
    def time_is_up(self) -> bool:
        """Whether a time budget beside it is used up: more time may be given later."""
        return any(isinstance(one, TimeBudget) and one.used_up for one in self._beside)

    def _restore(self, model: Any) -> dict[str, Any]:
        """Puts everything back and returns what the file tells."""
        told, arrays = self._read()
        variables = _variables(model)
        shapes = [value.shape for value in arrays[: told["weights"]]]
        if shapes != [tuple(variable.shape) for variable in variables]:
            raise TFRobustError(
                f"{self._path} belongs to another model or optimiser: expected the same as when "
                "it was written, or another folder."
            )
        for variable, value in zip(variables, arrays, strict=False):
            variable.assign(_typed(value, variable.dtype))
        place, ours = told["weights"], dict(_named(self._beside))
        for entry in told["callbacks"]:
            own = arrays[place : place + entry["arrays"]]
            place += entry["arrays"]
            if entry["name"] in ours:
                ours[entry["name"]].restore(entry["state"], own)
        return told

    def _read(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                told = json.loads(str(file["told"]))
                if told["version"] != _VERSION:
                    raise ValueError(f"expected version {_VERSION}, found {told['version']}")
                return told, [file[f"a{i}"] for i in range(len(file.files) - 1)]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TFRobustError(
                f"{self._path} cannot be resumed from ({error}): remove it to start over."
            ) from error


def _variables(model: Any) -> list[Any]:
    """All that a step changes, in an order that is the same in each process."""
    generators = [each.state for each in random_generators(model.base_model)]
    held = [*model.base_model.variables, *model.optimizer.variables]
    return [*map(raw, held), *generators, model.eps_share, model.reach]


def _named(callbacks: list[Callback]) -> Iterator[tuple[str, Callback]]:
    """Each with a name of its own: its class, and which of them it is."""
    seen: dict[str, int] = {}
    for one in callbacks:
        kind = type(one).__name__
        seen[kind] = seen.get(kind, 0) + 1
        yield f"{kind} {seen[kind]}", one


def _plain(value: np.ndarray) -> np.ndarray:
    """A type that NumPy's files know, of the same bits."""
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _typed(value: np.ndarray, dtype: Any) -> np.ndarray:
    wanted = tf.as_dtype(dtype).as_numpy_dtype
    return value if value.dtype == wanted else value.view(wanted)
