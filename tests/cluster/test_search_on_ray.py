"""Searches on real Ray nodes, and in a real PostgreSQL: each trial counted once, none lost."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from tfrobust.cluster import Ray
from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.search.plan import Search
from tfrobust.search.results import rows_of
from tfrobust.search.space import parse_space
from tfrobust.search.storage import storage_of
from tfrobust.search.study import Searcher

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPACE = "batch_size=8,16,32,64,128,256;learning_rate=1e-4..1e-1:log:4"


def known(config, run, report):
    """Best at batch size 64; three epochs of a moment, of which a killed trial keeps its own."""
    import time

    (stage,) = config.training.stages
    with (run.path.parent / "calls.txt").open("a", encoding="utf-8") as file:
        file.write(f"{config.training.batch_size} {stage.learning_rate:.6g}\n")
    distance = abs(math.log2(config.training.batch_size / 64)) / 8
    for epoch in (1, 2, 3):
        report(epoch, {"select_clean": 1 - distance, "select_pgd": 0.5})
        time.sleep(0.2)
    if config.training.batch_size == 256:
        raise TFRobustError("The loss became nan.")
    return {"clean": 1 - distance, "robust": distance, "best_epoch": 1}


@pytest.fixture
def sent_by_value():
    """The nodes do not know this module by name."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def postgres():
    """The address of a real server, started for the test; as another user where we are root."""
    try:
        sqlalchemy.create_engine("postgresql://me@127.0.0.1/postgres")
    except ImportError as error:
        pytest.skip(f"no driver for PostgreSQL ({error})")
    found = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))]
    bins = [Path(path).resolve().parent for path in found if path]
    if not bins:
        pytest.skip("no PostgreSQL server on this machine (initdb not found)")
    # pytest's own folders are closed to other users.
    folder, user = Path(tempfile.mkdtemp(prefix="tfrobust-postgres-")), {}
    if os.geteuid() == 0:
        # It refuses to run as root.
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = {"user": owner.pw_uid, "group": owner.pw_gid}
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = {"check": True, "capture_output": True, "cwd": folder, **user}
    subprocess.run([bins[-1] / "initdb", "-D", folder / "data", "-U", "me", "-A", "trust"], **run)
    command = [bins[-1] / "postgres", "-D", folder / "data", "-p", str(port), "-k", str(folder),
               "-c", "listen_addresses=127.0.0.1"]  # fmt: skip
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, **user) as server:
        try:
            url = f"postgresql://me@127.0.0.1:{port}/postgres"
            _wait_for(port, server)
            yield url
        finally:
            # Fast: without waiting for connections to end.
            server.send_signal(signal.SIGINT)
            server.wait(30)
            shutil.rmtree(folder)


def _wait_for(port, server):
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None and time.monotonic() < deadline
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)


def search_with_kills(nodes, folder, url):
    """24 trials on two nodes, of which each is killed once and replaced."""
    import ray

    from tfrobust.search.on_ray import OnRay

    search = Search(parse_space(SPACE), RunConfig())
    objective = OnRay(known, ray, Ray())
    assert objective.at_once == 2

    calls = folder / "trials" / "calls.txt"
    # Ray adds nodes in the main thread alone.
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(Searcher(search, objective, folder, url=url).run)
        for begun in (4, 12):
            while not (calls.exists() and len(calls.read_text().splitlines()) >= begun):
                assert not running.done(), running.exception()
                time.sleep(0.05)
            nodes.kill()
            nodes.fill()
        return running.result()


def check(rows, study):
    ended = [row for row in rows if row.state in ("complete", "failed")]
    assert len(ended) == len({str(row.point) for row in ended}) == 24
    assert Counter(row.state for row in ended) == {"complete": 20, "failed": 4}
    assert {row.error for row in ended if row.error} == {"The loss became nan."}
    lost = [row for row in rows if row.state == "interrupted"]
    # Each has been begun again, in its own folder.
    assert {row.run for row in lost} <= {row.run for row in ended} and lost
    assert {row.state for row in rows} == {"complete", "failed", "interrupted"}
    assert study.best_params["batch_size"] == 64


def test_every_trial_of_a_search_counts_once_while_nodes_die(nodes, tmp_path, sent_by_value):
    rows = search_with_kills(nodes, tmp_path, None)
    check(rows, optuna.load_study(study_name="search", storage=storage_of(tmp_path, None)))


def test_the_same_in_a_postgresql_database(nodes, tmp_path, sent_by_value, postgres):
    rows = search_with_kills(nodes, tmp_path, postgres)
    check(rows, optuna.load_study(study_name="search", storage=postgres))


def test_two_searches_share_a_postgresql_database_and_a_killed_one_loses_nothing(
    tmp_path, postgres, monkeypatch
):
    """On one machine, without Ray: what two machines do."""
    from tfrobust.search import storage

    monkeypatch.setattr(storage, "_BEAT", 1)
    monkeypatch.setattr(storage, "_GRACE", 3)
    # As on another machine, whose processes cannot be looked up.
    monkeypatch.setattr(storage, "is_gone", lambda who: False)
    search = Search(parse_space("batch_size=16,64;learning_rate=1e-3..1e-1:log:3"), RunConfig())
    searcher = Searcher(search, known, tmp_path, url=postgres)
    searcher._plan()
    # A trial that never comes to its end.
    study = optuna.load_study(study_name="search", storage=storage_of(tmp_path, postgres))
    dead = study.ask()
    study._storage.record_heartbeat(dead._trial_id)
    time.sleep(4)
    found = []
    both = [
        threading.Thread(
            target=lambda: found.append(Searcher(search, known, tmp_path, url=postgres).run())
        )
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    assert len(found) == 2
    rows = rows_of(searcher.study)
    complete = [row for row in rows if row.state == "complete"]
    assert len(complete) == len({str(row.point) for row in complete}) == 6
    assert [row.trial for row in rows if row.state == "interrupted"] == [dead.number]


def test_a_trial_that_is_pruned_ends_on_its_node(nodes, tmp_path, sent_by_value):
    import ray

    from tfrobust.run import RunFolder
    from tfrobust.search.on_ray import OnRay
    from tfrobust.search.study import Pruned

    run = RunFolder(tmp_path / "trials" / "0000")
    run.create()
    with pytest.raises(Pruned):
        OnRay(known, ray, Ray())(RunConfig(), run, lambda epoch, row: epoch == 2)
    assert run.path.joinpath("log.txt").exists()
