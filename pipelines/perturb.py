"""Builds sets of adversarial images, to train on and to measure with.

python -m pipelines.perturb saved_models/RUN --output perturbed
python -m pipelines.train --augment-with perturbed/augmented_train.npz
python -m pipelines.evaluate saved_models/RUN --data perturbed/hold_out.npz

The five sets of the first study, each of adversarial images: made from images that the
model classifies correctly, and misclassified by it. An image that withstands the attack is
counted and left out. From train, for training and for the choice of settings:
'augmented_train' and 'perturbed_train'; from test: 'perturbed_validation' for the choice,
'hold_out', and 'pixel', made with another attack (out of distribution), to measure with.
No two sets share an image, and train and test are told apart by their pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli import add_settings, given_settings, main_of, new_parser, with_changes
from pipelines.loading import run_config
from tfrobust.attacks import ATTACKS
from tfrobust.attacks.named import check_attacks, make_attacks
from tfrobust.config import EvaluationConfig, RunConfig
from tfrobust.data import DATASETS
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import RunFolder, class_names

if TYPE_CHECKING:
    from tfrobust.data.perturbed import Source
    from tfrobust.data.types import Splits
    from tfrobust.evaluation.perturbed_files import SetFolder
    from tfrobust.evaluation.perturbed_sets import SetPlan

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


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.perturb`."""
    parser = new_parser("perturb", "Build sets of adversarial images of correctly classified ones.")
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL",
        help="run folder, SavedModel folder, or .keras or .h5 file: [0, 1] images in, logits out",
    )  # fmt: skip
    parser.add_argument("--output", required=True, help="folder for the sets")
    parser.add_argument(
        "--resume", action="store_true", help="keep the sets that are complete, build the others"
    )
    for name, (split, size) in SETS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=f"size:{name}", type=int, default=size, metavar="N",
            help=f"images in the set {name}, from {split}; 0 leaves the set out",
        )  # fmt: skip
    parser.add_argument(
        "--attack", default="optimised-noise",
        help="attack of the first four sets, in the ball of --norm and --eps, with settings if "
        "need be: optimised-noise:steps=100",
    )  # fmt: skip
    parser.add_argument(
        "--pixel-attack", default="pixel",
        help="attack of the set pixel, with settings if need be: pixel:fraction=0.01; its ball is "
        "'l0' with that share of the pixels",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=128, help="images in a batch")
    add_settings(parser, ["", "threat", "data"], {})
    parser.epilog = (
        f"Attacks: {', '.join(ATTACKS)}. Built-in data sets: {', '.join(DATASETS)}. "
        "Where the data has no test split of its own, give the seed and fractions of the training."
    )
    return parser


def work(args: argparse.Namespace) -> None:
    """Builds the sets that were asked for."""
    config, source_file = _settle(args)
    from tfrobust.runtime import import_quietly, setup

    import_quietly()
    from pipelines.loading import load_splits
    from tfrobust.data.perturbed import sources
    from tfrobust.evaluation.perturbed_files import SetFolder, file_digest
    from tfrobust.evaluation.perturbed_sets import Perturber
    from tfrobust.models.classifier import as_classifier
    from tfrobust.models.opening import load_any

    setup(seed=config.seed)
    attacks = _one_attack(args.attack), _one_attack(args.pixel_attack)
    model = load_any(source_file)
    splits = load_splits(config.data, config.seed, augmented=False)
    classifier = as_classifier(model, splits.test.pixels(slice(0, 64)))
    splits = _for_model(Path(args.model), splits, classifier.classes)
    plans = make_plans(args, config, attacks, splits.test.image_shape)
    given = sources(splits, config.seed)
    print(_left_out(given), flush=True)
    digest = file_digest(source_file)
    facts = {"seed": config.seed, "model": str(source_file), "model_sha256": digest}
    folder = SetFolder(
        Path(args.output), set_keys(plans, given, facts, args.batch_size), resume=args.resume
    )
    perturber = Perturber(classifier, batch_size=args.batch_size, seed=config.seed)
    build(plans, given, perturber, folder, {**facts, "data": config.data.dataset})
    if not any(folder.entries[plan.name]["images"] for plan in plans):
        raise TFRobustError(
            "No image was turned by its attack: raise --eps, or choose another --attack."
        )
    print(f"Manifest: {folder.manifest}", flush=True)


def _for_model(path: Path, splits: Splits, classes: int) -> Splits:
    """The splits with the model's labels, and a test split that its run has not seen."""
    from pipelines.loading import without_seen
    from tfrobust.data.labels import match_labels

    names = class_names(path)
    names = names if names and len(names) == classes else None
    test, told = without_seen(path, splits.test)
    parts, notes = zip(
        *(match_labels(part, names, classes) for part in (splits.train, splits.select, test)),
        strict=True,
    )
    for line in (*told, *notes[-1]):
        print(f"Note: {line}.", flush=True)
    return dataclasses.replace(splits, train=parts[0], select=parts[1], test=parts[2])


def _settle(args: argparse.Namespace) -> tuple[RunConfig, Path]:
    """The configuration, and the model's file; all that can be refused early is."""
    for text in (args.attack, args.pixel_attack):
        check_attacks(EvaluationConfig(attacks=(text,)))
    sizes = [_size(args, name) for name in SETS]
    if min(sizes) < 0 or max(sizes) == 0 or args.batch_size < 1:
        raise UsageError(
            "Expected sizes of 0 or more, not all of them 0, and a --batch-size of at least 1, "
            f"found {', '.join(map(str, sizes))} and {args.batch_size}."
        )
    path, given = Path(args.model), given_settings(args)
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        return run_config(RunFolder(path).read_config(), given), RunFolder(path).best_model
    if "dataset" not in given.get("data", {}):
        raise UsageError(f"{path} is not a run folder: name its images with --data NAME|PATH.")
    return with_changes(RunConfig(), given), path


def make_plans(
    args: argparse.Namespace,
    config: RunConfig,
    attacks: tuple[Named, Named],
    image_shape: tuple[int, int, int],
) -> list[SetPlan]:
    """The sets that were asked for, in the order in which they are built."""
    from tfrobust.attacks.pixel import PixelAttack, pixel_count
    from tfrobust.evaluation.perturbed_sets import SetPlan
    from tfrobust.threat_model import ThreatModel

    noise, pixel = attacks
    share = getattr(pixel[1], "fraction", PixelAttack.fraction)
    height, width, _ = image_shape
    few = ThreatModel(norm="l0", eps=float(pixel_count(share, height, width)))
    ball = ThreatModel.from_config(config.threat)
    if _size(args, "pixel"):
        print(f"Pixel attack: {few.eps:.0f} of the {height}x{width} pixels.", flush=True)
    plans = []
    for name, (split, _) in SETS.items():
        (attack_name, attack), within = (pixel, few) if name == "pixel" else (noise, ball)
        if size := _size(args, name):
            plan = SetPlan(
                name=name, split=split, size=size, attack_name=attack_name, attack=attack,
                threat_model=within,
            )  # fmt: skip
            plans.append(plan)
    return plans


def _size(args: argparse.Namespace, name: str) -> int:
    return int(getattr(args, f"size:{name}"))


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


def build(
    plans: list[SetPlan],
    given: dict[str, Source],
    perturber: Any,
    folder: SetFolder,
    facts: dict[str, Any],
) -> None:
    """Builds what is not complete yet; each set begins where the one before it ended."""
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
        print(_line(plan, entry, kept), flush=True)


def _line(plan: SetPlan, entry: dict[str, Any], kept: bool) -> str:
    text = (
        f"{plan.name}: {entry['images']:,} adversarial images from {plan.split} "
        f"({plan.attack_name}, {plan.threat_model.norm}), fool rate {entry['fool_rate']:.1%} of "
        f"{entry['attacked']:,} attacked; {entry['misclassified']:,} passed over as misclassified"
    )
    if entry["images"] < plan.size:
        text += f"; {plan.size:,} were asked for, but {plan.split} has no more images"
    return f"{text}{' (kept)' if kept else ''}."


def _left_out(given: dict[str, Source]) -> str:
    train, test = given["train"].left_out, given["test"].left_out
    return (
        f"Left out of train by content: {train['in_test']:,} that are in test, "
        f"{train['in_select']:,} in select, {train['repeated']:,} repeated; of test: "
        f"{test['repeated']:,} repeated."
    )


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
