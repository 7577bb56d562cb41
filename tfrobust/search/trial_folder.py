"""The run folder of a trial: its name, and what a new attempt resumes from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import RunFolder
from tfrobust.settings import save_yaml

#: The study's default name, which is left out of its trials' folder names.
USUAL_STUDY = "search"


def run_name(number: int, attrs: Mapping[str, Any]) -> str:
    """The name of a trial's run folder, from its number and its attributes.

    '0007', or 'NAME-0007' in a study with another name: every study counts from 0, and several
    may share the folder of a search.
    """
    name = f"{attrs.get('folder', number):04d}"
    return f"{quote(attrs['study'], safe='')}-{name}" if "study" in attrs else name


def name_attrs(study: str, first: Any) -> dict[str, Any]:
    """The attributes of a new trial that `run_name` uses.

    Args:
      study: the study's name.
      first: Optuna's record of the first attempt at the same trial, or None. Its folder is kept,
        even if it was named before studies had their own folders.
    """
    if first is None:
        return {} if study == USUAL_STUDY else {"study": study}
    known = {key: first.user_attrs[key] for key in ("study",) if key in first.user_attrs}
    return {"folder": first.user_attrs.get("folder", first.number), **known}


def prepare(run: RunFolder, config: RunConfig) -> None:
    """Creates a trial's folder, and empties one of another configuration.

    Trials are counted from 0 again if the database was deleted: the checkpoints in the folder may
    belong to another configuration, whose weights must not be resumed.

    Raises:
      TFRobustError: the folder cannot be emptied or written.
    """
    known = _is_of(run, config)
    if run.path.exists() and not known:
        _empty(run)
    run.create()
    if not known:
        save_yaml(config, run.config)


def _is_of(run: RunFolder, config: RunConfig) -> bool:
    try:
        return run.read_config() == config
    except UsageError:
        # There is none, or a kill has truncated it.
        return False


def _empty(run: RunFolder) -> None:
    try:
        shutil.rmtree(run.path)
    except OSError as error:
        raise TFRobustError(
            f"Run folder {run.path} has other settings and cannot be emptied: {error}."
        ) from error
    print(f"{run.path} had different settings: emptied, and the trial starts over.", flush=True)


def clear(run: RunFolder) -> None:
    """Deletes what only a resumed training needs; the kept model stays."""
    run.state.unlink(missing_ok=True)
    for checkpoint in run.checkpoints.glob("epoch-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
