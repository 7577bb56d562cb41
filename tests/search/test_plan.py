"""Which points a search tries."""

from __future__ import annotations

import pytest

from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.search.plan import Search, at_the_edge, finer, grid, one_at_a_time, random_points
from tfrobust.search.space import parse_space

SPACE = parse_space("batch_size=16,32,64,128;learning_rate=1e-4..1e-1:log:4")


def test_a_grid_has_every_combination_once():
    points = grid(SPACE)
    pairs = {(point["batch_size"], point["learning_rate"]) for point in points}
    assert len(points) == len(pairs) == 16
    assert pairs == {(b, r) for b in (16, 32, 64, 128) for r in (1e-4, 1e-3, 1e-2, 1e-1)}


def test_one_at_a_time_leaves_the_others_as_in_the_recipe():
    space = parse_space("batch_size=16,32;learning_rate=1e-4,1e-3;eps=0.1,0.2")
    points = one_at_a_time(space, RunConfig())
    base = {"batch_size": 64, "learning_rate": 0.05, "eps": 8 / 255}
    for point in points:
        assert sum(point[name] != base[name] for name in base) == 1
    assert [point["batch_size"] for point in points] == [16, 32, 64, 64, 64, 64]


def test_a_setting_that_two_factors_lead_to_is_tried_once():
    # The recipe's own batch size of 64 and rate of 0.05 are the same point.
    space = parse_space("batch_size=32,64;learning_rate=0.05,0.1")
    assert len(one_at_a_time(space, RunConfig())) == 3


def test_the_initialisation_is_crossed_with_each_factor():
    space = parse_space("weights=none,imagenet;batch_size=16,32;learning_rate=1e-4,1e-3,1e-2")
    points = one_at_a_time(space, RunConfig(), "weights")
    # 2 x 2 with the batch size, 2 x 3 with the learning rate.
    assert len(points) == 10
    for weights in ("none", "imagenet"):
        own = [point for point in points if point["weights"] == weights]
        assert [point["batch_size"] for point in own] == [16, 32, 64, 64, 64]
        assert [point["learning_rate"] for point in own] == [0.05, 0.05, 1e-4, 1e-3, 1e-2]
    with pytest.raises(UsageError, match="--cross: expected a factor of"):
        one_at_a_time(space, RunConfig(), "steps")


def test_the_finer_grid_is_around_the_best_at_half_the_distance():
    space = finer(SPACE, {"batch_size": 64, "learning_rate": 1e-2})
    # Half-way in ratios: sqrt(32 * 64) = 45.3, sqrt(64 * 128) = 90.5; 10^-2.5 and 10^-1.5.
    assert space[0].values == (45, 64, 91)
    assert space[1].values == (0.003162, 0.01, 0.03162)
    again = finer(space, {"batch_size": 91, "learning_rate": 0.01})
    # sqrt(64 * 91) = 76.3; nothing lies above 91 in this grid.
    assert again[0].values == (76, 91)
    assert again[1].values == (0.005623, 0.01, 0.01778)


def test_the_finer_grid_takes_equal_steps_where_the_values_do():
    (factor,) = finer(parse_space("dropout=0.1,0.2,0.3"), {"dropout": 0.2})
    assert factor.values == (0.15, 0.2, 0.25)


def test_the_finer_grid_stays_inside_and_leaves_words_alone():
    space = parse_space("batch_size=32,64,128;method=nsl,standard;clip_norm=none,1")
    best = {"batch_size": 128, "method": "nsl", "clip_norm": None}
    batch, method, clip = finer(space, best)
    # sqrt(64 * 128) = 90.5, rounded to 91; nothing above the edge.
    assert batch.values == (91, 128)
    assert method.values == ("nsl",) and clip.values == (None,)
    assert at_the_edge(space, best) == ["batch_size"]
    assert at_the_edge(space, best | {"batch_size": 64}) == []


def test_random_points_are_in_the_space_and_do_not_hang_on_their_number():
    space = parse_space("batch_size=16,32;learning_rate=1e-4..1e-1:log;epochs=2..9")
    points = random_points(space, 30, 7)
    assert points[:10] == random_points(space, 10, 7) != random_points(space, 10, 8)
    for point in points:
        assert point["batch_size"] in (16, 32) and 1e-4 <= point["learning_rate"] <= 1e-1
        assert 2 <= point["epochs"] <= 9 and isinstance(point["epochs"], int)
    # In equal ratios half of the draws lie below the geometric mean of the ends, 10^-2.5:
    # of 30 fair ones fewer than 6 or more than 24 would be one in 1,500.
    assert 6 <= sum(point["learning_rate"] < 10**-2.5 for point in points) <= 24


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sampler": "tpe", "refine": 1}, "are for --sampler grid"),
        ({"sampler": "random", "one_at_a_time": True}, "are for --sampler grid"),
        ({"refine": 1, "objective": "pareto"}, "the one best point"),
        ({"cross": "weights"}, "--cross needs --one-at-a-time"),
        ({"prune": True, "objective": "pareto"}, "--prune compares"),
        ({"prune": True, "objective": "perturbed-train"}, "leave it out with .*perturbed-train"),
        ({"prune": True, "objective": "perturbed-validation"}, "--objective"),
        ({"space": parse_space("batch_size=0,1")}, "expected at least 1"),
        ({"space": parse_space("eps=0.1,0.2"), "prune": True, "objective": "robust"}, "where eps"),
        ({"space": parse_space("weights=none,no/such/file.h5")}, "found no no/such/file.h5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(more, message):
    with pytest.raises(UsageError, match=message):
        Search(**({"space": SPACE, "config": RunConfig()} | more))
