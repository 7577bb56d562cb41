"""Sets of adversarial images, made from images that a model classifies correctly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tfrobust.attacks.runner import run
from tfrobust.data.perturbed import Source
from tfrobust.data.types import ImageSet
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.models.classifier import as_classifier
from tfrobust.models.inference import attackable, inference
from tfrobust.progress import Progress
from tfrobust.runtime import tf
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack, Tensor

_NORMS = ("linf", "l2", "l0")


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """What one perturbed set is to be.

    Attributes:
      name: of the set, and of its file.
      split: 'train' or 'test', where its images come from.
      size: how many adversarial images, at least 1.
      attack_name: of the attack, in the manifest.
      attack: the attack.
      threat_model: the ball that it must stay in.

    Raises:
      UsageError: another split, or a size below 1.
    """

    name: str
    split: str
    size: int
    attack_name: str
    attack: Attack
    threat_model: ThreatModel

    def __post_init__(self) -> None:
        if self.split not in ("train", "test") or self.size < 1:
            raise UsageError(
                f"Set {self.name}: expected the split train or test and a size of at least 1, "
                f"found {self.split!r} and {self.size}."
            )


@dataclass(frozen=True)
class PerturbedSet:
    """A set as it was made.

    Attributes:
      plan: what it was to be.
      images: the adversarial images, float32 in [0, 1]; labels are those of the sources.
      sources: SHA-256 of the image that each was made from.
      rows: one record for each image, plain values.
      tried: correctly classified images that were attacked.
      wrong: images passed over because the model misclassifies them anyway.
      end: place in the source's order after the last image that was looked at.
    """

    plan: SetPlan
    images: ImageSet
    sources: list[str]
    rows: list[dict[str, Any]]
    tried: int
    wrong: int
    end: int

    @property
    def fool_rate(self) -> float:
        """The part of the attacked images that the attack turned; 0 where none was."""
        return len(self.rows) / self.tried if self.tried else 0.0


class _Judged(NamedTuple):
    """What the model says of images: its class [M] and the confidence in it [M]."""

    predictions: np.ndarray
    confidences: np.ndarray


class _Attacked(NamedTuple):
    """What became of images [M]: the image, whether it turned the model, the verdict, norms."""

    x_adv: np.ndarray
    success: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    linf: np.ndarray
    l2: np.ndarray
    l0: np.ndarray


@dataclass
class _Draft:
    """A set while it is being made."""

    pixels: np.ndarray
    rows: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    tried: int = 0
    wrong: int = 0

    @property
    def room(self) -> int:
        return len(self.pixels) - len(self.rows)


class Perturber:
    """Makes perturbed sets with one model.

    Only images that the model classifies correctly are attacked. What comes back is
    projected onto the ball and counts only if it lies in it (to 1e-6) and the model
    itself misclassifies it; an image that withstands is left out and counted, and the
    next one is taken.

    Guarantee: a set depends on the model, the plan, the source, where it begins,
    `batch_size` and `seed` alone.

    Args:
      model: a Keras model or any callable, [0, 1] images float32 [B, H, W, 3] ->
        logits [B, K].
      batch_size: images in a batch.
      seed: of the attacks' random draws.
    """

    def __init__(self, model: Any, *, batch_size: int = 128, seed: int = 42) -> None:
        self.batch_size, self.seed = batch_size, seed
        self._model: Any = model
        self._attacks: dict[Any, Callable[..., Any]] = {}
        self._classify: Any = None

    def make(self, plan: SetPlan, source: Source, first: int = 0) -> PerturbedSet:
        """The set, or as much of it as the source has images for.

        Args:
          plan: what to make.
          source: what to make it from.
          first: place in the source's order to begin at: the `end` of the set before
            keeps the two disjoint.

        Raises:
          TFRobustError: the model has too few classes, or does not take the images.
        """
        data, end = source.data, first
        if self._classify is None:
            self._model = as_classifier(self._model, data.pixels(slice(0, 64)))
            spec = tf.TensorSpec([None, *data.image_shape], tf.float32)
            self._classify = tf.function(self._classified, input_signature=[spec], autograph=False)
        room = min(plan.size, max(len(source.order) - first, 0))
        draft = _Draft(np.empty((room, *data.image_shape), np.float32))
        attack = self._attack_of(plan, data.image_shape)
        progress = Progress(plan.name, room)
        while draft.room and end < len(source.order):
            end += self._one_batch(source, end, draft, plan, attack)
            progress.update(len(draft.rows))
        progress.close()
        chosen = np.array(draft.chosen, int)
        images = ImageSet(
            images=draft.pixels[: len(chosen)],
            labels=data.labels[chosen].astype(np.int32),
            label_names=data.label_names,
            names=tuple(row["source"] for row in draft.rows),
        )
        made_from = [source.digests[row] for row in chosen]
        return PerturbedSet(plan, images, made_from, draft.rows, draft.tried, draft.wrong, end)

    def _one_batch(
        self, source: Source, first: int, draft: _Draft, plan: SetPlan, attack: Callable[..., Any]
    ) -> int:
        """Attacks the next images of the source; returns how many were used up."""
        index = source.order[first : first + self.batch_size]
        x, y = source.data.pixels(index), source.data.labels[index].astype(np.int32)
        clean = self._clean(x, y)
        right = clean.predictions == y
        # Wrong ones keep their place, so that one index serves all; they are not attacked.
        found = self._attacked(x, y, right, first, plan, attack)
        taken = np.flatnonzero(found.success)[: draft.room]
        full = len(taken) == draft.room
        used = int(taken[-1]) + 1 if full else len(index)
        draft.tried += int(right[:used].sum())
        draft.wrong += int((~right[:used]).sum())
        draft.pixels[len(draft.rows) :][: len(taken)] = found.x_adv[taken]
        draft.chosen += index[taken].tolist()
        for place in taken:
            record = _record(source, int(index[place]), clean, found, int(place))
            draft.rows.append({"set": plan.name, "index": len(draft.rows), **record})
        return used

    def _clean(self, x: np.ndarray, y: np.ndarray) -> _Judged:
        logits, *verdict = self._classify(tf.constant(x))
        if y.max() >= logits.shape[1]:
            raise TFRobustError(
                f"The data has labels up to {y.max()}, but the model knows {logits.shape[1]} "
                "classes: use the data set that it was trained for."
            )
        if not np.isfinite(logits.numpy()).all():
            raise TFRobustError("The model returns NaN or infinity on clean images.")
        return _Judged(*(value.numpy() for value in verdict))

    def _attacked(
        self,
        x: np.ndarray,
        y: np.ndarray,
        right: np.ndarray,
        first: int,
        plan: SetPlan,
        attack: Callable[..., Any],
    ) -> _Attacked:
        """Restart after restart, each on the active rows."""
        count = len(y)
        best = _Attacked(
            x.copy(), np.zeros(count, bool), y.copy(), *np.zeros((4, count), np.float32)
        )
        for restart in range(plan.attack.restarts):
            active = np.flatnonzero(right & ~best.success)
            if not len(active):
                break
            seed = tf.constant([self.seed + restart, first], tf.int32)
            found = attack(tf.constant(x[active]), tf.constant(y[active]), seed)
            for whole, part in zip(best, found, strict=True):
                whole[active] = part.numpy()
        return best

    def _attack_of(self, plan: SetPlan, shape: tuple[int, int, int]) -> Callable[..., Any]:
        """One compiled function for all sets with the same attack and ball."""
        key = (plan.attack, plan.threat_model, shape)
        if key not in self._attacks:
            specs = [
                tf.TensorSpec([None, *shape], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ]
            attacked = functools.partial(self._attack_and_judge, plan.attack, plan.threat_model)
            self._attacks[key] = tf.function(attacked, input_signature=specs, autograph=False)
        return self._attacks[key]

    def _attack_and_judge(
        self, attack: Attack, ball: ThreatModel, x: Tensor, y: Tensor, seed: Tensor
    ) -> tuple[Tensor, ...]:
        # The attack sees the folded model, which is faster; the model itself judges.
        seen, judge = attackable(self._model), inference(self._model)
        x_adv, success, logits = run(attack, seen, judge, x, y, ball, seed)
        predictions = tf.argmax(logits, axis=1, output_type=tf.int32)
        confidences = tf.reduce_max(tf.nn.softmax(logits), axis=1)
        norms = [ThreatModel(norm=norm).distance(x_adv, x) for norm in _NORMS]
        return x_adv, success, predictions, confidences, *norms

    def _classified(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = inference(self._model)(x)
        predictions = tf.argmax(logits, axis=1, output_type=tf.int32)
        return logits, predictions, tf.reduce_max(tf.nn.softmax(logits), axis=1)


def _record(
    source: Source, row: int, clean: _Judged, found: _Attacked, place: int
) -> dict[str, Any]:
    """One image's line of the manifest, as far as it is its own."""
    data = source.data
    return {
        "source": data.names[row] if data.names else f"{source.split}[{row}]",
        "source_split": source.split,
        "source_sha256": source.digests[row],
        "label": int(data.labels[row]),
        "class": data.label_names[data.labels[row]],
        "linf": _plain(found.linf[place]),
        "l2": _plain(found.l2[place]),
        "l0": int(found.l0[place]),
        "prediction": int(clean.predictions[place]),
        "confidence": _plain(clean.confidences[place]),
        "adversarial_prediction": int(found.predictions[place]),
        "adversarial_confidence": _plain(found.confidences[place]),
    }


def _plain(value: np.floating[Any]) -> float:
    """A float32 with the digits that it has."""
    return float(f"{value:.8g}")
