"""Table, best settings and figures of a search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.figures.factor import accuracy_text
from tfrobust.search.figure_data import of_round, values_of
from tfrobust.search.plan import Search, finer, grid
from tfrobust.search.report import write_report
from tfrobust.search.results import Row, format_value, ranked, read_table, write_table
from tfrobust.search.space import parse_space
from tfrobust.settings import from_dict, load_yaml

SPACE = parse_space({"batch_size": [16, 32], "learning_rate": "1e-4..1e-2:log:3",
                     "weights": ["none", "imagenet"]})  # fmt: skip


def row(number, point, clean, robust=0.1, **more):
    metrics = {"clean": clean, "perturbed_validation": 0.4, "robust": robust, "best_epoch": 2}
    return Row(number, f"{number:04d}", 0, "complete", point, metrics, 12.3, **more)


def rows_on(points, round_=0, first=0):
    return [replace(row(first + i, p, 0.3 + i / 100), round=round_) for i, p in enumerate(points)]


def test_the_table_reads_back_as_it_was_written(tmp_path):
    space = parse_space("batch_size=16,32;learning_rate=1e-5,1e-3;blocks=head,2;clip_norm=none,1;"
                        "augment.flip=true,false")  # fmt: skip
    point = {"batch_size": 16, "learning_rate": 1e-5, "blocks": "2", "clip_norm": None,
             "augment.flip": True}  # fmt: skip
    rows = [
        row(0, point, 1 / 3),
        Row(1, "0001", 0, "failed", {**point, "blocks": "head"}, {}, 0.5, 'The loss, "nan"'),
        Row(2, "0000", 1, "waiting", {}),
    ]
    write_table(rows, space, tmp_path / "trials.csv")
    assert read_table(tmp_path / "trials.csv") == rows
    header, first, *_ = (tmp_path / "trials.csv").read_text().splitlines()
    assert header == (
        "trial,run,round,state,seconds,batch_size,learning_rate,blocks,clip_norm,augment.flip,"
        "clean,perturbed_train,perturbed_validation,robust,best_epoch,error"
    )
    # A block number stays a word: it is quoted, for CSV and in itself.
    assert first.startswith('0,0000,0,complete,12.3,16,1e-05,"""2""",null,true,0.333')
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TFRobustError, match="not a table of pipelines.search"):
        read_table(tmp_path / "other.csv")


def test_ties_go_to_the_trial_that_is_better_elsewhere_then_to_the_first():
    points = grid(SPACE)
    rows = [row(0, points[0], 0.5), row(1, points[1], 0.5, 0.2), row(2, points[2], 0.5, 0.2)]
    assert [r.trial for r in ranked(rows, "clean")] == [1, 2, 0]


def test_best_yaml_is_the_whole_configuration_of_the_best(tmp_path):
    search = Search(SPACE, RunConfig(seed=7))
    points = grid(SPACE)
    rows = [row(i, point, 0.9 if i == 6 else 0.5) for i, point in enumerate(points)]
    rows.append(Row(12, "0012", 0, "failed", points[0], {}, 1.0, "The loss became nan."))
    text = write_report(search, rows, tmp_path)
    best = from_dict(RunConfig, load_yaml(tmp_path / "best.yaml"))
    (stage,) = best.training.stages
    # The seventh point: batch size 32, first learning rate, first weights.
    assert points[6] == {"batch_size": 32, "learning_rate": 1e-4, "weights": "none"}
    assert (best.training.batch_size, stage.learning_rate, best.seed) == (32, 1e-4, 7)
    assert "--batch-size 32 --learning-rate 0.0001 --weights none" in text
    assert (
        "12 complete, 1 failed" in text
        and "a wider space may be better: batch_size, learning_rate." in text
    )
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert drawn == {
        "factor_batch_size.png", "factor_learning_rate.png", "factor_weights.png", "trials.png",
        "grid_1_batch_size_learning_rate.png", "grid_1_batch_size_weights.png",
        "grid_1_learning_rate_weights.png", "parallel.png", "pareto.png",
    }  # fmt: skip


def test_one_trial_and_none_need_no_special_care(tmp_path):
    search = Search(parse_space("batch_size=16"), RunConfig())
    write_report(search, [row(0, {"batch_size": 16}, 0.5)], tmp_path)
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} == {"trials.png"}
    text = write_report(search, [Row(0, "0000", 0, "running", {})], tmp_path)
    assert "1 running" in text and "run again later" in text


def test_the_finer_heat_map_holds_its_own_grid_alone():
    space = parse_space("batch_size=16,32,64;learning_rate=1e-4..1e-2:log:3")
    search = Search(space, RunConfig(), refine=1)
    first = rows_on(grid(space))
    best = ranked(first, "clean")[0]
    new = [p for p in grid(finer(space, best.point)) if p != best.point]
    done = first + rows_on(new, round_=1, first=9)
    assert of_round(search, done, 0) == first
    # The best was 64 at 1e-2, a corner: 2 x 2 with what lies half-way to its neighbours.
    assert len(new) == 3 and of_round(search, done, 1) == [best, *done[9:]]


def test_values_and_words_as_pictures_show_them():
    rows = [row(0, {"blocks": "all"}, 0.1), row(1, {"blocks": "head"}, 0.1)]
    (blocks,) = parse_space("blocks=head,2,all")
    assert values_of(rows, blocks) == ["head", "all"]
    assert format_value(0.00025) == "0.00025" and format_value("a/b/weights.h5") == "weights"
    assert format_value("saved_models/base") == "base" and format_value(None) == "None"
    assert [accuracy_text(v) for v in (0.5228, 1.0, 0.0)] == [".523", "1.0", ".000"]
