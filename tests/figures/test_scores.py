"""Figures of numbers: the top 5 in words, and the curves of deletion and insertion."""

from __future__ import annotations

import numpy as np

from tfrobust.figures.faithfulness import DeletionCurves, Faithfulness
from tfrobust.figures.gallery import ImagePairs
from tfrobust.figures.top5 import Top5

NAMES = ("goldfish, Carassius auratus", "cat", "$ bill", "dog", "tench", "eel", "newt")


def test_top5_tells_the_classes_in_order_and_the_true_one(said) -> None:
    x = np.zeros((1, 4, 4, 3), np.float32)
    clean = np.array([[0.4, 0.3, 0.15, 0.1, 0.03, 0.015, 0.005]])
    attacked = clean[:, ::-1]
    drawn = Top5().draw(ImagePairs(x, x, np.array([2]), clean, attacked, NAMES))
    assert {"clean", "adversarial"} <= set(said(drawn))
    # Each side is an image and its bars.
    bars = drawn.axes[1::2]
    words = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in bars]
    # Of synonyms in a row too long, the first.
    assert words[0] == ["goldfish", "cat", "$ bill", "dog", "tench"]
    assert words[1] == ["newt", "eel", "tench", "dog", "$ bill"]
    figures = [[text.get_text() for text in axes.texts] for axes in bars]
    assert figures == [["40%", "30%", "15%", "10%", "3%"]] * 2
    lengths = [bar.get_width() for bar in bars[0].patches]
    np.testing.assert_allclose(lengths, clean[0, :5])
    bold = [[t.get_text() for t in axes.get_yticklabels() if t.get_fontweight() == "bold"]
            for axes in bars]  # fmt: skip
    assert bold == [["$ bill"], ["$ bill"]]


def test_faithfulness_is_the_mean_over_images_of_each_model() -> None:
    deletion, insertion = np.array([[1.0, 0.5, 0.0], [0.8, 0.1, 0.0]]), np.zeros((2, 3))
    curves = {"a": {"saliency": (deletion, insertion), "random map": (insertion, deletion)},
              "b": {"saliency": (insertion, deletion)}}  # fmt: skip
    axes = Faithfulness().draw(DeletionCurves(curves)).axes
    titles = ["a: deletion", "a: insertion", "b: deletion", "b: insertion"]
    assert [one.get_title() for one in axes] == titles
    by_name = {line.get_label(): line.get_data() for line in axes[0].get_lines()}
    np.testing.assert_allclose(by_name["saliency"], [(0, 50, 100), (0.9, 0.3, 0)])
    np.testing.assert_allclose(by_name["random map"][1], [0, 0, 0])
    np.testing.assert_allclose(axes[3].get_lines()[0].get_data()[1], [0.9, 0.3, 0])
