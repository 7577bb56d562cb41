"""What the evaluation's figures show."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.results import AttackResult, Outcome
from tfrobust.chance import wilson
from tfrobust.errors import UsageError
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.evaluation.report import RobustnessReport
from tfrobust.figures.accuracy_curves import (
    AccuracyAgainstEps,
    AccuracyAgainstSteps,
    AccuracyCurve,
    EpsCurves,
    StepsCurves,
)
from tfrobust.figures.attack_path import AttackPath, RecordedPath, resting_step
from tfrobust.figures.by_class import AccuracyByClass
from tfrobust.figures.confusion import Confusion
from tfrobust.figures.figure import dark_path, encoded
from tfrobust.figures.gallery import Gallery, ImagePairs
from tfrobust.figures.outcomes import class_scores, confusion
from tfrobust.jobs import evaluation_figures as figures
from tfrobust.threat_model import ThreatModel

EPS = 8 / 255
BALL = ThreatModel("linf", EPS)


def curve(name, values, correct):
    return AccuracyCurve(name, values, correct, 100)


def against_eps(*curves):
    return AccuracyAgainstEps().draw(EpsCurves(curves, "linf", EPS, 0.1)).axes[0]


def lines(axes):
    return {line.get_label(): np.array(line.get_data()) for line in axes.get_lines()}


def test_the_eps_figure_shows_curves_bands_eps_and_chance():
    first = curve("a", (0.0, 4 / 255, 8 / 255), (90, 60, 20))
    axes = against_eps(first, curve("b", (0.0, 8 / 255, 16 / 255), (80, 40, 0)))
    np.testing.assert_allclose(lines(axes)["a"], [(0, 4, 8), (0.9, 0.6, 0.2)])
    np.testing.assert_allclose(lines(axes)["b"], [(0, 8, 16), (0.8, 0.4, 0.0)])
    band = axes.collections[0].get_paths()[0].vertices
    for x, count in ((0, 90), (4, 60), (8, 20)):
        np.testing.assert_allclose(
            sorted(set(band[np.isclose(band[:, 0], x), 1])), wilson(count, 100)
        )
    styles = {line.get_linestyle(): np.array(line.get_data(), float) for line in axes.get_lines()}
    np.testing.assert_allclose(styles["--"][0], 8)
    np.testing.assert_allclose(styles[":"][1], 0.1)
    texts = [text.get_text() for text in axes.texts]
    assert sorted(texts) == ["eps 8/255", "guessing, 0.1"]
    # Between the axes and the title, where no legend lies.
    FigureCanvasAgg(axes.figure).draw()
    eps = axes.texts[0].get_window_extent()
    assert axes.get_window_extent().y1 <= eps.y0 and eps.y1 <= axes.title.get_window_extent().y0
    assert axes.get_xlabel() == "eps, L∞ (k/255)" and axes.get_xscale() == "linear"
    assert axes.get_legend().get_title().get_text() == "100 images"


def test_a_far_reaching_curve_is_drawn_on_doublings():
    axes = against_eps(curve("a", (0.0, 2 / 255, 8 / 255, 128 / 255), (90, 60, 20, 1)))
    assert axes.get_xscale() == "symlog"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "2", "8", "128"]


def test_the_steps_figure_names_clean_and_the_steps():
    steps = curve("PGD", (0.0, 1.0, 10.0, 100.0), (90, 60, 20, 20))
    axes = AccuracyAgainstSteps().draw(StepsCurves([steps], "linf", EPS, 0.1)).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["clean", "1", "10", "100"]
    np.testing.assert_allclose(lines(axes)["PGD"], [(0, 1, 10, 100), (0.9, 0.6, 0.2, 0.2)])
    assert "eps 8/255" in axes.get_xlabel()


def test_curves_that_do_not_go_together_are_refused():
    for curves in ((), (curve("a", (0.0, 1.0), (1,)),)):
        with pytest.raises(UsageError):
            EpsCurves(curves, "linf", EPS, 0.1)


def report_of(y, clean, attacked):
    """A report whose predictions are given."""
    outcomes = [
        Outcome(np.array(p), np.ones(len(y)), np.array(p) == np.array(y), np.array(p) == y)
        for p in (clean, attacked)
    ]
    result = AttackResult("pgd", BALL, {}, outcomes[1], len(y), 1, 1, 0.0)
    return RobustnessReport("m", BALL, np.array(y), outcomes[0], (result,))


#: Class 0: 4 images, clean 3, robust 1. Class 1: 2 images, 2 and 2. Class 3: 1 image, 0.
SMALL = report_of([0, 0, 0, 0, 1, 1, 3], [0, 0, 0, 1, 1, 1, 0], [0, 3, 1, 1, 1, 1, 0])


def test_class_scores_are_sorted_by_robust_accuracy():
    scores = class_scores(SMALL.outcomes("abcd"))
    assert scores.labels.tolist() == [1, 0, 3] and scores.images.tolist() == [2, 4, 1]
    assert scores.clean.tolist() == [2, 3, 0] and scores.robust.tolist() == [2, 1, 0]


def test_the_class_figure_shows_both_accuracies():
    axes = AccuracyByClass().draw(SMALL.outcomes(("$a", "$b", "c", "d"))).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["$b  (2)", "$a  (4)", "d  (1)"]
    np.testing.assert_allclose(lines(axes)["clean"], [(1, 0.75, 0), (0, 1, 2)])
    np.testing.assert_allclose(lines(axes)["under attack"], [(1, 0.25, 0), (0, 1, 2)])
    interval = axes.collections[0].get_segments()[1]
    np.testing.assert_allclose(interval[:, 0], wilson(1, 4))
    means = {
        float(line.get_xdata()[0]) for line in axes.get_lines() if line.get_linestyle() == "--"
    }
    assert means == {5 / 7, 3 / 7}


def test_of_many_classes_the_ends_are_named_and_all_are_shown():
    # Class k has 40 images, of which k withstand.
    y = np.repeat(np.arange(40), 40)
    attacked = np.where(np.tile(np.arange(40), 40) < y, y, (y + 1) % 40)
    report = report_of(y, y, attacked)
    names = [f"class-{k}" for k in range(40)]
    every, best, worst = AccuracyByClass().draw(report.outcomes(names)).axes
    np.testing.assert_allclose(lines(every)["under attack"][1], np.arange(40)[::-1] / 40)
    assert [t.get_text().split()[0] for t in best.get_yticklabels()] == [
        f"class-{k}" for k in range(39, 24, -1)
    ]
    assert [t.get_text().split()[0] for t in worst.get_yticklabels()] == [
        f"class-{k}" for k in range(14, -1, -1)
    ]
    np.testing.assert_allclose(lines(worst)["under attack"][0], np.arange(14, -1, -1) / 40)


def test_confusion_is_a_matrix_in_per_cent():
    clean, attacked = confusion(SMALL.outcomes("abcd"))
    assert clean[0].tolist() == [3, 1, 0, 0] and attacked[0].tolist() == [1, 2, 0, 1]
    assert clean.sum() == attacked.sum() == 7
    axes = Confusion().draw(SMALL.outcomes("abcd")).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    # Column, row: what was predicted, the truth.
    assert cells == {
        (0, 0): "25", (1, 0): "50", (3, 0): "25", (1, 1): "100", (0, 3): "100",
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_yticklabels() if label.get_text()] == list(
        "abcd"
    )


def test_a_class_that_the_names_lack_goes_by_its_number():
    axes = Confusion().draw(SMALL.outcomes("ab")).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert [label for label in labels if label] == ["a", "b", "class 2", "class 3"]


def test_of_many_classes_the_commonest_confusions_are_bars():
    # 0 -> 1 twice, once already when clean; 5 -> 6 three times, by the attack only.
    report = report_of([0, 0, 0, 0, 5, 5, 5], [0, 1, 0, 0, 5, 5, 5], [0, 1, 1, 0, 6, 6, 6])
    axes = Confusion().draw(report.outcomes([f"n{k}" for k in range(30)])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["n5 → n6", "n0 → n1"]
    before, added = ([bar.get_width() for bar in group] for group in axes.containers)
    assert before == [0, 1] and added == [3, 1]
    notes = [text.get_text() for text in axes.texts]
    assert notes == ["3  (100% of the class)", "2  (50% of the class)"]


def test_triples_show_images_classes_and_the_amplified_difference():
    x = np.full((2, 4, 4, 3), 0.5, np.float32)
    x_adv = x.copy()
    x_adv[0] += 4 / 255
    x_adv[1, 0, 0] -= 4 / 255
    y = np.array([0, 1])
    p_clean = np.array([[0.9, 0.1], [0.75, 0.25]])
    p_adv = np.array([[0.4, 0.6], [0.25, 0.75]])
    drawn = Gallery().draw(ImagePairs(x, x_adv, y, p_clean, p_adv, ("cat", "$")))
    texts = [text.get_text() for text in drawn.texts]
    # 0.5 / (4 / 255) = 31.9
    assert texts.count("difference × 31") == 2 and texts.count("at most 4/255") == 2
    for words in ("✓ cat", "90%", "✗ $", "60%", "✗ cat", "true class: $", "✓ $"):
        assert words in texts, words
    shown = [np.asarray(axes.images[0].get_array()) for axes in drawn.axes]
    np.testing.assert_allclose(shown[1], x_adv[0])
    np.testing.assert_allclose(shown[2], 0.5 + 31 * 4 / 255, atol=1e-5)
    np.testing.assert_allclose(shown[5][0, 0], 0.5 - 31 * 4 / 255, atol=1e-5)
    np.testing.assert_allclose(shown[5][1:], 0.5)


def test_a_difference_is_written_as_its_eps_was():
    x = np.full((1, 4, 4, 3), 0.5, np.float32)
    for eps, words in ((0.1, "at most 0.1"), (8 / 255, "at most 8/255")):
        p = np.array([[0.9, 0.1]])
        drawn = Gallery().draw(ImagePairs(x, x + np.float32(eps), np.array([0]), p, p, "ab"))
        assert words in [text.get_text() for text in drawn.texts]


def test_triples_that_do_not_belong_together_are_refused():
    x, p = np.zeros((2, 4, 4, 3)), np.ones((2, 2)) / 2
    with pytest.raises(UsageError, match=r"found \[2, 4, 4, 3\], \[1, 4, 4, 3\]"):
        ImagePairs(x, x[:1], np.zeros(2), p, p, ("a", "b"))


def test_a_path_is_shown_until_it_rests():
    x = np.full((10, 10, 3), 0.5, np.float32)
    steps = np.repeat(x[None], 31, axis=0)
    moved = np.minimum(np.arange(31), 14)
    steps[:, 2, 3, 0] += moved / 100
    p_true = 1 - moved / 20
    probabilities = np.stack([p_true, 1 - p_true], axis=1)
    assert resting_step(steps) == 14
    path = RecordedPath(steps, x, 0, probabilities, ("cat", "dog"), "Title")
    drawn = AttackPath().draw(path)
    texts = [text.get_text() for text in drawn.texts]
    heads = [text for text in texts if text.startswith("step ")]
    assert heads == ["step 2", "step 4", "step 6", "step 8", "step 10", "step 12", "step 14"]
    assert texts[0] == "Title" and texts.count("✗ dog") == 2 and "1 pixels, L2 0.14" not in texts
    assert "1 pixel, L2 0.14" in texts and "difference × 3" in texts
    images = [axes for axes in drawn.axes if axes.images]
    # The clean image, then eight steps with their difference below.
    assert len(images) == 1 + 2 * 8
    np.testing.assert_allclose(images[-2].images[0].get_array(), steps[14])
    np.testing.assert_allclose(images[-1].images[0].get_array()[2, 3, 0], 0.5 + 3 * 0.14, atol=1e-6)
    curves = lines(drawn.axes[-1])
    np.testing.assert_allclose(curves["cat"], [range(15), p_true[:15]])
    np.testing.assert_allclose(curves["dog"], [range(15), 1 - p_true[:15]])
    (fell,) = [line for line in drawn.axes[-1].get_lines() if line.get_linestyle() == "--"]
    assert fell.get_xdata()[0] == 11  # The first step at which p(cat) is below a half.


def test_all_figures_of_an_evaluation(linear, monkeypatch, tmp_path):
    evaluator, radii = linear
    monkeypatch.setattr(figures, "STEPS", (1, 2))
    # Small files: what is in them is looked at above.
    monkeypatch.setattr(encoded, "__defaults__", (20,))
    drawn = {}
    draw_figures = figures.draw_figures

    def keep(data, *args, **options):
        drawn[type(data).__name__] = data
        return draw_figures(data, *args, **options)

    monkeypatch.setattr(figures, "draw_figures", keep)
    attacks = {"pgd": PGD(steps=3)}
    report = evaluate(evaluator.logits, evaluator.data, BALL, attacks)
    files = figures.evaluation_figures(evaluator, attacks, report, ("no", "yes"), tmp_path, seed=1)
    assert [file.name for file in files] == [
        "curves.json", "accuracy_against_eps.png", "accuracy_against_steps.png", "per_class.png",
        "confusion.png", "triples.png", "path_optimised-noise.png", "path_pixel.png",
    ]  # fmt: skip
    assert sorted(files) == sorted(path for path in tmp_path.iterdir() if path.is_file())
    assert all(dark_path(path).is_file() for path in files[1:])
    data = json.loads(files[0].read_text())
    points = data["eps"]["PGD, 20 steps"]["points"]
    for point in points:
        assert point["accuracy"] == pytest.approx((radii > point["eps"]).mean(), abs=1e-6)
    # Eight images, six broken and two that withstood: 6 + 8 + 2 right or wrong captions.
    texts = Gallery().draw(drawn["ImagePairs"]).texts
    captions = [text for text in texts if text.get_text()[0] in "✓✗"]
    wrong = [text for text in captions if text.get_text().startswith("✗")]
    assert len(captions) == 16 and len(wrong) == 6
    assert {to_hex(text.get_color()) for text in wrong} == {"#c44601"}
    pixel = [text.get_text() for text in AttackPath().draw(drawn["RecordedPath"]).texts]
    assert any(text.startswith("1 pixel") for text in pixel)


def test_triples_are_drawn_from_both_kinds():
    y = np.zeros(20, int)
    for kept, broken, expected in (
        (10, 10, (6, 2)),
        (10, 3, (3, 5)),
        (1, 10, (7, 1)),
        (0, 4, (4, 0)),
    ):
        attacked = np.where(np.arange(20) < kept, 0, 1)
        clean = np.where(np.arange(20) < kept + broken, 0, 1)
        index = figures.pick_triples(report_of(y, clean, attacked), seed=0)
        stood = (index < kept).sum()
        assert (len(index) - stood, stood) == expected
        assert len(set(index)) == len(index) and index.max() < kept + broken
