"""Figures of maps: the red overlay, methods side by side, model against model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.evaluation.figures_canvas import (
    CELL,
    CLEAN,
    WRONG_WORD,
    class_word,
    image_at,
    label_width,
    new_figure,
    save,
    text_at,
)
from tfrobust.explain.saliency import heat, saliency, scale
from tfrobust.runtime import keras, tf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Methods of the comparison, and how the figure calls them.
SHOWN = {"smoothgrad": "SmoothGrad", "gradcam": "Grad-CAM"}
Explainer = Callable[[keras.Model, np.ndarray, np.ndarray], np.ndarray]
# Inches.
_GAP, _EDGE, _HEAD, _CAPTION = 0.07, 0.3, 1.15, 0.32
_RED = np.array([1.0, 0.0, 0.0], np.float32)


@dataclass(frozen=True)
class View:
    """N images as one model sees them.

    Attributes:
      x: float32 [N, H, W, 3] in [0, 1].
      predicted: int [N], the most confident class.
      confidence: float [N], its probability.
    """

    x: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @classmethod
    def of(cls, model: keras.Model, x: np.ndarray) -> View:
        """What the model says of images."""
        logits = tf.cast(model(tf.constant(x), training=False), tf.float32)
        probs = tf.nn.softmax(logits).numpy()
        return cls(x, probs.argmax(axis=1), probs.max(axis=1))


def overlaid(x: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Images with what counts in red: [N, H, W, 3] in [0, 1].

    The images lose colour first, so that red is nothing but the map; each map is scaled by
    its own 99th percentile (`scale`), so that the smallest gradients show.

    Args:
      x: float32 [N, H, W, 3] in [0, 1].
      maps: of an explainer, signed or 0 and more.
    """
    grey = x.mean(axis=-1, keepdims=True) * np.ones(3, np.float32)
    strength = 0.9 * scale(heat(maps))[..., None]
    return np.asarray((1 - strength) * (0.75 * grey + 0.25 * x) + strength * _RED)


def overlay_figure(
    model: keras.Model,
    x: np.ndarray,
    x_adv: np.ndarray,
    y: np.ndarray,
    label_names: Sequence[str],
    path: Path | str,
) -> Path:
    """The gradient of the most confident prediction over each image, clean and adversarial.

    Args:
      model: image in [0, 1] -> logits.
      x: float32 [N, H, W, 3] in [0, 1], N >= 1.
      x_adv: like x, made from it.
      y: int [N], the true labels.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.

    Raises:
      UsageError: the arrays do not belong together.
    """
    _check(x, x_adv, y)
    views = [View.of(model, one) for one in (x, x_adv)]
    reds = [overlaid(view.x, saliency(model, view.x, view.predicted)) for view in views]
    pair = 2 * CELL + _GAP
    width = 2 * _EDGE + 2 * pair + 0.3
    figure = new_figure(width, _HEAD + len(x) * (CELL + _CAPTION) + _EDGE)
    text_at(figure, _EDGE, 0.36, "Where the prediction is decided", size=15, weight="bold",
            ha="left")  # fmt: skip
    for column, (view, red, head) in enumerate(
        zip(views, reds, ("clean", "adversarial"), strict=True)
    ):
        left = _EDGE + column * (pair + 0.3)
        text_at(figure, left + pair / 2, _HEAD - 0.22, head, size=12, weight="bold")
        for row in range(len(x)):
            top = _HEAD + row * (CELL + _CAPTION)
            image_at(figure, left, top, view.x[row])
            image_at(figure, left + CELL + _GAP, top, red[row])
            _said(figure, left, top + CELL, view, row, int(y[row]), label_names)
    return save(figure, path)


def models_figure(
    models: Mapping[str, keras.Model],
    x: np.ndarray,
    adversarial: Mapping[str, np.ndarray],
    y: np.ndarray,
    label_names: Sequence[str],
    path: Path | str,
    *,
    methods: Mapping[str, str] = SHOWN,
    explainers: Mapping[str, Explainer] | None = None,
) -> Path:
    """Model against model and clean against adversarial, by several methods, in one figure.

    For each image there is a row for each model: the clean image's maps, then the image
    that an attack made for that model, and its maps; all of the class the model predicts.

    Args:
      models: name -> model; all of the same images and classes.
      x: float32 [N, H, W, 3] in [0, 1], N >= 1.
      adversarial: name of the model -> images like x that were made against it.
      y: int [N], the true labels.
      label_names: the classes' names, by label.
      path: the file; its suffix tells the format.
      methods: name in `EXPLAINERS` -> how the figure calls it.
      explainers: by name, where not those of the table.

    Raises:
      UsageError: the arrays do not belong together, or a method is unknown.
    """
    from tfrobust.explain import EXPLAINERS

    for name in models:
        _check(x, adversarial[name], y)
    asked = [(explainers or EXPLAINERS)[name] for name in methods]
    columns = 1 + len(methods)
    block = columns * (CELL + _GAP)
    row_high = CELL + _CAPTION
    group = len(models) * row_high + 0.18
    label = label_width(models, 10.5)
    figure = new_figure(_EDGE + label + 2 * block + 0.25 + _EDGE, _HEAD + len(x) * group + _EDGE)
    text_at(figure, _EDGE, 0.33, " and ".join(models), size=15, weight="bold", ha="left")
    for side, head in enumerate(("clean", "adversarial, made for that model")):
        left = _EDGE + label + side * (block + 0.25)
        _heads(figure, left, head, ("image", *methods.values()))
        for number, (name, model) in enumerate(models.items()):
            view = View.of(model, x if side == 0 else adversarial[name])
            found = [explain(model, view.x, view.predicted) for explain in asked]
            for row in range(len(x)):
                top = _HEAD + row * group + number * row_high
                if side == 0:
                    text_at(figure, _EDGE, top + 0.12, name, size=10.5, ha="left", va="top")
                image_at(figure, left, top, view.x[row])
                _said(figure, left, top + CELL, view, row, int(y[row]), label_names)
                for column, maps in enumerate(found, 1):
                    _map_at(figure, left + column * (CELL + _GAP), top, view.x[row], maps[row])
    return save(figure, path)


def _heads(figure: Figure, left: float, head: str, columns: Sequence[str]) -> None:
    """A block's head, and those of its columns."""
    width = len(columns) * (CELL + _GAP)
    text_at(figure, left + width / 2, 0.68, head, size=12, weight="bold")
    for column, word in enumerate(columns):
        centre = left + column * (CELL + _GAP) + CELL / 2
        text_at(figure, centre, _HEAD - 0.2, word, size=9.5, color="0.35")


def _map_at(figure: Figure, left: float, top: float, image: np.ndarray, found: np.ndarray) -> None:
    """A signed map in red and blue; a class-activation map over the image in grey."""
    if found.ndim == 3:
        summed = found.sum(axis=-1)[None]
        shown = np.sign(summed) * scale(np.abs(summed))
        _paint(figure, left, top, shown[0], cmap="RdBu_r", vmin=-1, vmax=1)
        return
    from matplotlib import colormaps

    strength = scale(found[None])[0]
    colours = colormaps["inferno"](strength)[..., :3]
    grey = image.mean(axis=-1, keepdims=True)
    image_at(figure, left, top, 0.4 * grey + 0.6 * colours)


def _paint(figure: Figure, left: float, top: float, values: np.ndarray, **options: Any) -> None:
    axes = image_at(figure, left, top, np.ones((1, 1, 3)))
    axes.clear()
    axes.set(xticks=[], yticks=[])
    axes.imshow(values, interpolation="nearest", **options)


def _said(
    figure: Figure, left: float, top: float, view: View, row: int, label: int,
    label_names: Sequence[str],
) -> None:  # fmt: skip
    right = view.predicted[row] == label
    words = class_word(label_names, int(view.predicted[row]), 22)
    text_at(
        figure, left, top + 0.13, f"{'✓' if right else '✗'} {words} · {view.confidence[row]:.0%}",
        size=9, ha="left", color=CLEAN if right else WRONG_WORD, weight="bold",
    )  # fmt: skip


def _check(x: np.ndarray, x_adv: np.ndarray, y: np.ndarray) -> None:
    if x.shape != x_adv.shape or x.ndim != 4 or len(y) != len(x) or len(x) == 0:
        raise UsageError(
            "Expected x and x_adv as [N, H, W, 3] and y as [N], N >= 1, found "
            f"{list(x.shape)}, {list(x_adv.shape)} and {list(y.shape)}."
        )
