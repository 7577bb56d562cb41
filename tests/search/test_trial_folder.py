"""A trial goes on from its own weights, and from no other's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.run import RunFolder
from tfrobust.search.plan import Search, grid, key_of
from tfrobust.search.results import rows_of
from tfrobust.search.space import parse_space
from tfrobust.search.study import Searcher
from tfrobust.search.trial_folder import prepare, run_name

SMALL = Search(parse_space("batch_size=8,16"), RunConfig())
LARGE = replace(SMALL, space=parse_space("batch_size=32,64"))


class Training:
    """Stands for `fit`: adds its batch size to what is there, as weights that are gone on from."""

    def __init__(self, killed_at=None):
        self.killed_at = killed_at
        self.began_with = []

    def __call__(self, config, run, report):
        size = config.training.batch_size
        weights = run.checkpoints / "epoch-0001"
        before = weights.read_text().split() if weights.exists() and run.state.exists() else []
        self.began_with.append((size, before))
        weights.write_text(" ".join([*before, str(size)]))
        run.state.touch()
        if size == self.killed_at:
            raise KeyboardInterrupt
        run.best_model.write_text(str(size))
        return {"clean": size / 100, "robust": 0.0, "best_epoch": 1}


def killed(search, folder, at, **options):
    with pytest.raises(KeyboardInterrupt):
        Searcher(search, Training(at), folder, **options).run()


def test_another_study_in_the_same_folder_begins_afresh_and_leaves_the_first_alone(tmp_path):
    killed(SMALL, tmp_path, 16)
    other = Training()
    rows = Searcher(LARGE, other, tmp_path, name="a/b").run()
    assert other.began_with == [(32, []), (64, [])]
    assert [row.run for row in rows] == ["a%2Fb-0000", "a%2Fb-0001"]
    again = Training()
    first = Searcher(SMALL, again, tmp_path).run()
    # The one that was killed goes on where it was; the models of both studies are kept.
    assert again.began_with == [(16, ["16"])]
    for row in (*rows, *(row for row in first if row.state == "complete")):
        run = RunFolder(tmp_path / "trials" / row.run)
        assert run.best_model.read_text() == str(row.point["batch_size"])
        assert run.read_config().training.batch_size == row.point["batch_size"]


def test_without_its_database_a_search_does_not_go_on_from_other_settings(tmp_path, capsys):
    killed(SMALL, tmp_path, 16)
    (tmp_path / "trials" / "0001" / "log.txt").write_text("of the trial before")
    (tmp_path / "search.journal").unlink()
    training = Training()
    assert len(Searcher(LARGE, training, tmp_path).run()) == 2
    assert training.began_with == [(32, []), (64, [])]
    run = RunFolder(tmp_path / "trials" / "0001")
    assert run.read_config().training.batch_size == 64 and not (run.path / "log.txt").exists()
    assert f"{run.path} had different settings: emptied" in capsys.readouterr().out


def test_without_its_database_the_same_search_goes_on(tmp_path):
    killed(SMALL, tmp_path, 16)
    (tmp_path / "search.journal").unlink()
    training = Training()
    Searcher(SMALL, training, tmp_path).run()
    # The first had come to its end, and its checkpoint was freed then.
    assert training.began_with == [(8, []), (16, ["16"])]


def test_a_study_from_before_folders_had_its_name_keeps_those_it_has(tmp_path):
    searcher = Searcher(SMALL, Training(8), tmp_path, name="mine")
    for point in grid(SMALL.space):
        attrs = {"key": key_of(point), "point": point, "round": 0}
        searcher.study.enqueue_trial(point, user_attrs=attrs)
    with pytest.raises(KeyboardInterrupt):
        searcher.run()
    training = Training()
    again = Searcher(SMALL, training, tmp_path, name="mine")
    again.run()
    assert (8, ["8"]) in training.began_with and (16, []) in training.began_with
    runs = {(row.point["batch_size"], row.run) for row in rows_of(again.study)}
    assert runs == {(8, "0000"), (16, "0001")}


@pytest.mark.parametrize("text", [None, "", "training: {batch_size", "nonsense: 1"])
def test_a_folder_that_does_not_tell_its_settings_is_emptied(text, tmp_path):
    run = RunFolder(tmp_path / "0000")
    prepare(run, RunConfig())
    run.state.touch()
    prepare(run, RunConfig())
    assert run.started()
    run.config.unlink() if text is None else run.config.write_text(text)
    prepare(run, RunConfig())
    assert not run.started() and run.read_config() == RunConfig()


def test_a_folder_that_cannot_be_emptied_is_told_in_one_sentence(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "0000").symlink_to(tmp_path / "other")
    with pytest.raises(TFRobustError, match="0000 .* cannot be emptied"):
        prepare(RunFolder(tmp_path / "0000"), RunConfig())


def test_no_two_trials_of_two_studies_have_one_folder():
    names = [run_name(7, {}), run_name(8, {"folder": 3}), run_name(7, {"study": "a"}),
             run_name(7, {"study": "a/b"}), run_name(7, {"study": "a%2Fb"}),
             run_name(7, {"study": ".."})]  # fmt: skip
    assert names == ["0007", "0003", "a-0007", "a%2Fb-0007", "a%252Fb-0007", "..-0007"]
