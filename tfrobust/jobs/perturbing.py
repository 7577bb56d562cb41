"""The job that builds sets of adversarial images, to train on and to measure with.

The five sets of the first study, each of adversarial images: made from images that the
model classifies correctly, and misclassified by it. An image that withstands the attack is
counted and left out. From train, for training and for the choice of settings:
'augmented_train' and 'perturbed_train'; from test: 'perturbed_validation' for the choice,
'hold_out', and 'pixel', made with another attack (out of distribution), to measure with.
No two sets share an image; train and test are compared by their pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.attacks import ATTACKS
from tfrobust.attacks.named import check_attacks, make_attacks
from tfrobust.config import EvaluationConfig, RunConfig
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.jobs.images import load_splits, without_seen
from tfrobust.jobs.opening import bare_config, is_run, run_config
from tfrobust.progress import Tell, silent
from tfrobust.run import RunFolder, class_names

if TYPE_CHECKING:
    from tfrobust.cluster import Ray
    from tfrobust.data.perturbed import Source
    from tfrobust.data.types import Splits
    from tfrobust.models.classifier import Classifier
    from tfrobust.sets.manifest import SetFolder
    from tfrobust.sets.perturbed import Perturber, SetPlan

# An attack's name, and the attack.
Named = tuple[str, Any]

#: name -> split that it comes from, and how many images it has.
SETS = {
    "augmented_train": ("train", 10_000),
    "perturbed_train": ("train", 1_000),
    "perturbed_validation": ("test", 1_000),
    "hold_out": ("test", 1_000),
    "pixel": ("test", 500),
}


@dataclass(frozen=True)
class PerturbResult:
    """Sets of adversarial images.

    Attributes:
      manifest: a line for every image: its source, and how it was perturbed.
      sets: name -> the .npz file.
      entries: name -> how many images it has, were attacked and passed over, and the like.
    """

    manifest: Path
    sets: dict[str, Path]
    entries: dict[str, dict[str, Any]]


def perturb(
    model: Path | str,
    output: Path | str,
    settings: Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    attack: str = "optimised-noise",
    pixel_attack: str = "pixel",
    batch_size: int = 128,
    resume: bool = False,
    on: str | Ray | None = None,
    tell: Tell = silent,
) -> PerturbResult:
    """Builds sets of adversarial images of those that a model classifies correctly.

    Args:
      model: run folder, SavedModel folder, or .keras or .h5 file.
      output: folder for the sets.
      settings: laid over the run's, nested as in YAML, as in `open_subject`.
      sizes: name -> images of that set, 0 for none; sets that are not named have their usual size.
      attack: of all sets but 'pixel', within the ball of the settings.
      pixel_attack: of the set 'pixel', within 'l0' of its share of the pixels.
      batch_size: images in a batch.
      resume: keep the sets that are complete, build the others.
      on: spread the batches over a Ray cluster: 'ray', 'ray://HOST:PORT', or a `cluster.Ray`.
      tell: takes a line for each set.

    Raises:
      UsageError: a size, attack or setting is wrong, or a cluster without Ray installed.
      TFRobustError: images cannot be read, or no image was turned by its attack.
    """
    wanted = {name: size for name, (_, size) in SETS.items()} | dict(sizes or {})
    path = Path(model)
    texts = (attack, pixel_attack)
    config, source_file = _settle(path, settings or {}, wanted, texts, batch_size, tell)
    from tfrobust.runtime import import_quietly, setup

    import_quietly()
    from tfrobust.cluster.pool import opened_workers
    from tfrobust.data.perturbed import sources
    from tfrobust.sets.manifest import SetFolder, file_digest
    from tfrobust.sets.perturbed import Perturber

    setup(seed=config.seed)
    attacks = _one_attack(attack), _one_attack(pixel_attack)
    classifier, splits = _opened(path, source_file, config, tell)
    plans = _make_plans(wanted, config, attacks, splits.test.image_shape, tell)
    given = sources(splits, config.seed)
    tell(_left_out(given))
    digest = file_digest(source_file)
    facts = {"seed": config.seed, "model": str(source_file), "model_sha256": digest}
    folder = SetFolder(Path(output), set_keys(plans, given, facts, batch_size), resume=resume)
    with opened_workers(on) as workers:
        perturber = Perturber(classifier, batch_size=batch_size, seed=config.seed, workers=workers)
        _build(plans, given, perturber, folder, {**facts, "data": config.data.dataset}, tell)
    entries = {plan.name: folder.entries[plan.name] for plan in plans}
    if not any(entry["images"] for entry in entries.values()):
        raise TFRobustError(
            "No image was turned by its attack: raise --eps, or choose another --attack."
        )
    tell(f"Manifest: {folder.manifest}")
    files = {name: Path(output) / f"{name}.npz" for name in entries}
    return PerturbResult(folder.manifest, files, entries)


def _opened(
    path: Path, source_file: Path, config: RunConfig, tell: Tell
) -> tuple[Classifier, Splits]:
    """The model, and its images with its labels."""
    from tfrobust.models.opening import load_any
    from tfrobust.models.pairs import classifier_for

    model = load_any(source_file)
    splits = load_splits(config.data, config.seed, augmented=False)
    classifier = classifier_for(model, splits.test)
    return classifier, _for_model(path, splits, classifier.classes, tell)


def _for_model(path: Path, splits: Splits, classes: int, tell: Tell) -> Splits:
    """The splits with the model's labels, and a test split that its run has not seen."""
    from tfrobust.data.labels import match_labels

    names = class_names(path)
    names = names if names and len(names) == classes else None
    test, unseen = without_seen(path, splits.test)
    parts, notes = zip(
        *(match_labels(part, names, classes) for part in (splits.train, splits.select, test)),
        strict=True,
    )
    for line in (*unseen, *notes[-1]):
        tell(f"Note: {line}.")
    return dataclasses.replace(splits, train=parts[0], select=parts[1], test=parts[2])


def _settle(
    path: Path,
    given: Mapping[str, Any],
    sizes: Mapping[str, int],
    attacks: tuple[str, str],
    batch_size: int,
    tell: Tell,
) -> tuple[RunConfig, Path]:
    """The configuration, and the model's file; errors in the settings are raised here."""
    for text in attacks:
        check_attacks(EvaluationConfig(attacks=(text,)))
    if unknown := [name for name in sizes if name not in SETS]:
        raise UsageError(f"Unknown set {unknown[0]!r}: expected some of {', '.join(SETS)}.")
    counts = list(sizes.values())
    if min(counts) < 0 or max(counts) == 0 or batch_size < 1:
        raise UsageError(
            "Expected sizes of 0 or more, not all of them 0, and a --batch-size of at least 1, "
            f"found {', '.join(map(str, counts))} and {batch_size}."
        )
    if is_run(path):
        run = RunFolder(path)
        return run_config(run.read_config(), given, tell), run.best_model
    return bare_config(path, given), path


def _make_plans(
    sizes: Mapping[str, int],
    config: RunConfig,
    attacks: tuple[Named, Named],
    image_shape: tuple[int, int, int],
    tell: Tell,
) -> list[SetPlan]:
    """The plans of the sets, in the order in which they are built."""
    from tfrobust.attacks.pixel import PixelAttack, pixel_count
    from tfrobust.sets.perturbed import SetPlan
    from tfrobust.threat_model import ThreatModel

    noise, pixel = attacks
    share = getattr(pixel[1], "fraction", PixelAttack.fraction)
    height, width, _ = image_shape
    few = ThreatModel(norm="l0", eps=float(pixel_count(share, height, width)))
    ball = ThreatModel.from_config(config.threat)
    if sizes["pixel"]:
        tell(f"Pixel attack: {few.eps:.0f} of the {height}x{width} pixels.")
    plans = []
    for name, (split, _) in SETS.items():
        (attack_name, attack), within = (pixel, few) if name == "pixel" else (noise, ball)
        if size := sizes[name]:
            plan = SetPlan(
                name=name,
                split=split,
                size=size,
                attack_name=attack_name,
                attack=attack,
                threat_model=within,
            )
            plans.append(plan)
    return plans


def _one_attack(text: str) -> Named:
    found = make_attacks(EvaluationConfig(attacks=(text,)))
    if len(found) != 1:
        raise UsageError(f"Expected one attack of {', '.join(ATTACKS)}, found {text!r}.")
    return next(iter(found.items()))


def set_keys(
    plans: list[SetPlan], given: dict[str, Source], facts: dict[str, Any], batch_size: int
) -> dict[str, str]:
    """What each set depends on, as a digest, with the sets of its split before it."""
    chains = {}
    for split, source in given.items():
        order = "".join(source.digests[row] for row in source.order)
        labels = source.data.labels[source.order].tolist()
        known = [order, labels, list(source.data.label_names), facts["seed"], batch_size]
        chains[split] = json.dumps([*known, facts["model_sha256"]])
    keys = {}
    for plan in plans:
        text = f"{chains[plan.split]} {plan!r}"
        chains[plan.split] = keys[plan.name] = hashlib.sha256(text.encode()).hexdigest()
    return keys


def _build(
    plans: list[SetPlan],
    given: dict[str, Source],
    perturber: Perturber,
    folder: SetFolder,
    facts: dict[str, Any],
    tell: Tell,
) -> None:
    """Builds the incomplete sets; each takes its images after those of the one before."""
    ends = dict.fromkeys(given, 0)
    for plan in plans:
        start = time.perf_counter()
        kept = folder.is_complete(plan.name)
        if not kept:
            made = perturber.make(plan, given[plan.split], ends[plan.split])
            left_out = given[plan.split].left_out
            seconds = round(time.perf_counter() - start, 1)
            folder.add(made, facts, {"left_out": left_out, "seconds": seconds})
        entry = folder.entries[plan.name]
        ends[plan.split] = entry["end"]
        tell(_line(plan, entry, kept))


def _line(plan: SetPlan, entry: dict[str, Any], kept: bool) -> str:
    text = (
        f"{plan.name}: {entry['images']:,} adversarial images from {plan.split} "
        f"({plan.attack_name}, {plan.threat_model.norm}), fool rate {entry['fool_rate']:.1%} of "
        f"{entry['attacked']:,} attacked; {entry['misclassified']:,} passed over as misclassified"
    )
    if entry["images"] < plan.size:
        text += f" of {plan.size:,}: {plan.split} has no more images"
    return f"{text}{' (kept)' if kept else ''}."


def _left_out(given: dict[str, Source]) -> str:
    train, test = given["train"].left_out, given["test"].left_out
    return (
        f"Left out of train by content: {train['in_test']:,} that are in test, "
        f"{train['in_select']:,} in select, {train['repeated']:,} repeated; of test: "
        f"{test['repeated']:,} repeated."
    )
