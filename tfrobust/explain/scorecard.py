"""The scorecard of a model: every measure of every explanation method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrobust.explain import measures
from tfrobust.explain.measure_names import COLUMNS
from tfrobust.explain.saliency import heat
from tfrobust.explain.table import EXPLAINERS
from tfrobust.io import csv_text
from tfrobust.runtime import keras

#: A map without information, which every method has to beat.
RANDOM = "random map"
# Images per batch: the maps of a batch are in memory together.
_BATCH = 32


@dataclass(frozen=True)
class Scorecard:
    """The scores of one method's maps on one model.

    Attributes:
      method: name in `EXPLAINERS`, or `RANDOM`.
      values: name in `COLUMNS` -> float [N], one value per image; measures that do not apply are
        missing, or NaN for images to which they do not apply.
      curves: deletion and insertion, each float [N, steps + 1].
    """

    method: str
    values: Mapping[str, np.ndarray]
    curves: tuple[np.ndarray, np.ndarray]

    def images(self, column: str) -> int:
        """The number of images that a column is measured on."""
        return len(self._known(column))

    def mean(self, column: str) -> tuple[float, float] | None:
        """Mean and half-width of its 95 % interval (normal); None if not measured."""
        from scipy.stats import norm, sem

        values = self._known(column)
        if not len(values):
            return None
        half = norm.ppf(0.975) * sem(values) if len(values) > 1 else 0.0
        return float(values.mean()), float(half)

    def _known(self, column: str) -> np.ndarray:
        values = np.asarray(self.values.get(column, ()), float)
        return values[~np.isnan(values)]


def measure(
    model: keras.Model,
    x: np.ndarray,
    x_adv: np.ndarray,
    methods: Sequence[str],
    *,
    attacked: np.ndarray | None = None,
    steps: int = 20,
    seed: int = 0,
    explainers: Mapping[str, measures.Explainer] | None = None,
    on_method: Callable[[str], Any] | None = None,
) -> list[Scorecard]:
    """Scores methods on images and on their adversarial images.

    The explained class is the one that the model predicts on the clean image, for the adversarial
    one too: otherwise the two maps would not be comparable.

    Args:
      model: a flat functional model, image in [0, 1] -> logits.
      x: float32 [N, H, W, 3] in [0, 1].
      x_adv: like x, crafted against the model.
      methods: names in `EXPLAINERS`.
      attacked: bool [N], which images were attacked; None is all. For the others, whose
        adversarial image is the clean one, stability is skipped: it would be 1.
      steps: of deletion and insertion.
      seed: of the random map and the random weights.
      explainers: by name, to use instead of the table's.
      on_method: called with each method's name before it is measured.

    Returns:
      One for each method, and last that of a random map.

    Raises:
      UsageError: a method is unknown, or the images do not match the model.
    """
    target = np.concatenate([
        np.argmax(model(x[part], training=False), axis=-1) for part in _parts(len(x))
    ])  # fmt: skip
    found = []
    for name in methods:
        explain = (explainers or EXPLAINERS)[name]
        if on_method:
            on_method(name)
        batches = [
            _measured(name, explain, model, x[part], x_adv[part], target[part], steps, seed)
            for part in _parts(len(x))
        ]
        found.append(_without_unattacked(_joined(name, batches), attacked))
    noise = np.random.default_rng(seed).random(x.shape[:3], np.float32)
    curves = [_faithfulness(model, x[p], target[p], noise[p], steps) for p in _parts(len(x))]
    return [*found, _joined(RANDOM, [({}, pair) for pair in curves])]


Measured = tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _measured(
    name: str, explain: measures.Explainer, model: keras.Model, x: np.ndarray, x_adv: np.ndarray,
    target: np.ndarray, steps: int, seed: int,
) -> Measured:  # fmt: skip
    maps = explain(model, x, target)
    values = {"stability": measures.stability(maps, explain(model, x_adv, target))}
    random = measures.randomisation(explain, model, x, target, seed=seed)
    values |= {f"random_{part}": alike for part, alike in random.items()}
    if getattr(explain, "complete", False):
        values["completeness"] = measures.completeness(model, x, target, maps)
    return values, _faithfulness(model, x, target, heat(maps), steps)


def _faithfulness(
    model: keras.Model, x: np.ndarray, target: np.ndarray, hot: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    arguments = (model, x, target, hot)
    return measures.deletion(*arguments, steps=steps), measures.insertion(*arguments, steps=steps)


def _joined(method: str, batches: Sequence[Measured]) -> Scorecard:
    first, second = (np.concatenate([pair[kind] for _, pair in batches]) for kind in (0, 1))
    values = {"deletion": measures.area(first), "insertion": measures.area(second)}
    for column in batches[0][0]:
        values[column] = np.concatenate([of[column] for of, _ in batches])
    return Scorecard(method, values, (first, second))


def _without_unattacked(card: Scorecard, attacked: np.ndarray | None) -> Scorecard:
    """The scorecard without the stability of images that were not attacked."""
    if attacked is None:
        return card
    stability = np.where(attacked, card.values["stability"], np.nan)
    return dataclasses.replace(card, values={**card.values, "stability": stability})


def _parts(count: int) -> Iterator[slice]:
    return (slice(begin, begin + _BATCH) for begin in range(0, count, _BATCH))


def as_csv(table: Mapping[str, Sequence[Scorecard]]) -> str:
    """Models and methods as rows, with the mean and half-interval of each column.

    'images' is the sample size of all columns but stability, 'attacked' that of stability.
    """
    heads = [head for column in COLUMNS for head in (column, f"{column}_95")]
    lines: list[list[Any]] = []
    for model, rows in table.items():
        for row in rows:
            cells: list[str] = []
            for column in COLUMNS:
                pair = row.mean(column)
                cells += ["", ""] if pair is None else [f"{value:.4f}" for value in pair]
            attacked = row.images("stability") if "stability" in row.values else ""
            lines.append([model, row.method, len(row.curves[0]), attacked, *cells])
    return csv_text(["model", "method", "images", "attacked", *heads], lines)


def as_text(table: Mapping[str, Sequence[Scorecard]]) -> str:
    """The table as text, followed by the meaning of its columns."""
    wide = max(len(model) for model in table) + 2
    lines = [f"{'':{wide}}{'':22}" + "".join(f"{column:>14}" for column in COLUMNS)]
    for model, rows in table.items():
        for row in rows:
            cells = (row.mean(column) for column in COLUMNS)
            texts = ("" if one is None else f"{one[0]:.3f} ±{one[1]:.3f}" for one in cells)
            lines.append(f"{model:{wide}}{row.method:22}" + "".join(f"{t:>14}" for t in texts))
    lines += [f"{column}: {meaning}" for column, meaning in COLUMNS.items()]
    return "\n".join([*lines, *_left_out(table)])


def _left_out(table: Mapping[str, Sequence[Scorecard]]) -> Iterator[str]:
    """Notes on models whose stability is measured on only some of the images."""
    for model, rows in table.items():
        known, total = rows[0].images("stability"), len(rows[0].curves[0])
        if known < total:
            yield (
                f"{model}: stability is measured on {known} of the {total} images; the others are "
                "misclassified without an attack, and were not attacked"
            )
