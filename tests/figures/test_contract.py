"""Every figure of the table, by the contract that a user's own is held to as well."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from figure_cases import CASES, curves, outcomes
from matplotlib.colors import to_rgb

from tfrobust.figures import FIGURES, draw_figures, figure_of, figures_for, place_of, title_of
from tfrobust.figures.accuracy_curves import AccuracyAgainstEps, AccuracyCurve, EpsCurves
from tfrobust.figures.figure import Figure, dark_path
from tfrobust.figures.layout import new_figure
from tfrobust.figures.outcomes import Outcomes
from tfrobust.figures.style import DARK, LIGHT, contrast
from tfrobust.tables import imported as _imported
from tfrobust.testing import check_figure


def test_every_figure_has_an_example() -> None:
    assert set(CASES) == set(FIGURES.built_in)


@pytest.mark.parametrize("name", CASES)
def test_a_figure_keeps_the_contract(name: str) -> None:
    check_figure(FIGURES[name], CASES[name]())


@pytest.mark.parametrize("classes", [1, 2, 26, 120])
def test_few_and_many_classes_keep_the_contract(classes: int) -> None:
    for name in ("per_class", "confusion"):
        check_figure(FIGURES[name], outcomes(classes, 900))


def test_the_contract_finds_what_is_wrong() -> None:
    @dataclasses.dataclass(frozen=True)
    class Broken(Figure[Outcomes]):
        title: ClassVar[str] = "Broken"
        group: ClassVar[str] = "own"
        needs: ClassVar[type] = Outcomes
        size: float = 9.0
        place: float = 0.5
        colour: str = "#777777"

        def draw(self, data: Outcomes):
            figure = new_figure(3, 3)
            axes = figure.subplots()
            axes.set_xticks([0, 0.02, 1], ["6.38", "7.65", "9"])
            axes.text(self.place, 0.5, "words", size=self.size)
            axes.set_title("title", color=self.colour)
            return figure

    for settings, wrong in (
        ({}, "overlap"),
        ({"size": 5.0}, "points"),
        ({"place": 3.0}, "cropped"),
        ({"colour": "#DDDDDD"}, "contrast"),
    ):
        kind = dataclasses.make_dataclass(
            "Kind", [(k, type(v), dataclasses.field(default=v)) for k, v in settings.items()],
            bases=(Broken,), frozen=True,
        )  # fmt: skip
        with pytest.raises(AssertionError, match=wrong):
            check_figure(kind, outcomes())


def test_radii_that_are_near_each_other_do_not_run_into_one_another() -> None:
    # 0.025 and 0.03 are 6.38 and 7.65 of 255; with a far one, the axis doubles.
    values = (0, 0.1, 0.5, 1, 2, 4, 6.375, 7.65, 8, 16, 32, 64, 128, 255)
    one = AccuracyCurve("PGD", [v / 255 for v in values], list(range(14, 0, -1)), 20)
    data = EpsCurves([one], "linf", 8 / 255, 0.1)
    check_figure(AccuracyAgainstEps, data)
    axes = AccuracyAgainstEps().draw(data).axes[0]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    # The run's own eps is among them.
    assert "8" in shown and not {"6.38", "7.65"} <= set(shown)


def test_an_eps_that_is_written_as_a_decimal_is_one_on_the_axis() -> None:
    data = curves(values=(0, 12.75, 25.5, 51), eps=25.5)
    axes = AccuracyAgainstEps().draw(data).axes[0]
    assert "pixel values in [0, 1]" in axes.get_xlabel()
    assert axes.texts[0].get_text() == "eps 0.1" and axes.texts[0].xy[0] == pytest.approx(0.1)


def test_files_are_written_light_and_dark(tmp_path: Path) -> None:
    files = draw_figures(outcomes(), tmp_path / "figures", group="evaluation")
    assert [path.name for path in files] == ["per_class.png", "confusion.png"]
    for path in files:
        assert dark_path(path).is_file() and dark_path(path).parent.name == "dark"
        assert dark_path(path).read_bytes() != path.read_bytes()
    assert draw_figures(outcomes(), tmp_path, group="search") == []


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    data = curves()
    for kind in ("png", "svg"):
        paths = [AccuracyAgainstEps().save(data, tmp_path / f"{i}.{kind}") for i in range(2)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_file_is_of_a_figure_of_the_table() -> None:
    assert figure_of("path_pixel") == "path" and title_of("path_pixel").endswith(": pixel")
    assert figure_of("grid_1_batch_size_momentum") == "grid"
    assert figure_of("data") == "data" and title_of("data") == FIGURES["data"].title
    assert figure_of("of_my_own") is None and title_of("of_my_own") == "Of my own"
    stems = ["own", "curves", "path_pixel", "triples", "data"]
    assert sorted(stems, key=place_of) == stems[::-1]


class Own(Figure[Outcomes]):
    """A figure of a user's package."""

    title: ClassVar[str] = "How often each class is predicted"
    group: ClassVar[str] = "evaluation"
    needs: ClassVar[type] = Outcomes

    def draw(self, data: Outcomes):
        figure = new_figure(4, 3, layout="constrained")
        figure.subplots().bar(range(data.classes), np.bincount(data.attacked))
        return figure


def test_a_figure_of_a_user_s_package_is_drawn_with_those_of_the_table(monkeypatch) -> None:
    check_figure(Own, outcomes())
    point = importlib.metadata.EntryPoint("own", f"{__name__}:Own", "tfrobust.figures")
    monkeypatch.setitem(FIGURES.__dict__, "_further", {"own": point.value})
    monkeypatch.setattr("tfrobust.tables.imported", lambda place, kind: Own
                        if place == point.value else _imported(place, kind))  # fmt: skip
    found = [name for name, _ in figures_for(outcomes(), "evaluation")]
    assert found == ["per_class", "confusion", "own"]
    assert title_of("own") == Own.title


# The colours.

# Of linear red, green and blue, what is seen without one kind of cone at all: Machado et al.
# (2009), https://doi.org/10.1109/TVCG.2009.113, table 1.
WITHOUT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB under D65."""
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
              [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip
    xyz = np.array(matrix) @ np.clip(linear, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour: str, matrix: np.ndarray) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return lab(matrix @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_the_first_colours_differ_for_every_kind_of_colour_vision(colours) -> None:
    for matrix in (np.eye(3), *map(np.array, WITHOUT.values())):
        first = [seen(colour, matrix) for colour in colours.series[:5]]
        for i, one in enumerate(first):
            for other in first[:i]:
                assert np.linalg.norm(one - other) > 11


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_their_ground(colours) -> None:
    for words in (colours.ink, colours.soft, colours.clean, colours.wrong):
        assert contrast(words, colours.ground) >= 4.5
    for line in (colours.attacked, colours.neutral):
        assert contrast(line, colours.ground) >= 3
