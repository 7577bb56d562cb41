"""Where the trials are kept: SQLite beside them, or any database that Optuna knows."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from tfrobust.errors import TFRobustError, UsageError

# Seconds between two signs of life of a trial in a database that machines share, and
# without one after which it counts as killed.
_BEAT, _GRACE = 30, 120
# Seconds that a process waits for another's writes to SQLite.
_PATIENCE = 120


def default_url(folder: Path) -> str:
    """The SQLite file in the folder of a search."""
    return f"sqlite:///{folder / 'search.db'}"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time plan the trials of a folder.

    The lock ends with the process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_study(url: str, name: str, objectives: int, spec: dict[str, Any]) -> optuna.Study:
    """The study of that name: a new one, or the one to go on with.

    Args:
      url: SQLAlchemy's address of the database.
      name: of the study.
      objectives: 1, or 2 for a Pareto front; all are maximised.
      spec: what is searched, as plain values: kept with a new study, compared with an
        old one.

    Raises:
      UsageError: the address is wrong, or the study has searched something else.
      TFRobustError: the database cannot be reached or its driver is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=name, storage=_open(url), load_if_exists=True,
        directions=["maximize"] * objectives,
    )  # fmt: skip
    text = json.dumps(spec, sort_keys=True)
    known = study.user_attrs.get("spec")
    if known is None:
        study.set_user_attr("spec", text)
    elif known != text:
        raise UsageError(
            f"The study {name!r} in {shown(url)} has searched with other settings "
            f"({_difference(json.loads(known), spec)}): repeat them to resume it, or choose "
            "another --output or --study."
        )
    return study


def _open(url: str) -> optuna.storages.RDBStorage:
    import sqlalchemy.exc

    local = url.startswith("sqlite")
    options: dict[str, Any] = (
        {"engine_kwargs": {"connect_args": {"timeout": _PATIENCE}}}
        if local
        else {"heartbeat_interval": _BEAT, "grace_period": _GRACE}
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.RDBStorage(url, **options)
        if local:
            _lock_before_reading(storage.engine)
        return storage
    except sqlalchemy.exc.ArgumentError as error:
        raise UsageError(
            f"--storage: expected an address such as sqlite:///search.db or "
            f"postgresql://user:password@host/database, found {url!r}."
        ) from error
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise TFRobustError(
            f"Storage {shown(url)}: the Python driver of this database is not installed: "
            "pip install psycopg2-binary for PostgreSQL, pymysql for MySQL (mysql+pymysql://...)."
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise TFRobustError(f"Storage {shown(url)} cannot be opened: {reason}.") from error


def _lock_before_reading(engine: Any) -> None:
    """Has each transaction of SQLite begin with its lock.

    By itself it takes the lock when it first writes: two processes could both read that a
    trial is waiting, and both take it.
    """
    import sqlalchemy.event

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sqlalchemy.event.listen(engine, "begin", begin)


def shown(url: str) -> str:
    """The address without its password."""
    import sqlalchemy.exc

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def _difference(known: dict[str, Any], spec: dict[str, Any]) -> str:
    """The settings that differ, the first three of them."""
    first, second = _flat(known), _flat(spec)
    names = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
    told = [f"{k}: {first.get(k)!r} there, {second.get(k)!r} here" for k in names[:3]]
    return "; ".join(told) + ("; ..." if len(names) > 3 else "")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def fail_stale(study: optuna.Study) -> None:
    """Marks as failed the trials whose process is gone.

    A process of this machine is looked up; one of another machine is gone when its trial
    has given no sign of life for two minutes, which needs a database other than SQLite.
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
    """What tells this process from every other one."""
    return {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_gone(who: dict[str, Any] | None) -> bool:
    """Whether a process of this machine has ended; False for those of other machines."""
    if who is None or who["host"] != _host():
        return False
    return _started(who["pid"]) != who["started"] if who["started"] else not _runs(who["pid"])


def _host() -> str:
    # Containers may share a host name; their process numbers are their own.
    place = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(place) if place.is_symlink() else ''}"


def _started(pid: int) -> str:
    """When a process started, as the kernel counts; '' where it is gone or not told."""
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
        # It is another user's.
        return True
    return True
