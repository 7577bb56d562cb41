"""The resumable state of an evaluation: every attack's outcome so far, in one file."""

from __future__ import annotations

import dataclasses
import io
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.attacks.results import Outcome
from tfrobust.io import write_bytes

_ARRAYS = ("predictions", "confidences", "correct", "in_top5", "active_rows")
# Of the file; one of another format is of another key, and is not resumed.
_FORMAT = 2


@dataclass
class Task:
    """The state of one attack at one radius.

    Attributes:
      outcome: per example, the worst case so far.
      active_rows: int [M], the images that the current restart attacks; None before it starts.
      restart: completed restarts.
      position: how many of `active_rows` this restart has attacked.
      forward: forward passes so far, over examples.
      backward: input gradients so far, over examples.
      seconds: so far.
    """

    outcome: Outcome
    active_rows: np.ndarray | None = None
    restart: int = 0
    position: int = 0
    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


class Checkpoint:
    """The tasks of one evaluation, saved to a file where a path is given.

    Guarantee: an evaluation that is killed and resumed ends with the result of an
    uninterrupted one, because a task is saved between batches only, and the random draws of
    each batch depend only on the seed, the restart and the batch.

    Args:
      path: the file, or None to save nothing.
      key: identifies model, data and settings, which must be the same to resume.
      resume: continue from the file; a file with another key is ignored.
      every: seconds between two saves.
    """

    def __init__(
        self,
        path: Path | None = None,
        key: str = "",
        *,
        resume: bool = False,
        every: float = 20.0,
    ) -> None:
        self.path, self._key, self._every = path, f"{_FORMAT} {key}", every
        self._tasks: dict[str, Task] = {}
        self._saved = time.monotonic()
        self.resumed = bool(resume and path and path.is_file() and self._read(path))

    def task(self, name: str, base: Outcome) -> Task:
        """The task of that name, resumed, or new and starting from `base`."""
        if name not in self._tasks:
            copies = (np.copy(getattr(base, item.name)) for item in dataclasses.fields(base))
            self._tasks[name] = Task(Outcome(*copies))
        return self._tasks[name]

    def note(self) -> None:
        """Saves if the last save was long enough ago; to be called between batches."""
        if self.path and time.monotonic() - self._saved >= self._every:
            self.save()

    def save(self) -> None:
        """Writes the file atomically.

        Raises:
          TFRobustError: the disk is full; the previous file is intact.
        """
        if self.path is None:
            return
        arrays: dict[str, Any] = {"key": np.array(self._key)}
        for name, task in self._tasks.items():
            values = {**vars(task.outcome), "active_rows": task.active_rows}
            numbers = {k: v for k, v in vars(task).items() if isinstance(v, (int, float))}
            arrays[f"{name}/numbers"] = np.array(json.dumps(numbers))
            for key in _ARRAYS:
                if values[key] is not None:
                    arrays[f"{name}/{key}"] = values[key]
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_bytes(self.path, content.getvalue())
        self._saved = time.monotonic()

    def close(self) -> None:
        """Removes the file: the evaluation is complete, and nothing is written any more."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.path = None

    def _read(self, path: Path) -> bool:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                stored = {name: content[name] for name in content.files}
            if str(stored.pop("key")) != self._key:
                return False
            names = [name.rpartition("/")[0] for name in stored if name.endswith("/numbers")]
            self._tasks = {name: _task(name, stored) for name in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Files are replaced as a whole, so it is no file of ours: start over.
            return False
        return True


def _task(name: str, stored: dict[str, np.ndarray]) -> Task:
    arrays = [stored.get(f"{name}/{key}") for key in _ARRAYS]
    numbers = json.loads(str(stored[f"{name}/numbers"]))
    return Task(Outcome(*arrays[:4]), arrays[4], **numbers)  # type: ignore[arg-type]
