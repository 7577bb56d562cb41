"""Storage of the trials: Optuna's journal beside them, or any database that it supports."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend

from tfrobust.errors import TFRobustError, UsageError

# Seconds between two heartbeats of a trial in a shared database, and without a heartbeat after
# which it counts as killed.
_BEAT, _GRACE = 30, 120
#: The default file of a search.
JOURNAL = "search.journal"


def storage_of(folder: Path, url: str | None) -> optuna.storages.BaseStorage:
    """The storage of a search's trials.

    Args:
      folder: of the search; its file is Optuna's journal `search.journal`, or the SQLite file
        `search.db` of a search that was started with one.
      url: SQLAlchemy URL of a shared database, instead of the file.

    Raises:
      UsageError: the URL is invalid.
      TFRobustError: the folder cannot be written, or the database cannot be reached or its
        driver is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal, before = folder / JOURNAL, folder / "search.db"
    if url:
        return _database(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if before.is_file() and not journal.is_file():
            return _database(f"sqlite:///{before}")
        return optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    except OSError as error:
        raise TFRobustError(f"Storage {journal} cannot be opened: {error.strerror}.") from error


def open_study(
    storage: optuna.storages.BaseStorage, place: str, name: str, objectives: int,
    spec: dict[str, Any],
) -> optuna.Study:  # fmt: skip
    """The study of that name: a new one, or the existing one to resume.

    Args:
      storage: from `storage_of`.
      place: the storage's name in messages.
      name: of the study.
      objectives: 1, or 2 for a Pareto front; all are maximised.
      spec: what is searched, as plain values: stored with a new study, compared with an existing
        one.

    Raises:
      UsageError: the study searches something else.
    """
    study = optuna.create_study(
        study_name=name, storage=storage, load_if_exists=True,
        directions=["maximize"] * objectives,
    )  # fmt: skip
    text = json.dumps(spec, sort_keys=True)
    known = study.user_attrs.get("spec")
    if known is None:
        study.set_user_attr("spec", text)
    elif known != text:
        raise UsageError(
            f"The study {name!r} in {place} has other settings "
            f"({_difference(json.loads(known), spec)}): repeat them to resume it, or choose "
            "another --output or --study."
        )
    return study


def _database(url: str) -> optuna.storages.RDBStorage:
    import sqlalchemy.exc

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(url, heartbeat_interval=_BEAT, grace_period=_GRACE)
    except sqlalchemy.exc.ArgumentError as error:
        raise UsageError(
            f"--storage: expected an address such as sqlite:///search.db or "
            f"postgresql://user:password@host/database, found {url!r}."
        ) from error
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise TFRobustError(
            f"Storage {address(url)}: the Python driver of this database is not installed: pip "
            f"install {_package(error)}."
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise TFRobustError(f"Storage {address(url)} cannot be opened: {reason}.") from error


def _package(error: BaseException | None) -> str:
    """The package that provides the missing module, which depends on SQLAlchemy's dialect."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    known = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary",
             "MySQLdb": "mysqlclient"}  # fmt: skip
    usual = "'psycopg[binary]' for PostgreSQL, pymysql for MySQL (mysql+pymysql://...)"
    return known.get(error.name or "", error.name or usual) if error is not None else usual


def address(url: str) -> str:
    """The URL without its password."""
    import sqlalchemy.exc

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def _difference(known: dict[str, Any], spec: dict[str, Any]) -> str:
    """The first three settings that differ."""
    first, second = _flat(known), _flat(spec)
    names = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
    texts = [f"{k}: {first.get(k)!r} there, {second.get(k)!r} here" for k in names[:3]]
    return "; ".join(texts) + ("; ..." if len(names) > 3 else "")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def fail_stale(study: optuna.Study) -> None:
    """Marks the trials whose process is gone as failed.

    In a database a trial sends heartbeats, and counts as gone two minutes after the last one.
    Optuna's journal has none: processes of this machine are looked up instead.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if is_gone(trial.user_attrs.get("owner")):
            # Another process may have marked it in the meantime.
            with contextlib.suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def owner() -> dict[str, Any]:
    """What identifies this process among all others."""
    return {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_gone(who: dict[str, Any] | None) -> bool:
    """Whether a process of this machine has ended; False for those of other machines."""
    if who is None or who["host"] != _host():
        return False
    return _started(who["pid"]) != who["started"] if who["started"] else not _runs(who["pid"])


def _host() -> str:
    # Containers may share a host name; each numbers its processes separately.
    place = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(place) if place.is_symlink() else ''}"


def _started(pid: int) -> str:
    """A process's start time in kernel ticks; '' if it is gone or unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It belongs to another user.
        return True
    return True
