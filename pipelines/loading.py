"""Opens what a verb works on: a run folder or a bare model, and its images."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.cli import given_settings, with_changes
from tfrobust.attacks.named import check_attacks
from tfrobust.config import DataConfig, RunConfig
from tfrobust.data import DATASETS, ReadOptions, load, read_all, with_channels
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.errors import UsageError
from tfrobust.run import RunFolder, class_names, run_of
from tfrobust.runtime import import_quietly, setup

if TYPE_CHECKING:
    from tfrobust.models.views import InputView

# What says how images of a run were split: a later command cannot change it.
_SPLIT = ("select_fraction", "test_fraction")


@dataclass(frozen=True)
class Opened:
    """A model with the configuration and the folder that go with it.

    Attributes:
      model: a `Classifier` once it has its images, and before what the file holds.
      config: the run's, with the flags of this command laid over it.
      trained: the run's own, as it was trained; None for a bare model.
      run: the run folder; for a bare model the folder that results go to.
      name: what reports call it.
      source: the file or folder that the model was read from.
      notes: what was taken for what, a sentence each.
      skipped: images left out, 'file: reason'.
    """

    model: Any
    config: RunConfig
    trained: RunConfig | None
    run: RunFolder
    name: str
    source: Path
    notes: tuple[str, ...] = field(default=())
    skipped: tuple[str, ...] = field(default=())


def add_intake(parser: argparse.ArgumentParser) -> None:
    """Flags that say how a model and images that do not fit at once go together."""
    section = parser.add_argument_group("how the model and the images go together")
    add = section.add_argument
    add("--input-range", default=None, metavar="LOW,HIGH",
        help="what the model takes for black and white: 0,255 or -1,1 (default: 0,1, or what its "
        "first layer says)")  # fmt: skip
    add("--input-mean", default=None, metavar="NUMBERS",
        help="mean that the model wants subtracted, after the range: one, or one per channel; "
        "'imagenet' is .485,.456,.406")  # fmt: skip
    add("--input-std", default=None, metavar="NUMBERS",
        help="deviation that it wants divided by; 'imagenet' is .229,.224,.225")  # fmt: skip
    add("--class-map", default=None, metavar="DATA=MODEL,...",
        help="which class of the images is which of the model's, by name or number")  # fmt: skip


def view_of(args: argparse.Namespace) -> InputView | None:
    """What the flags say that the model takes; None where they say nothing.

    Raises:
      UsageError: they are no numbers.
    """
    from tfrobust.models.views import IMAGENET, InputView
    from tfrobust.settings import parse_number

    given = [getattr(args, name, None) for name in ("input_range", "input_mean", "input_std")]
    if given == [None] * 3:
        return None
    named: list[tuple[float, ...]] = []
    for text, known in zip(given, ((), *IMAGENET), strict=True):
        if text == "imagenet":
            named.append(known)
        else:
            named.append(tuple(map(parse_number, text.split(","))) if text else ())
    low_high = named[0] or (0.0, 1.0)
    return InputView(low_high, named[1], named[2])  # type: ignore[arg-type]


def open_with_images(args: argparse.Namespace) -> tuple[Opened, ImageSet]:
    """What a verb works on and its test images, with TensorFlow settled and the seed set.

    Images that the run was trained on or its model chosen by are left out, wherever they
    come from; labels are those of the model, matched by name.
    """
    import_quietly()
    opened = open_model(args)
    view = view_of(args)
    setup(seed=opened.config.seed)
    test, log = _read(args, opened)
    test, notes = without_seen(Path(args.model), test)
    from tfrobust.models.classifier import as_classifier

    model = as_classifier(opened.model, test.pixels(slice(0, 64)), view)
    test, matched = _matched(args, opened, test, model.classes)
    notes = (*log.notes, *notes, *matched)
    if opened.trained is None and run_of(Path(args.model)) is None and not model.range_known:
        notes = (*notes, "the model is given pixels of [0, 1] (--input-range takes another range)")
    for line in (*notes, *model.notes):
        print(f"Note: {line}.", flush=True)
    tell_skipped(log.skipped)
    skipped = tuple(log.skipped)
    return dataclasses.replace(opened, model=model, notes=notes, skipped=skipped), test


def tell_skipped(skipped: list[str], most: int = 20) -> None:
    """Lists what was left out."""
    if skipped:
        print(f"Left out {len(skipped):,}:", *skipped[:most], sep="\n  ", flush=True)
    if len(skipped) > most:
        print(f"  and {len(skipped) - most:,} more, in evaluation.json", flush=True)


def _read(args: argparse.Namespace, opened: Opened) -> tuple[ImageSet, ReadLog]:
    """The test images as they are read, with their own labels."""
    from tfrobust.models.classifier import input_shape

    config = opened.config.data
    shape = input_shape(opened.model) or (None, None, None)
    if not _is_foreign(args, opened):
        splits = load_splits(config, opened.config.seed, augmented=False)
        return with_channels(splits.test, shape[2]), splits.log
    options, notes = _options(config), []
    height, width, channels = shape
    if opened.trained is None and not config.image_size and height and height == width:
        path = Path(config.dataset).expanduser()
        # Files have sizes of their own; arrays are evaluated as they are.
        if path.suffix.lower() != ".npz":
            options = dataclasses.replace(options, image_size=height)
            notes.append(f"images are read at {height}x{width}, the size that the model takes")
    data, log = read_all(config.dataset, dataclasses.replace(options, channels=channels))
    log.notes += notes
    return data, log


def without_seen(model: Path, test: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
    """Images without those that a model's run has seen, and a sentence about them.

    Raises:
      UsageError: none is left.
    """
    from tfrobust.data.contents import Seen

    run = run_of(model)
    seen = Seen.load(run.seen) if run else None
    if seen is None:
        return test, ()
    rows, trained, chosen = seen.fresh(test)
    if len(rows) == len(test):
        return test, ()
    told = (
        f"{trained:,} of the {len(test):,} images were trained on by this run and its model was "
        f"chosen by {chosen:,}, by their content: they are left out, {len(rows):,} remain"
    )
    if not len(rows):
        raise UsageError(
            f"All {len(test):,} images were trained on by this run, or its model was chosen by "
            "them: give it images that it has not seen."
        )
    return test.subset(rows), (told,)


def _matched(
    args: argparse.Namespace, opened: Opened, test: ImageSet, classes: int
) -> tuple[ImageSet, list[str]]:
    from tfrobust.data.labels import match_labels, parse_class_map

    given = getattr(args, "class_map", None)
    names = class_names(Path(args.model))
    names = names if names and len(names) == classes else None
    return match_labels(test, names, classes, parse_class_map(given) if given else None)


def require_layers(opened: Opened, test: ImageSet, verb: str) -> Any:
    """The model as a flat tf_keras graph of [0, 1] images -> logits, with all of its layers.

    Raises:
      UsageError: it is a SavedModel, or holds layers that cannot be taken apart.
    """
    from tfrobust.models.classifier import as_graph

    found = as_graph(opened.model, test.image_shape)
    if found is None:
        raise UsageError(
            f"{opened.source}: {verb} needs a model with layers that can be taken apart (a graph "
            "of Keras's own layers, such as a run folder), found a SavedModel, a subclassed model "
            "or layers of your own; evaluate takes any."
        )
    return found


def _is_foreign(args: argparse.Namespace, opened: Opened) -> bool:
    """Whether the images are a file or folder that the model was not trained on.

    Of those all are used; of a run's own data, as of a built-in set, the test split.
    """
    dataset = opened.config.data.dataset
    if "dataset" not in given_settings(args).get("data", {}) or dataset in DATASETS:
        return False
    trained_on = opened.trained.data.dataset if opened.trained else ""
    same = Path(trained_on).expanduser().resolve() == Path(dataset).expanduser().resolve()
    return not (trained_on and same)


def open_model(args: argparse.Namespace) -> Opened:
    """The run folder or model file that a verb was given.

    Raises:
      UsageError: there is no such run or model, or a bare model without `--dataset`.
    """
    from tfrobust.models.opening import load_any

    path = Path(args.model)
    given = given_settings(args)
    check_attacks(with_changes(RunConfig(), given).evaluation)
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        trained = RunFolder(path).read_config()
        config = run_config(trained, given)
        run = RunFolder(Path(args.output or path))
        _refuse_overwriting(run, path)
        run.create()
        source = RunFolder(path).best_model
        return Opened(load_any(path), config, trained, run, path.name, source)
    if "dataset" not in given.get("data", {}):
        raise UsageError(f"{path} is not a run folder: name its images with --data NAME|PATH.")
    run = RunFolder(Path(args.output or path.with_name(f"{path.name}-results")))
    _refuse_overwriting(run, None)
    model = load_any(path)
    run.create_figures()
    return Opened(model, with_changes(RunConfig(), given), None, run, path.name, path)


def run_config(trained: RunConfig, given: dict[str, Any]) -> RunConfig:
    """A run's configuration with the flags of a later command, which cannot split anew.

    The seed of the split stays in `split_seed`: a later `--seed` is that of attacks.
    """
    config = with_changes(trained, given)
    own = {name: getattr(trained.data, name) for name in _SPLIT}
    other = [n for n in _SPLIT if getattr(config.data, n) != own[n]]
    for name in other:
        print(f"Note: the run was split with {name} {own[name]:g}, which stays.", flush=True)
    data = dataclasses.replace(config.data, split_seed=split_seed(trained), **own)
    return dataclasses.replace(config, data=data)


def split_seed(config: RunConfig) -> int:
    """The seed that a configuration's images are split by."""
    return config.seed if config.data.split_seed is None else config.data.split_seed


def _refuse_overwriting(run: RunFolder, own: Path | None) -> None:
    """Refuses to put results into the folder of another run.

    Raises:
      UsageError: it is one.
    """
    is_own = own is not None and run.path.resolve() == own.resolve()
    if run.config.is_file() and not is_own:
        raise UsageError(
            f"{run.path} holds the run of another model, whose results would be overwritten: "
            "choose another --output."
        )


def _options(config: DataConfig) -> ReadOptions:
    low_high = config.pixel_range
    return ReadOptions(
        image_size=config.image_size, skip_broken=config.skip_broken,
        cache_dir=config.cache_dir, memory_limit=int(config.memory_limit * 2**30),
        pixel_range=(low_high[0], low_high[1]) if low_high else None,
    )  # fmt: skip


def load_splits(config: DataConfig, seed: int, *, augmented: bool = True) -> Splits:
    """The images that a configuration names, split.

    Args:
      config: the data settings.
      seed: of the split, where the settings have none of their own.
      augmented: add the perturbed set `augment_with` to train, where one is named.

    Raises:
      UsageError: a name, path or fraction is wrong.
      TFRobustError: the images cannot be read, or the perturbed set would leak into train.
    """
    seed = seed if config.split_seed is None else config.split_seed
    splits = load(
        config.dataset,
        data_dir=config.data_dir,
        options=_options(config),
        select_fraction=config.select_fraction,
        test_fraction=config.test_fraction,
        seed=seed,
    )
    train = sample(splits.train, config.limit_train, seed)
    splits = Splits(train, splits.select, splits.test, splits.log)
    if config.augment_with and augmented:
        from tfrobust.data.perturbed import with_augmentation

        splits = with_augmentation(splits, Path(config.augment_with).expanduser())
    return splits


def sample(data: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """`limit` images at random (splits are ordered by class), or all; the order is kept."""
    if limit is None or limit >= len(data):
        return data
    return data.subset(np.sort(np.random.default_rng(seed).permutation(len(data))[:limit]))
