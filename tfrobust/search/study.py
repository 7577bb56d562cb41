"""Runs the trials of a search: each trial runs exactly once, even if workers die."""

from __future__ import annotations

import functools
import json
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.progress import Progress, clock
from tfrobust.run import RunFolder
from tfrobust.search import plan
from tfrobust.search.plan import OBJECTIVES
from tfrobust.search.results import METRICS, Row, complete, format_value, ranked, rows_of
from tfrobust.search.space import Point, apply
from tfrobust.search.storage import address, fail_stale, open_study, owner, storage_of
from tfrobust.search.trial_folder import USUAL_STUDY, clear, name_attrs, prepare, run_name

#: (epoch from 1, row of the history) -> whether to stop the trial.
Report = Callable[[int, dict[str, Any]], bool]
#: Trains with a configuration into a run folder, reporting each epoch -> metrics in [0, 1].
Objective = Callable[[RunConfig, RunFolder, Report], dict[str, float]]
#: Trial key -> its attempts, by number.
Known = dict[str, list[optuna.trial.FrozenTrial]]

# Maximum restarts of a trial whose process died: the trial itself may be the cause.
_ATTEMPTS = 3
# Consecutive failures, without any success before, that end a search.
_HOPELESS = 3
_POLL_SECONDS = 2.0
# Trials that TPE draws at random before it is guided by results.
_BLIND = 5
_OPEN = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


class Pruned(Exception):
    """The report of an epoch returned stop: the trial is worse than the others at that epoch."""


class Lost(Exception):
    """The process of the trial is gone, through no known fault of the trial."""


class Searcher:
    """Runs the trials of a search that are not done yet.

    Guarantees: a trial counts once, even with several processes; one whose process is killed
    resumes after its last complete epoch, and never from the weights of another configuration; one
    that fails is marked as failed, and the search continues.

    Args:
      search: the search.
      objective: trains and measures one trial; one with an attribute `at_once` runs that many at
        the same time, in threads.
      folder: of the search; trials are run folders in `trials`.
      name: of the study in the database; folders of trials include it if it is not the default
        name.
      url: of the database; None is a file in the folder.
      retry_failed: repeat the trials that failed before.

    Raises:
      UsageError: the study searches something else, or the URL is invalid.
      TFRobustError: the database cannot be opened.
    """

    def __init__(
        self,
        search: plan.Search,
        objective: Objective,
        folder: Path,
        *,
        name: str = USUAL_STUDY,
        url: str | None = None,
        retry_failed: bool = False,
    ) -> None:
        self.search, self.folder, self._objective = search, folder, objective
        goals, place = len(OBJECTIVES[search.objective]), address(url) if url else str(folder)
        storage = storage_of(folder, url)
        self.study = open_study(storage, place, name, goals, search.spec())
        failed = [t.number for t in self._trials() if t.state == TrialState.FAIL]
        self._forgiven = set(failed) if retry_failed else set[int]()
        # The first epoch is too early for pruning.
        self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
        self._failures: list[str] = []
        self._telling = threading.Lock()
        self._progress: Progress | None = None

    def run(self) -> list[Row]:
        """Runs the remaining trials and returns the rows of all trials.

        Raises:
          TFRobustError: no trial was completed, or the first three all failed.
        """
        at_once = int(getattr(self._objective, "at_once", 1))
        states = self._one_by_one() if at_once == 1 else self._together(at_once)
        rows = rows_of(self.study)
        if not complete(rows) and "running" not in states:
            raise TFRobustError(f"No trial was completed; the last error: {_last_error(rows)}")
        return rows

    def _one_by_one(self) -> list[str]:
        """Runs the remaining trials, and returns the final states of all trials."""
        while True:
            states = self._planned()
            if "waiting" in states:
                self._next()
            elif "running" in states and self._rounds_left():
                time.sleep(_POLL_SECONDS)
            else:
                return states

    def _together(self, at_once: int) -> list[str]:
        """As `_one_by_one`, with this many at the same time."""
        pool, busy = ThreadPoolExecutor(at_once), set[Future[None]]()
        try:
            while True:
                states = self._planned()
                while "waiting" in states and len(busy) < at_once:
                    busy.add(self._start_one(pool))
                    states = [row.state for row in rows_of(self.study)]
                if not busy and not ("running" in states and self._rounds_left()):
                    return states
                done, busy = wait(busy, _POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                if not busy and not done:
                    time.sleep(_POLL_SECONDS)
        finally:
            # Running trials end with the cluster, not here.
            pool.shutdown(wait=False, cancel_futures=True)

    def _start_one(self, pool: ThreadPoolExecutor) -> Future[None]:
        """Starts one more trial in a thread; returns once it is running."""
        started = threading.Event()
        future = pool.submit(self._next, started)
        future.add_done_callback(lambda _: started.set())
        started.wait()
        return future

    def _planned(self) -> list[str]:
        fail_stale(self.study)
        self._plan()
        return [row.state for row in rows_of(self.study)]

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    # Planning: trials are added to the database in state WAITING.

    def _plan(self) -> None:
        known: Known = {}
        for trial in self._trials():
            if "key" in trial.user_attrs and "dropped" not in trial.user_attrs:
                known.setdefault(trial.user_attrs["key"], []).append(trial)
        if self.search.sampler == "tpe":
            for number in range(self.search.trials):
                self._enqueue(f"tpe {number}", None, 0, known)
            return
        for turn, points in enumerate(self._rounds()):
            for point in points:
                self._enqueue(plan.key_of(point), point, turn, known)

    def _rounds(self) -> list[list[Point]]:
        """The points of the first grid and of each finer one that is known by now."""
        space, rounds = self.search.space, [self.search.first_points()]
        for _ in range(self.search.refine):
            keys = {plan.key_of(point) for points in rounds for point in points}
            rows = [row for row in rows_of(self.study) if plan.key_of(row.point) in keys]
            busy = any(row.state in ("waiting", "running") for row in rows)
            if busy or not complete(rows):
                break
            space = plan.finer(space, ranked(rows, self.search.objective)[0].point)
            rounds.append(plan.grid(space))
        return rounds

    def _rounds_left(self) -> bool:
        return len(self._rounds()) < self.search.refine + 1

    def _enqueue(self, key: str, point: Point | None, turn: int, all_known: Known) -> None:
        """Plans a trial, unless it is open, done, or has failed by itself."""
        known = all_known.get(key, [])
        if any(t.state in _OPEN for t in known):
            return
        ended = [
            t for t in known if t.number not in self._forgiven and "stopped" not in t.user_attrs
        ]
        if len(ended) >= _ATTEMPTS or any("error" in t.user_attrs for t in ended):
            return
        attrs: dict[str, Any] = {"key": key, "round": turn}
        attrs |= name_attrs(self.study.study_name, known[0] if known else None)
        if known:
            # A point that the sampler drew for a killed trial is kept.
            point = next((t.user_attrs["point"] for t in known if "point" in t.user_attrs), point)
        attrs |= {"point": point} if point is not None else {}
        self.study.enqueue_trial(point or {}, user_attrs=attrs)

    # Execution: one trial at a time.

    def _next(self, started: threading.Event | None = None) -> None:
        done = [row for row in rows_of(self.study) if row.state in ("complete", "pruned", "failed")]
        rows = [row for row in rows_of(self.study) if row.state != "interrupted"]
        with self._telling:
            if self._progress is None:
                self._progress = Progress("search", len(rows), done=len(done))
            self._progress.total, self._progress.done = len(rows), len(done)
        study = self.study
        if started is not None:
            # A study runs one trial at a time; another object of the same name shares its trials.
            study = optuna.load_study(study_name=study.study_name, storage=study._storage,
                                      pruner=study.pruner)  # fmt: skip
        # Everything is recorded with the trial; `_after_trial` decides whether the search ends.
        study.optimize(functools.partial(self._trial, started), n_trials=1, catch=(Exception,),
                       callbacks=[self._after_trial])  # fmt: skip

    def _trial(self, started: threading.Event | None, trial: optuna.Trial) -> tuple[float, ...]:
        if started is not None:
            started.set()
        attrs = trial.user_attrs
        if "key" not in attrs or self._is_done_elsewhere(trial):
            trial.set_user_attr("dropped", True)
            raise Pruned
        trial.set_user_attr("owner", owner())
        point = self._point(trial)
        if "point" not in attrs:
            trial.set_user_attr("point", point)
        try:
            config = apply(self.search.config, self.search.space, point)
            run = RunFolder(self.folder / "trials" / run_name(trial.number, attrs))
            prepare(run, config)
            metrics = self._objective(config, run, self._report(trial))
            _check(metrics, self.search.objective)
        except Pruned as error:
            raise optuna.TrialPruned from error
        except KeyboardInterrupt:
            trial.set_user_attr("stopped", True)
            raise
        except Lost:
            # Without an error of its own it is planned again.
            raise
        except Exception as error:
            trial.set_user_attr("error", _sentence(error))
            raise
        trial.set_user_attr("metrics", metrics)
        return tuple(metrics[name] for name in OBJECTIVES[self.search.objective])

    def _is_done_elsewhere(self, trial: optuna.Trial) -> bool:
        """Whether machines planned the same trial at the same moment: only the first counts."""
        return any(
            other.number < trial.number
            and other.user_attrs.get("key") == trial.user_attrs["key"]
            and other.state in _OPEN
            for other in self._trials()
        )

    def _point(self, trial: optuna.Trial) -> Point:
        search = self.search
        if search.sampler == "tpe":
            # Seeded by its number: a resumed search draws the same points.
            seed = search.config.seed + trial.number
            trial.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_BLIND)
            return {factor.name: plan.suggest(trial, factor) for factor in search.space}
        point: Point = trial.user_attrs["point"]
        plan.record(trial, search, point)
        return point

    def _report(self, trial: optuna.Trial) -> Report:
        goals = OBJECTIVES[self.search.objective]
        column = "select_clean" if goals == ("clean",) else "select_pgd"

        def report(epoch: int, row: dict[str, Any]) -> bool:
            if len(goals) > 1:
                return False
            trial.report(row[column], epoch)
            return self.search.prune and trial.should_prune()

        return report

    def _after_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Prints the trial's line, clears its checkpoints, ends a hopeless search."""
        attrs = trial.user_attrs
        if "dropped" in attrs:
            return
        folder = self.folder / "trials" / run_name(trial.number, attrs)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            clear(RunFolder(folder))
        row = next(row for row in rows_of(study) if row.trial == trial.number)
        with self._telling:
            self._say(row)
            if "error" in attrs:
                self._failures.append(str(row.error))
            elif trial.state != TrialState.FAIL:
                self._failures = []
        if len(self._failures) >= _HOPELESS and not complete(rows_of(study)):
            raise TFRobustError(
                f"The first {_HOPELESS} trials failed, so the search stops; the last one: "
                f"{self._failures[-1]} (log: {folder / 'log.txt'}; fix it, then add "
                "--retry-failed)"
            )

    def _say(self, row: Row) -> None:
        progress = self._progress
        assert progress is not None
        progress.done += 1
        left = progress.seconds_left
        time_left = f", {clock(left)} left" if left and progress.done < progress.total else ""
        values = ", ".join(f"{name} {format_value(value)}" for name, value in row.point.items())
        found = ", ".join(f"{METRICS[k]} {v:.3f}" for k, v in row.metrics.items() if k in METRICS)
        print(
            f"[{progress.done}/{progress.total}{time_left}] trial {row.trial}: {values}: "
            f"{found or row.error or row.state} ({clock(row.seconds or 0)})",
            flush=True,
        )


def _check(metrics: dict[str, float], objective: str) -> None:
    for name in OBJECTIVES[objective]:
        if not math.isfinite(metrics[name]):
            raise TFRobustError(f"The {METRICS[name]} accuracy is {metrics[name]}.")


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, TFRobustError) else f"{type(error).__name__}: {text}"


def _last_error(rows: list[Row]) -> str:
    errors = [row.error for row in rows if row.error]
    return errors[-1] if errors else json.dumps([row.state for row in rows][-3:])
