"""What the figures of a search show, at which place."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tfrobust.config import RunConfig
from tfrobust.figures.factor import AgainstFactor
from tfrobust.figures.grid import GridMaps
from tfrobust.figures.style import LIGHT
from tfrobust.figures.trials import BestTrials, ParallelTrials, ParetoFront
from tfrobust.search.figure_data import (
    factor_scores,
    grid_scores,
    ranking,
    trial_lines,
    trial_pairs,
)
from tfrobust.search.plan import Search, grid, one_at_a_time
from tfrobust.search.results import Row
from tfrobust.search.space import parse_space

# Two values down and three across: a transposed map has another shape.
SPACE = parse_space("batch_size=16,32;learning_rate=1e-4..1e-2:log:3")
POINTS = grid(SPACE)
CLEANS = (0.50, 0.51, 0.52, 0.63, 0.64, 0.61)
ROBUSTS = (0.20, 0.30, 0.10, 0.24, 0.21, 0.22)


def row(number, point, clean, robust=0.1, **more):
    return Row(number, f"{number:04d}", 0, "complete", point, {"clean": clean, "robust": robust},
               **more)  # fmt: skip


def rows_on(points, cleans, robusts):
    found = zip(points, cleans, robusts, strict=True)
    return [row(i, point, clean, robust) for i, (point, clean, robust) in enumerate(found)]


ROWS = rows_on(POINTS, CLEANS, ROBUSTS)


def title(figure):
    return figure.get_suptitle()


def ticks(axis):
    return dict(zip(axis.get_ticklocs(), [t.get_text() for t in axis.get_ticklabels()],
                    strict=True))  # fmt: skip


def points(line):
    return line.get_xydata().tolist()


# Heat maps.


def cells(axes):
    """(label across, label down) -> the text at that place."""
    across, down = ticks(axes.xaxis), ticks(axes.yaxis)
    return {(across[x], down[y]): text.get_text()
            for text in axes.texts for x, y in [text.get_position()]}  # fmt: skip


def frames(axes):
    """The middles of the framed cells."""
    return [tuple(np.round(patch.get_center())) for patch in axes.patches]


def test_a_cell_of_the_grid_is_the_trial_of_its_row_and_column():
    drawn = GridMaps().draw(grid_scores(Search(SPACE, RunConfig()), ROWS, SPACE))
    clean, robust = drawn.axes
    assert (clean.get_title(), robust.get_title()) == ("clean", "robust (PGD)")
    assert (clean.get_xlabel(), clean.get_ylabel()) == ("learning_rate", "batch_size")
    assert cells(clean) == {
        ("0.0001", "16"): ".500", ("0.001", "16"): ".510", ("0.01", "16"): ".520",
        ("0.0001", "32"): ".630", ("0.001", "32"): ".640", ("0.01", "32"): ".610",
    }  # fmt: skip
    # The colours say the same as the texts, and larger values are farther up.
    np.testing.assert_allclose(clean.images[0].get_array(), np.reshape(CLEANS, (2, 3)))
    np.testing.assert_allclose(robust.images[0].get_array(), np.reshape(ROBUSTS, (2, 3)))
    bottom, top = clean.get_ylim()
    assert clean.images[0].origin == "lower" and bottom < top
    # Best clean: .640 in column 1, row 1; best robust: .300 in column 1, row 0.
    assert frames(clean) == [(1, 1)] and frames(robust) == [(1, 0)]
    assert title(drawn) == "Accuracy on the grid"


def test_a_dash_stands_where_no_trial_came_to_its_end():
    failed = Row(6, "0006", 0, "failed", POINTS[3], {}, 1.0, "The loss became nan.")
    rows = [*ROWS[:3], *ROWS[4:], failed]
    drawn = GridMaps().draw(grid_scores(Search(SPACE, RunConfig()), rows, SPACE))
    found = cells(drawn.axes[0])
    assert [place for place, text in found.items() if text == "–"] == [("0.0001", "32")]


@pytest.mark.parametrize(("objective", "expected"), [("clean", ".700"), ("robust", ".400")])
def test_with_a_third_factor_a_cell_is_its_best_trial_by_the_objective(objective, expected):
    space = (*SPACE, *parse_space("momentum=0.5,0.9"))
    search = Search(space, RunConfig(), objective=objective)
    # At momentum 0.9 clean is better, at 0.5 robust.
    rows = [row(i, point, *((0.7, 0.1) if point["momentum"] == 0.9 else (0.4, 0.3)))
            for i, point in enumerate(grid(space))]  # fmt: skip
    drawn = GridMaps().draw(grid_scores(search, rows, SPACE))
    assert set(cells(drawn.axes[0]).values()) == {expected}
    goal = {"clean": "clean", "robust": "robust (PGD)"}[objective]
    assert title(drawn) == f"Accuracy on the grid, for each cell the best trial by {goal}"


# The Pareto front.


def test_the_pareto_figure_joins_the_front_and_numbers_it():
    pairs = [(0.9, 0.1), (0.8, 0.3), (0.7, 0.2), (0.5, 0.5), (0.5, 0.4)]
    rows = [row(i, {}, *pair) for i, pair in enumerate(pairs)]
    rows.append(Row(5, "0005", 0, "pruned", {}, {}))
    drawn = ParetoFront().draw(trial_pairs(rows))
    (axes,) = drawn.axes
    rest, step, front = axes.get_lines()
    # Trial 2 is beaten by 1 in both, 4 by 3 in robust accuracy at the same clean one.
    assert (
        points(rest) == [[0.7, 0.2], [0.5, 0.4]]
        and to_hex(rest.get_color()) == LIGHT.neutral.lower()
    )
    assert points(front) == [[0.5, 0.5], [0.8, 0.3], [0.9, 0.1]]
    assert to_hex(front.get_color()) == LIGHT.attacked.lower() and rest.get_linestyle() == "None"
    # Between two points of the front the next one's robust accuracy is what can be had.
    assert points(step) == points(front) and step.get_drawstyle() == "steps-pre"
    assert {text.get_text(): text.xy for text in axes.texts} == {
        "3": (0.5, 0.5), "1": (0.8, 0.3), "0": (0.9, 0.1)
    }  # fmt: skip
    assert axes.get_xlabel().startswith("clean") and axes.get_ylabel().startswith("robust")
    assert axes.get_title(loc="left").startswith("5 trials")


# The ranking.


def test_the_ranking_has_the_best_at_the_top_and_the_other_accuracies_as_dots():
    drawn = BestTrials().draw(ranking(Search(SPACE, RunConfig()), ROWS))
    (axes,) = drawn.axes
    order = [4, 3, 5, 2, 1, 0]
    widths = {bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in axes.patches}
    assert widths == pytest.approx({place: CLEANS[i] for place, i in enumerate(order)})
    assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {LIGHT.clean.lower()}
    assert {text.get_position()[1]: text.get_text() for text in axes.texts} == {
        0: ".640", 1: ".630", 2: ".610", 3: ".520", 4: ".510", 5: ".500"
    }  # fmt: skip
    (dots,) = axes.get_lines()
    assert dots.get_label() == "robust (PGD)"
    assert points(dots) == [[ROBUSTS[i], place] for place, i in enumerate(order)]
    labels = ticks(axes.yaxis)
    assert labels[0] == "batch_size 32, learning_rate 0.001"
    assert labels[5] == "batch_size 16, learning_rate 0.0001"
    bottom, top = axes.get_ylim()
    assert bottom > top and title(drawn) == "All trials, ranked"


def test_of_many_trials_the_ranking_has_the_best_by_the_objective():
    (space,) = parse_space("momentum=0..0.9:20")
    rows = [row(i, {"momentum": v}, 0.5, i / 100) for i, v in enumerate(space.values)]
    search = Search((space,), RunConfig(), objective="robust")
    drawn = BestTrials().draw(ranking(search, rows))
    widths = [bar.get_width() for bar in drawn.axes[0].patches]
    assert widths == pytest.approx([i / 100 for i in range(19, 7, -1)])
    assert title(drawn) == "The best 12 of 20 trials"


# Parallel coordinates.


def test_a_line_of_the_parallel_figure_goes_through_a_trials_factors_and_accuracies():
    drawn = ParallelTrials().draw(trial_lines(Search(SPACE, RunConfig()), ROWS))
    (axes,) = drawn.axes
    lines, upright = axes.get_lines()[:6], axes.get_lines()[6:]
    # Batch size 16 and 32 are the ends; rates in equal ratios are at 0, 1/2 and 1.
    heights = {i: [i // 3, (i % 3) / 2, CLEANS[i], ROBUSTS[i]] for i in range(6)}
    for line, i in zip(lines, [0, 1, 2, 5, 3, 4], strict=True):
        np.testing.assert_allclose(line.get_ydata(), heights[i], atol=1e-9)
        assert list(line.get_xdata()) == [0, 1, 2, 3]
    # The last one drawn is the best.
    colours = [to_hex(line.get_color()) for line in lines]
    assert colours[-1] == LIGHT.attacked.lower() and colours.count(colours[-1]) == 1
    brightness = [sum(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in colours[:-1]]
    assert brightness == sorted(brightness, reverse=True)
    names = ["batch_size", "learning_rate", "clean", "robust\n(PGD)"]
    assert ticks(axes.xaxis) == dict(enumerate(names))
    assert [points(line) for line in upright] == [[[i, 0], [i, 1]] for i in range(4)]
    # The ticks of an axis stand left of it, at its values' heights.
    found = {(round(x), text.get_text()): y for text in axes.texts
             for x, y in [text.get_position()]}  # fmt: skip
    assert {key: y for key, y in found.items() if key[0] < 2} == pytest.approx({
        (0, "16"): 0, (0, "32"): 1, (1, "0.0001"): 0, (1, "0.001"): 0.5, (1, "0.01"): 1,
    })  # fmt: skip
    assert found[2, "0.2"] == 0.2 and found[3, "1"] == 1.0


# Against one factor.


def curves(axes):
    return {line.get_label(): points(line) for line in axes.get_lines()}


STARTS = parse_space({"weights": ["none", "imagenet"], "batch_size": [16, 32],
                      "learning_rate": [1e-4, 1e-3]})  # fmt: skip


def started(search, cleans=None):
    found = one_at_a_time(search.space, search.config, search.cross)
    cleans = cleans or [0.3 + i / 100 for i in range(len(found))]
    return rows_on(found, cleans, [0.1] * len(found))


def test_a_factor_varied_alone_is_drawn_with_the_others_as_in_the_recipe():
    search = Search(STARTS, RunConfig(), one_at_a_time=True, cross="weights")
    # Points 0 and 1: batch size 16 and 32 from none, then from imagenet.
    drawn = AgainstFactor().draw(factor_scores(search, started(search), STARTS[1]))
    assert [axes.get_title() for axes in drawn.axes] == ["clean", "robust (PGD)"]
    lines = curves(drawn.axes[0])
    np.testing.assert_allclose(lines["from scratch"], [[16, 0.30], [32, 0.31]])
    np.testing.assert_allclose(lines["from ImageNet"], [[16, 0.32], [32, 0.33]])
    assert title(drawn) == "Accuracy against batch_size: the other factors as in the recipe"


def test_where_no_trial_has_the_others_as_in_the_recipe_the_title_says_so():
    search = Search(STARTS, RunConfig(), one_at_a_time=True, cross="weights")
    # The recipe's batch size of 64 and rate of 0.05 are none of those tried, so no trial of
    # an initialisation has both: the best of each is shown, .31 and .37.
    cleans = [0.30, 0.31, 0.32, 0.33, 0.30, 0.30, 0.37, 0.30]
    drawn = AgainstFactor().draw(factor_scores(search, started(search, cleans), STARTS[0]))
    assert [bar.get_height() for bar in drawn.axes[0].patches] == [0.31, 0.37]
    assert title(drawn) == (
        "Accuracy against weights: for each value the best trial by clean accuracy"
    )


def test_a_crossed_factor_without_lines_of_its_own_is_told():
    space = parse_space("batch_size=16,32;learning_rate=1e-4,1e-3")
    search = Search(space, RunConfig(), one_at_a_time=True, cross="batch_size")
    # (16, 1e-4), (16, 1e-3), (32, 1e-4), (32, 1e-3).
    rows = started(search, [0.3, 0.6, 0.5, 0.4])
    drawn = AgainstFactor().draw(factor_scores(search, rows, space[1]))
    ((_, line),) = curves(drawn.axes[0]).items()
    np.testing.assert_allclose(line, [[1e-4, 0.5], [1e-3, 0.6]])
    assert title(drawn) == (
        "Accuracy against learning_rate: the other factors as in the recipe, the best batch_size"
    )


def test_on_a_grid_a_point_is_the_best_trial_with_its_value():
    space = parse_space("batch_size=16,32;learning_rate=1e-4,1e-3")
    rows = rows_on(grid(space), (0.2, 0.6, 0.5, 0.4), [0.1] * 4)
    drawn = AgainstFactor().draw(factor_scores(Search(space, RunConfig()), rows, space[0]))
    ((_, line),) = curves(drawn.axes[0]).items()
    np.testing.assert_allclose(line, [[16, 0.6], [32, 0.5]])
    assert title(drawn) == (
        "Accuracy against batch_size: for each value the best trial by clean accuracy"
    )


@pytest.mark.parametrize(
    ("values", "shown", "how"),
    [
        ((3, 2, 5), [[2, 0.31], [3, 0.3], [5, 0.32]], "all 3 trials"),
        # Of whole numbers some are drawn twice: the better trial is the dot.
        ((3, 2, 3), [[2, 0.31], [3, 0.32]], "for each value the best trial by clean"),
    ],
)
def test_the_title_says_all_trials_only_where_all_are_shown(values, shown, how):
    space = parse_space("epochs=2..9")
    search = Search(space, RunConfig(), sampler="random", trials=3)
    rows = rows_on([{"epochs": v} for v in values], (0.3, 0.31, 0.32), [0.1] * 3)
    drawn = AgainstFactor().draw(factor_scores(search, rows, space[0]))
    ((_, line),) = curves(drawn.axes[0]).items()
    np.testing.assert_allclose(line, shown)
    assert title(drawn).removesuffix(" accuracy") == f"Accuracy against epochs: {how}"
