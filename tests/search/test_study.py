"""The search as a whole, on known functions: nothing twice, nothing lost, failures told."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import optuna
import pytest

from tfrobust.config import RunConfig, TrainingConfig
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.search.isolate import Isolated
from tfrobust.search.plan import Search, grid, key_of
from tfrobust.search.results import front, ranked, rows_of
from tfrobust.search.space import parse_space
from tfrobust.search.storage import is_gone, owner, storage_of
from tfrobust.search.study import Lost, Pruned, Searcher

SPACE = parse_space("batch_size=8,16,32")
SEARCH = Search(SPACE, RunConfig())


def score(config, run, report):
    """Best at batch size 16."""
    value = {8: 0.5, 16: 0.75, 32: 0.25}.get(config.training.batch_size, 0.1)
    return {"clean": value, "robust": 1 - value, "best_epoch": 1}


def study_of(folder):
    return optuna.load_study(study_name="search", storage=storage_of(folder, None))


def test_a_grid_is_done_and_the_best_is_found(tmp_path):
    rows = Searcher(SEARCH, score, tmp_path).run()
    assert [row.state for row in rows] == ["complete"] * 3
    assert [row.point for row in rows] == grid(SPACE)
    assert [row.metrics["clean"] for row in rows] == [0.5, 0.75, 0.25]
    assert ranked(rows, "clean")[0].point == {"batch_size": 16}
    assert ranked(rows, "robust")[0].point == {"batch_size": 32}
    # What Optuna knows is what we know: its dashboard shows the same.
    assert study_of(tmp_path).best_params == {"batch_size": 16}
    assert study_of(tmp_path).best_value == 0.75


def test_running_it_again_does_nothing_and_other_settings_are_refused(tmp_path):
    Searcher(SEARCH, score, tmp_path).run()

    def never(config, run, report):
        raise AssertionError

    assert len(Searcher(SEARCH, never, tmp_path).run()) == 3
    wider = replace(SEARCH, space=parse_space("batch_size=8,16"))
    with pytest.raises(UsageError, match="other settings .space.batch_size"):
        Searcher(wider, never, tmp_path)
    other = replace(SEARCH, config=RunConfig(training=TrainingConfig(momentum=0.5)))
    with pytest.raises(UsageError, match="config.training.momentum: 0.9 there, 0.5 here"):
        Searcher(other, never, tmp_path)


def test_more_random_trials_go_on_from_those_that_are_there(tmp_path):
    search = Search(
        parse_space("learning_rate=1e-4..1e-1:log"), RunConfig(), sampler="random", trials=2
    )
    first = Searcher(search, score, tmp_path / "a").run()
    more = Searcher(replace(search, trials=4), score, tmp_path / "a").run()
    at_once = Searcher(replace(search, trials=4), score, tmp_path / "b").run()
    assert [row.point for row in more] == [row.point for row in at_once]
    assert [row.point for row in more[:2]] == [row.point for row in first]


def test_the_recipes_own_value_need_not_be_among_a_factors_values(tmp_path):
    # The recipe has blocks 'all' and no clipping.
    space = parse_space("blocks=0,1;clip_norm=1,2;batch_size=8,16;augment.flip=true")
    search = Search(space, RunConfig(), one_at_a_time=True)
    rows = Searcher(search, score, tmp_path).run()
    assert [row.state for row in rows] == ["complete"] * 7
    assert [row.point["blocks"] for row in rows] == ["0", "1", *["all"] * 5]
    assert [row.point["clip_norm"] for row in rows[2:5]] == [1.0, 2.0, None]
    assert [trial.params for trial in study_of(tmp_path).trials] == [row.point for row in rows]


def test_refining_goes_around_the_best_and_repeats_nothing(tmp_path):
    done = []

    def peak(config, run, report):
        """Best at a rate of 0.02, which only the finer grids come near."""
        rate = config.training.stages[0].learning_rate
        done.append(rate)
        return {"clean": 1 - abs(rate - 0.02), "robust": 0.0}

    search = Search(parse_space("learning_rate=0.01,0.03,0.05"), RunConfig(), refine=2)
    rows = Searcher(search, peak, tmp_path).run()
    # 0.01 and 0.03 tie at 0.99, the first counts; half-way to 0.03 is 0.02, which is best:
    # then half-way from it to 0.01, at the lower edge there is nothing above it.
    assert done == [0.01, 0.03, 0.05, 0.02, 0.015]
    assert [row.round for row in rows] == [0, 0, 0, 1, 2]
    assert ranked(rows, "clean")[0].point == {"learning_rate": 0.02}


def test_a_diverging_trial_is_marked_failed_and_the_search_goes_on(tmp_path, capsys):
    def diverges(config, run, report):
        if config.training.batch_size == 8:
            raise TFRobustError("The loss became nan at epoch 1.")
        if config.training.batch_size == 16:
            return {"clean": float("nan"), "robust": 0.0}
        return score(config, run, report)

    rows = Searcher(SEARCH, diverges, tmp_path).run()
    assert [row.state for row in rows] == ["failed", "failed", "complete"]
    assert rows[0].error == "The loss became nan at epoch 1." and "nan" in rows[1].error
    assert "trial 0: batch_size 8: The loss became nan" in capsys.readouterr().out
    # Its failure is its own: it is not tried again, unless that is asked for.
    assert len(Searcher(SEARCH, score, tmp_path).run()) == 3
    rows = Searcher(SEARCH, score, tmp_path, retry_failed=True).run()
    assert [(row.run, row.state) for row in rows] == [
        ("0000", "failed"), ("0001", "failed"), ("0002", "complete"),
        ("0000", "complete"), ("0001", "complete"),
    ]  # fmt: skip


def test_a_trial_whose_process_dies_each_time_is_given_up_and_ctrl_c_is_no_death(tmp_path):
    def interrupted(config, run, report):
        raise KeyboardInterrupt

    one = replace(SEARCH, space=parse_space("batch_size=8"))
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            Searcher(one, interrupted, tmp_path).run()
    # As if killed: the last three attempts bear no sign of having been stopped.
    searcher = Searcher(one, score, tmp_path)
    for _ in range(3):
        searcher._plan()
        searcher.study.tell(searcher.study.ask(), state=optuna.trial.TrialState.FAIL)
    with pytest.raises(TFRobustError, match="No trial"):
        searcher.run()
    rows = rows_of(searcher.study)
    assert [row.state for row in rows] == ["interrupted"] * 7
    rows = Searcher(one, score, tmp_path, retry_failed=True).run()
    assert rows[-1].state == "complete"


def test_a_search_in_which_nothing_works_stops_early(tmp_path):
    def broken(config, run, report):
        raise ValueError("no such\nthing")

    search = replace(SEARCH, space=parse_space("batch_size=1,2,3,4,5,6"))
    with pytest.raises(TFRobustError, match="first 3 trials failed.*ValueError: no such thing"):
        Searcher(search, broken, tmp_path).run()
    assert sum(row.state == "failed" for row in rows_of(study_of(tmp_path))) == 3


def test_pruning_stops_a_bad_trial_and_no_good_one(tmp_path):
    epochs = Counter()

    def curve(config, run, report):
        """Learns to 0.9, but at batch size 99 stays at 0.1."""
        size = config.training.batch_size
        for epoch in range(1, 6):
            epochs[size] += 1
            value = 0.1 if size == 99 else 0.5 + epoch * 0.08 + size / 1000
            if report(epoch, {"select_clean": value, "select_pgd": 0.0}):
                raise Pruned
        return {"clean": value, "robust": 0.0}

    space = parse_space("batch_size=1,2,3,4,99,5")
    pruned = Searcher(Search(space, RunConfig(), prune=True), curve, tmp_path / "a").run()
    assert [row.state for row in pruned] == ["complete"] * 4 + ["pruned", "complete"]
    # Four trials set the median, and the first epoch does not count.
    assert epochs[99] == 2 and epochs[5] == 5
    kept = Searcher(Search(space, RunConfig()), curve, tmp_path / "b").run()
    assert [row.state for row in kept] == ["complete"] * 6


def test_pareto_keeps_what_no_other_beats_in_both(tmp_path):
    pairs = {1: (0.9, 0.1), 2: (0.8, 0.3), 3: (0.7, 0.2), 4: (0.5, 0.5), 5: (0.5, 0.4)}

    def both(config, run, report):
        assert not report(1, {"select_clean": 0.0, "select_pgd": 0.0})
        clean, robust = pairs[config.training.batch_size]
        return {"clean": clean, "robust": robust}

    search = Search(parse_space("batch_size=1,2,3,4,5"), RunConfig(), objective="pareto")
    rows = Searcher(search, both, tmp_path).run()
    # 3 is beaten by 2 in both, 5 by 4 in robust accuracy at the same clean one.
    assert [row.point["batch_size"] for row in front(rows)] == [4, 2, 1]
    best = {trial.params["batch_size"] for trial in study_of(tmp_path).best_trials}
    assert best == {1, 2, 4}


def test_tpe_goes_towards_the_best_and_repeats_itself(tmp_path):
    def hill(config, run, report):
        return {"clean": 1 - abs(config.training.stages[0].learning_rate - 0.3), "robust": 0.0}

    space = parse_space("learning_rate=0.001..1")
    search = Search(space, RunConfig(), sampler="tpe", trials=12)
    rows = Searcher(search, hill, tmp_path / "a").run()
    far = [abs(row.point["learning_rate"] - 0.3) for row in rows]
    # The first 5 are drawn blindly.
    assert sum(far[-5:]) < sum(far[:5])
    halves = replace(search, trials=5)
    Searcher(halves, hill, tmp_path / "b").run()
    again = Searcher(search, hill, tmp_path / "b").run()
    assert [row.state for row in again] == ["complete"] * 12
    assert [row.point for row in again] == [row.point for row in rows]


def test_the_same_trial_planned_on_two_machines_is_done_once(tmp_path):
    searcher = Searcher(SEARCH, score, tmp_path)
    for _ in range(2):
        for point in grid(SPACE):
            attrs = {"key": key_of(point), "point": point, "round": 0}
            searcher.study.enqueue_trial(point, user_attrs=attrs)
    rows = searcher.run()
    assert [row.point for row in rows] == grid(SPACE)
    assert all(row.state == "complete" for row in rows)


def test_isolated_passes_reports_on_and_what_is_not_picklable_is_refused(tmp_path):
    assert is_gone({**owner(), "started": "0"}) and not is_gone(owner())
    assert not is_gone({**owner(), "host": "another"}) and not is_gone(None)
    rows = Searcher(SEARCH, Isolated(lambda *a: {}), tmp_path)
    with pytest.raises(TFRobustError, match="first 3 trials failed"):
        rows.run()


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("nonsense", UsageError, "expected an address such as"),
        ("postgresql://me:secret@localhost/x", TFRobustError, "driver .* not installed"),
        ("sqlite:////no/such/folder/search.db", TFRobustError, "cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_in_one_sentence(url, kind, message, tmp_path):
    with pytest.raises(kind, match=message) as error:
        Searcher(SEARCH, score, tmp_path, url=url)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


class Together:
    """Two trials at a time, each of which waits for another; what it is told to lose is lost."""

    at_once = 2

    def __init__(self, lost=0, meet=True):
        self.lost, self.meet, self.calls = lost, threading.Barrier(2) if meet else None, []

    def __call__(self, config, run, report):
        size = config.training.batch_size
        self.calls.append(size)
        if self.meet is not None:
            self.meet.wait(20)
        if size == 16 and self.calls.count(16) <= self.lost:
            raise Lost
        return score(config, run, report)


def test_trials_are_done_together_and_each_once(tmp_path):
    search = replace(SEARCH, space=parse_space("batch_size=8,16,32,64"))
    together = Together()
    rows = Searcher(search, together, tmp_path).run()
    assert [row.state for row in rows] == ["complete"] * 4
    assert sorted(together.calls) == [8, 16, 32, 64]
    assert study_of(tmp_path).best_params == {"batch_size": 16}


def test_a_lost_trial_is_begun_again_and_at_last_given_up(tmp_path):
    once = Together(lost=1, meet=False)
    rows = Searcher(SEARCH, once, tmp_path / "once").run()
    assert Counter(row.state for row in rows) == {"complete": 3, "interrupted": 1}
    (lost,) = [row for row in rows if row.state == "interrupted"]
    assert [row.run for row in rows if row.point == lost.point] == [lost.run] * 2
    always = Together(lost=99, meet=False)
    rows = Searcher(SEARCH, always, tmp_path / "always").run()
    assert Counter(row.state for row in rows) == {"complete": 2, "interrupted": 3}


def test_a_hopeless_search_ends_while_others_are_under_way(tmp_path):
    class Broken(Together):
        def __call__(self, config, run, report):
            raise ValueError("no such images")

    with pytest.raises(TFRobustError):
        Searcher(SEARCH, Broken(meet=False), tmp_path).run()


def test_a_search_begun_with_sqlite_goes_on_with_it(tmp_path):
    tmp_path.joinpath("search.db").touch()
    assert len(Searcher(SEARCH, score, tmp_path).run()) == 3
    assert not tmp_path.joinpath("search.journal").exists()
    again = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/search.db")
    assert len(again.trials) == 3
