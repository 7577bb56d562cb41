"""Sets of adversarial images, made from images that a model classifies correctly."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfrobust.data.perturbed import Source
from tfrobust.data.types import ImageSet
from tfrobust.errors import UsageError
from tfrobust.models.classifier import as_classifier
from tfrobust.progress import Progress
from tfrobust.sets.batches import Attacked, Attacker, Judged
from tfrobust.threat_model import ThreatModel
from tfrobust.typing import Attack
from tfrobust.workers import Piece, Threads, Workers


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """The definition of one perturbed set.

    Attributes:
      name: of the set, and of its file.
      split: 'train' or 'test', the source of its images.
      size: number of adversarial images, at least 1.
      attack_name: the attack's name in the manifest.
      attack: the attack.
      threat_model: the ball that the images must lie in.

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
    """A finished set.

    Attributes:
      plan: its definition.
      images: the adversarial images, float32 in [0, 1]; labels are those of the sources.
      sources: SHA-256 of each image's source.
      rows: one record for each image, plain values.
      tried: number of correctly classified images that were attacked.
      wrong: number of images skipped because the model misclassifies them anyway.
      end: index in the source's order after the last image used.
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
        """The share of attacked images that the attack broke; 0 if none was attacked."""
        return len(self.rows) / self.tried if self.tried else 0.0


@dataclass
class _Draft:
    """A set under construction."""

    pixels: np.ndarray
    rows: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    tried: int = 0
    wrong: int = 0

    @property
    def room(self) -> int:
        return len(self.pixels) - len(self.rows)


class Perturber:
    """Builds perturbed sets with one model.

    Only images that the model classifies correctly are attacked. The result is projected onto the
    ball and counts only if it lies in it (to 1e-6) and the model itself misclassifies it; an
    image that withstands is left out and counted, and the next one is used.

    Guarantee: a set depends only on the model, the plan, the source, its start, `batch_size` and
    `seed`.

    Args:
      model: a Keras model or any callable, [0, 1] images float32 [B, H, W, 3] -> logits
        [B, K].
      batch_size: images in a batch.
      seed: of the attacks' random draws.
      workers: run the batches; None runs them in this process, one at a time. Workers may run
        batches that the set turns out not to need.
    """

    def __init__(
        self, model: Any, *, batch_size: int = 128, seed: int = 42, workers: Workers | None = None
    ) -> None:
        self.batch_size, self.seed = batch_size, seed
        self._model, self._workers = model, workers or Threads(at_once=1)
        self._attacker: Attacker | None = None

    def make(self, plan: SetPlan, source: Source, first: int = 0) -> PerturbedSet:
        """The set, or as much of it as the source has images for.

        Args:
          plan: the set's definition.
          source: the images to build it from.
          first: start index in the source's order; the `end` of the previous set keeps the two
            disjoint.

        Raises:
          TFRobustError: the model has too few classes, or does not accept the images.
        """
        data, end = source.data, first
        if self._attacker is None:
            classifier = as_classifier(self._model, data.pixels(slice(0, 64)))
            self._attacker = Attacker(classifier, data.image_shape)
        room = min(plan.size, max(len(source.order) - first, 0))
        draft = _Draft(np.empty((room, *data.image_shape), np.float32))
        progress = Progress(plan.name, room)
        shared = plan.attack, plan.threat_model, self.seed
        places = range(first, len(source.order), self.batch_size) if room else ()
        pieces = (self._piece(source, place) for place in places)
        found = self._workers.map(self._attacker, "batch", pieces, shared)
        with contextlib.closing(found) as waves:
            batches = (batch for wave in waves for batch in wave)
            while draft.room and end < len(source.order):
                end += _take(source, end, draft, plan, *next(batches))
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

    def _piece(self, source: Source, first: int) -> Piece:
        """Images and labels from an index in the source's order on, and that index."""
        index = source.order[first : first + self.batch_size]
        return source.data.pixels(index), source.data.labels[index].astype(np.int32), first


def _take(
    source: Source, first: int, draft: _Draft, plan: SetPlan, clean: Judged, found: Attacked
) -> int:
    """Adds a batch's results to the set; returns how many of its images were used."""
    index = source.order[first : first + len(clean.predictions)]
    right = clean.predictions == source.data.labels[index]
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


def _record(source: Source, row: int, clean: Judged, found: Attacked, place: int) -> dict[str, Any]:
    """One image's own part of its line in the manifest."""
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
    """A float32 with its shortest decimal representation."""
    return float(f"{value:.8g}")
