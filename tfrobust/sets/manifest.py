"""A folder of perturbed sets: which are complete, and their manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.data.perturbed import SOURCES
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.io import read_json, write_json, write_text
from tfrobust.sets.perturbed import PerturbedSet, SetPlan

_CHUNK = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder in the order of their names."""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in (file for file in files if file.is_file()):
        with open(file, "rb") as content:
            while part := content.read(_CHUNK):
                digest.update(part)
    return digest.hexdigest()


class SetFolder:
    """The files of perturbed sets.

    For each set `NAME.npz` with `x` (float32 in [0, 1]), `y`, `classes` and
    `source_sha256`; for all of them `manifest.jsonl`, one line for each image, and
    `sets.json`, one entry for each set.

    Guarantee: a set is complete exactly when its entry is in `sets.json` with the digest of its
    file; that entry is written last, and every file atomically, so that a killed run leaves
    nothing that looks complete.

    Args:
      path: the folder; created if missing.
      keys: set -> digest of what it depends on.
      resume: continue in a folder that already holds sets.

    Raises:
      UsageError: it holds sets and `resume` is off, or they were made with other settings.
      TFRobustError: it cannot be created or read.
    """

    def __init__(self, path: Path, keys: Mapping[str, str], *, resume: bool = False) -> None:
        self.path, self._keys = path, keys
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TFRobustError(
                f"Folder {path} cannot be created ({error.strerror}): choose another --output."
            ) from error
        found = self._read()
        # Entries without a single image come from an attack that broke nothing.
        self.entries = found if any(entry["images"] for entry in found.values()) else {}
        if self.entries and not resume:
            raise UsageError(
                f"{path} already holds perturbed sets: add --resume to keep the complete ones, or "
                "choose another --output."
            )
        others = [name for name, entry in self.entries.items() if entry["key"] != keys.get(name)]
        if others:
            raise UsageError(
                f"--resume expects sets of the same model, data and settings, found others "
                f"in {path} ({', '.join(others)}): choose another --output."
            )

    @property
    def summary(self) -> Path:
        """One entry for each complete set."""
        return self.path / "sets.json"

    @property
    def manifest(self) -> Path:
        """One line for each image of the complete sets."""
        return self.path / "manifest.jsonl"

    def is_complete(self, name: str) -> bool:
        """Whether the set is there, complete, with the same settings."""
        entry = self.entries.get(name)
        if entry is None:
            return False
        file = self.path / f"{name}.npz"
        return not entry["images"] or (file.is_file() and file_digest(file) == entry["sha256"])

    def add(self, made: PerturbedSet, common: dict[str, Any], extra: dict[str, Any]) -> None:
        """Writes a set, then its lines of the manifest, then its entry.

        A set without images has only an entry.

        Args:
          made: the set.
          common: values for every line of the manifest: model, seed.
          extra: further values for the entry.

        Raises:
          TFRobustError: the disk is full or the folder cannot be written.
        """
        name = made.plan.name
        file = self.path / f"{name}.npz"
        self.entries.pop(name, None)
        if made.rows:
            _write_arrays(file, made)
        else:
            file.unlink(missing_ok=True)
        common = {**_how(made.plan), **common}
        rows = [json.dumps({**row, **common}, allow_nan=False) for row in made.rows]
        write_text(self.manifest, "".join(f"{line}\n" for line in [*self._lines(), *rows]))
        self.entries[name] = {
            "key": self._keys[name],
            "sha256": file_digest(file) if made.rows else None,
            "split": made.plan.split,
            "asked": made.plan.size,
            "images": len(made.rows),
            "attacked": made.tried,
            "fool_rate": round(made.fool_rate, 6),
            "misclassified": made.wrong,
            "end": made.end,
            **common,
            **extra,
        }
        write_json(self.summary, {"sets": self.entries})

    def _lines(self) -> list[str]:
        """The manifest's lines of the complete sets; those of a killed run are dropped."""
        if not self.manifest.is_file():
            return []
        lines = self.manifest.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if json.loads(line)["set"] in self.entries]

    def _read(self) -> dict[str, Any]:
        if not self.summary.is_file():
            return {}
        try:
            entries: dict[str, Any] = read_json(self.summary)["sets"]
            complete = all("key" in entry and "images" in entry for entry in entries.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            complete = False
        if complete:
            return entries
        raise TFRobustError(
            f"{self.summary} is not a summary of perturbed sets: choose another --output."
        )


def _how(plan: SetPlan) -> dict[str, Any]:
    return {
        "attack": plan.attack_name,
        "parameters": dataclasses.asdict(plan.attack),
        "norm": plan.threat_model.norm,
        "eps": plan.threat_model.eps,
    }


def _write_arrays(path: Path, made: PerturbedSet) -> None:
    # A fixed name, not a random one: a killed run's leftover is overwritten.
    partial = path.with_name(f".{path.name}.partial")
    arrays: dict[str, Any] = {
        "x": made.images.images,
        "y": made.images.labels,
        "classes": np.array(made.images.label_names, str),
        SOURCES: np.array(made.sources, str),
    }
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TFRobustError(f"{path} cannot be written: {error}.") from error
