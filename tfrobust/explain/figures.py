"""The figure: what a model looks at, in clean and in adversarial images side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.explain.saliency import parts, saliency, scale, smoothgrad, sum_channels
from tfrobust.runtime import keras, tf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPS = (
    "Classified correctly, also under attack",
    "Classified correctly, misclassified under attack",
    "Misclassified, even without an attack",
)

# Inches. At this resolution a cell is 256 dots: 4 a pixel at 64x64, 8 at 32x32.
_DPI = 200
_CELL, _GAP, _BLOCK_GAP = 1.28, 0.06, 0.28
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.6, 0.25, 1.3, 0.75
_CAPTION, _GROUP_TITLE = 0.42, 0.42
_BLOCKS = (4, 4, 1)
# Blue and vermilion of Okabe and Ito, told apart by every kind of colour vision.
_RIGHT_COLOUR, _WRONG_COLOUR = "#0072B2", "#C44601"


@dataclass(frozen=True)
class Examples:
    """Images to be shown, each with its adversarial one.

    Attributes:
      x: float32 [N, H, W, 3] in [0, 1], N >= 1.
      y: int [N], the true labels.
      x_adv: float32 [N, H, W, 3] in [0, 1], made from `x`.
    """

    x: np.ndarray
    y: np.ndarray
    x_adv: np.ndarray

    def __post_init__(self) -> None:
        shapes = [list(array.shape) for array in (self.x, self.y, self.x_adv)]
        fits = self.x.shape == self.x_adv.shape and self.y.shape == self.x.shape[:1]
        if not fits or self.x.ndim != 4 or self.x.shape[-1] != 3 or len(self.x) == 0:
            raise UsageError(
                "Expected x and x_adv as [N, H, W, 3] and y as [N], N >= 1, "
                f"found {shapes[0]}, {shapes[2]} and {shapes[1]}."
            )


def pick(
    y: np.ndarray,
    clean_pred: np.ndarray,
    adv_pred: np.ndarray,
    per_group: int,
    seed: int = 0,
) -> np.ndarray:
    """Draws examples for the figure: up to `per_group` of each of `GROUPS`, in that order.

    Args:
      y: int [N], the true labels.
      clean_pred: int [N], the classes predicted on the clean images.
      adv_pred: int [N], the classes predicted on the adversarial images.
      per_group: how many of each group; all where a group has fewer.
      seed: the same seed draws the same examples.

    Returns:
      int64 indices into `y`, without repetition; within a group in rising order.

    Raises:
      UsageError: lengths differ, `y` is empty, or `per_group` is below 1.
    """
    if not len(y) == len(clean_pred) == len(adv_pred) or len(y) == 0 or per_group < 1:
        raise UsageError(
            "Expected as many labels as clean and adversarial predictions, 1 or more, and "
            f"per_group >= 1, found {len(y)}, {len(clean_pred)}, {len(adv_pred)} and {per_group}."
        )
    generator = np.random.default_rng(seed)
    group = _group(y, clean_pred, adv_pred)
    members = [np.flatnonzero(group == number) for number in range(len(GROUPS))]
    drawn = [generator.permutation(each)[:per_group] for each in members]
    return np.concatenate([np.sort(each) for each in drawn])


def saliency_figure(
    model: keras.Model,
    examples: Examples,
    label_names: Sequence[str],
    path: Path | str,
    *,
    seed: int = 0,
) -> Path:
    """Draws the examples, a row each, grouped by `GROUPS`, and saves the figure.

    A row holds the clean image and the adversarial one, each with its predicted class
    and confidence and with three maps of that class's logit: the positive and the negative
    part of its gradient, and SmoothGrad; then the amplified difference of the images.

    Args:
      model: image in [0, 1], float32 [None, H, W, 3] -> logits [None, K].
      examples: what to show; a dozen fits a page (see `pick`).
      label_names: the K classes' names, by label; long ones are wrapped.
      path: the file; its suffix tells the format (.png, .pdf, .svg).
      seed: of SmoothGrad's noise.

    Returns:
      `path`.

    Raises:
      UsageError: images, labels or names do not fit the model.
      TFRobustError: a gradient is not finite.
    """
    _check(model, examples, label_names)
    logits = model(np.concatenate([examples.x, examples.x_adv]), training=False)
    probs = tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()
    sides = [
        _side(model, x, p, seed)
        for x, p in zip((examples.x, examples.x_adv), np.split(probs, 2), strict=True)
    ]
    group = _group(examples.y, sides[0].predicted, sides[1].predicted)
    figure = _draw(examples, sides, group, label_names)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    return path


@dataclass(frozen=True)
class _Side:
    """One half of every row: N images, what the model says of them, and the maps."""

    x: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    maps: tuple[np.ndarray, ...]


def _side(model: keras.Model, x: np.ndarray, probs: np.ndarray, seed: int) -> _Side:
    predicted = probs.argmax(axis=-1)
    positive, negative = parts(saliency(model, x, predicted))
    smooth = sum_channels(smoothgrad(model, x, predicted, seed=seed))
    maps = (
        scale(sum_channels(positive)),
        -scale(sum_channels(negative)),
        np.sign(smooth) * scale(np.abs(smooth)),
    )
    return _Side(x, predicted, probs.max(axis=-1), maps)


def _group(y: np.ndarray, clean_pred: np.ndarray, adv_pred: np.ndarray) -> np.ndarray:
    return np.where(clean_pred != y, 2, np.where(adv_pred != y, 1, 0))


def _check(model: keras.Model, examples: Examples, label_names: Sequence[str]) -> None:
    shape, classes = list(model.input_shape[1:]), model.output_shape[-1]
    if list(examples.x.shape[1:]) != shape:
        raise UsageError(
            f"Expected images {shape}, as the model takes them, found "
            f"{list(examples.x.shape[1:])}: resize them, or choose the model's own data."
        )
    if len(label_names) != classes or not (0 <= examples.y.min() <= examples.y.max() < classes):
        raise UsageError(
            f"Expected {classes} label names, one a class, and labels below {classes}, found "
            f"{len(label_names)} names and labels {examples.y.min()} to {examples.y.max()}: "
            "choose the data that the model was trained on."
        )


def _draw(
    examples: Examples, sides: Sequence[_Side], group: np.ndarray, label_names: Sequence[str]
) -> Figure:
    from matplotlib.figure import Figure

    rows = len(group) * (_CELL + _CAPTION) + len(np.unique(group)) * _GROUP_TITLE
    figure = Figure(figsize=(list(_lefts())[-1] + _CELL + _RIGHT, _TOP + rows + _BOTTOM))
    delta = examples.x_adv - examples.x
    # Grey is no change; the largest change just reaches black or white.
    factor = max(1, int(0.5 / max(float(np.abs(delta).max()), 1e-3) + 1e-3))
    _draw_header(figure, factor)
    top = _TOP
    for number in np.unique(group):
        _text(figure, 0.25, top + 0.18, GROUPS[number], size=13, weight="bold", ha="left")
        top += _GROUP_TITLE
        for row in map(int, np.flatnonzero(group == number)):
            _draw_row(figure, top, row, examples.y[row], sides, label_names)
            _show(figure, list(_lefts())[-1], top, np.clip(0.5 + factor * delta[row], 0, 1))
            top += _CELL + _CAPTION
    _draw_legend(figure)
    return figure


def _draw_header(figure: Figure, factor: int) -> None:
    lefts = list(_lefts())
    _text(figure, 0.25, 0.33, "What the model looks at", size=20, weight="bold", ha="left")
    for block, head in enumerate(("clean", "adversarial", "difference")):
        first = sum(_BLOCKS[:block])
        centre = (lefts[first] + lefts[first + _BLOCKS[block] - 1] + _CELL) / 2
        _text(figure, centre, 0.85, head, size=13, weight="bold")
    columns = (*("image", "positive", "negative", "SmoothGrad") * 2, f"amplified {factor}×")
    for left, name in zip(lefts, columns, strict=True):
        _text(figure, left + _CELL / 2, 1.12, name, size=9.5, color="0.35")


def _draw_row(
    figure: Figure,
    top: float,
    row: int,
    label: int,
    sides: Sequence[_Side],
    label_names: Sequence[str],
) -> None:
    lefts = _lefts()
    words = _words(label_names[label], 14, 4)
    _text(figure, 0.25, top + 0.06, "true class", size=8.5, ha="left", color="0.45")
    _text(figure, 0.25, top + 0.19, words, size=11, ha="left", va="top")
    for side in sides:
        left = next(lefts)
        _show(figure, left, top, side.x[row])
        _prediction(figure, left, top + _CELL, side, row, label, label_names)
        for maps in side.maps:
            _show(figure, next(lefts), top, maps[row], cmap="RdBu_r", vmin=-1, vmax=1)


def _prediction(
    figure: Figure,
    left: float,
    top: float,
    side: _Side,
    row: int,
    label: int,
    label_names: Sequence[str],
) -> None:
    right = side.predicted[row] == label
    words = _words(label_names[side.predicted[row]], 30, 1)
    text = f"{'✓' if right else '✗'} {words} · {side.confidence[row]:.0%}"
    colour = _RIGHT_COLOUR if right else _WRONG_COLOUR
    _text(figure, left, top + 0.14, text, size=10, ha="left", color=colour, weight="bold")


def _draw_legend(figure: Figure) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    lefts, (width, height) = list(_lefts()), figure.get_size_inches()
    area = ((lefts[0] + 0.1) / width, 0.36 / height, 2.4 / width, 0.12 / height)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), "RdBu_r"),
        cax=figure.add_axes(area),
        orientation="horizontal",
        ticks=[-1, 0, 1],
    )
    bar.ax.set_xticklabels(["negative", "0", "positive"], fontsize=8.5)
    bar.outline.set_visible(False)
    note = (
        "Maps: gradient of the predicted class's logit. Where it is positive (red), brighter\n"
        "pixels raise the logit; where it is negative (blue), they lower it. Each map is scaled\n"
        "to its own 99th percentile, so the strengths of two maps do not compare."
    )
    _text(figure, lefts[2] + 0.25, height - 0.42, note, size=9, ha="left", color="0.35")


def _lefts() -> Iterator[float]:
    left = _LEFT
    for columns in _BLOCKS:
        for _ in range(columns):
            yield left
            left += _CELL + _GAP
        left += _BLOCK_GAP - _GAP


def _show(figure: Figure, left: float, top: float, image: np.ndarray, **options: Any) -> None:
    width, height = figure.get_size_inches()
    area = (left / width, 1 - (top + _CELL) / height, _CELL / width, _CELL / height)
    axes = figure.add_axes(area, xticks=[], yticks=[])
    axes.spines[:].set(color="0.75", linewidth=0.5)
    axes.imshow(image, interpolation="nearest", **options)


def _text(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    width, height = figure.get_size_inches()
    # Class words may hold dollar signs, which would be read as mathematics.
    settings = {"ha": "center", "va": "center", "parse_math": False, **options}
    figure.text(left / width, 1 - top / height, text, **settings)


def _words(name: str, width: int, lines: int) -> str:
    """The name on at most `lines` lines; of synonyms in a row too long, the first."""
    if len(name) > width * lines:
        name = name.split(",")[0]
    return "\n".join(textwrap.wrap(name, width, max_lines=lines, placeholder="…"))
