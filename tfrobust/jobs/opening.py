"""Opens what a job works on: a run folder or a bare model, and its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrobust.attacks.named import check_attacks
from tfrobust.config import DataConfig, RunConfig
from tfrobust.data import DATASETS, ReadOptions, load, read_all, with_channels
from tfrobust.data.types import ImageSet, ReadLog, Splits
from tfrobust.errors import UsageError
from tfrobust.jobs.recipes import with_changes
from tfrobust.models.rest import Patience, is_address
from tfrobust.progress import Tell, silent
from tfrobust.run import RunFolder, class_names, run_of
from tfrobust.runtime import import_quietly, setup

if TYPE_CHECKING:
    from tfrobust.models.classifier import Classifier
    from tfrobust.models.kinds import KerasGraph
    from tfrobust.models.views import InputView
    from tfrobust.typing import Model


# The settings of a run's split: a later command cannot change them.
_SPLIT = ("select_fraction", "test_fraction")
# The default attack of a model without gradients.
_WITHOUT_GRADIENT = ["square"]


@dataclass(frozen=True)
class Subject:
    """What a job works on: a model with its test images, and the settings and folder of both.

    Attributes:
      model: tried on the images.
      test: the images, with the model's labels.
      config: the run's, with the settings of this job laid over it.
      trained: the run's own, as it was trained; None for a bare model.
      run: the folder for results; the run folder, or MODEL-results for a model without run.
      name: what reports call the model.
      source: the file or folder that the model was read from.
      notes: what was taken for what, a sentence each.
      skipped: skipped images, 'file: reason'.
    """

    model: Classifier
    test: ImageSet
    config: RunConfig
    trained: RunConfig | None
    run: RunFolder
    name: str
    source: Path
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def is_converted(self) -> bool:
        """Whether the model is a file that was made of another model."""
        return bool(getattr(self.model.inner, "converted", False))


@dataclass(frozen=True)
class _Opened:
    """A model as read from its file, without images; the rest as in `Subject`."""

    model: Model
    config: RunConfig
    trained: RunConfig | None
    run: RunFolder
    name: str
    source: Path


def open_subject(
    model: Path | str,
    settings: Mapping[str, Any] | None = None,
    *,
    output: Path | str | None = None,
    view: InputView | None = None,
    class_map: str | None = None,
    patience: Patience | None = None,
    tell: Tell = silent,
) -> Subject:
    """Opens a run folder, or a bare model, with its test images.

    TensorFlow is set up and seeded. Images that the run was trained or selected on are left out,
    whatever their source; labels are those of the model, matched by name.

    Args:
      model: run folder, SavedModel folder, .keras, .h5, .tflite or .onnx file, or the address of
        a model that is served, ``http://HOST/v1/models/NAME``.
      settings: laid over the run's, nested as in YAML: ``{"threat": {"eps": 4 / 255}}``. A bare
        model needs ``{"data": {"dataset": NAME_OR_PATH}}``, unless it is a .tflite or .onnx file
        in a run folder, which is measured as that run is.
      output: folder for results; None is the run folder, or MODEL-results beside a model,
        NAME-results in the working directory for an address.
      view: what the model takes for pixels; None finds out, or else [0, 1].
      class_map: which class of the images is which of the model's: 'cat=2,dog=5'.
      patience: of requests to an address.
      tell: takes notes, a sentence each.

    Raises:
      UsageError: there is no such run or model, or no images are named for a bare model.
      TFRobustError: model or images cannot be read, or do not go together.
    """
    import_quietly()
    path, given = Path(model), dict(settings or {})
    folder = Path(output) if output else None
    if is_address(model):
        opened = _open_address(str(model), given, folder, patience, tell)
    else:
        opened = _open_model(path, given, folder, tell)
    setup(seed=opened.config.seed)
    test, log = _read(opened, given)
    test, notes = without_seen(path, test)
    from tfrobust.models.outside import expect_classes
    from tfrobust.models.pairs import classifier_for

    expect_classes(opened.model, len(test.label_names))
    classifier = classifier_for(opened.model, test, view)
    test, matched = _matched(path, test, classifier.classes, class_map)
    notes = (*log.notes, *notes, *matched)
    if opened.trained is None and run_of(path) is None and not classifier.range_known:
        notes = (*notes, "the model is given pixels of [0, 1] (--input-range takes another range)")
    for line in (*notes, *classifier.notes):
        tell(f"Note: {line}.")
    _tell_skipped(log.skipped, tell)
    return Subject(
        classifier,
        test,
        opened.config,
        opened.trained,
        opened.run,
        opened.name,
        opened.source,
        notes,
        tuple(log.skipped),
    )


def as_subject(subject: Subject | Path | str, tell: Tell = silent) -> Subject:
    """The subject itself, or the run folder of that path opened as one."""
    return subject if isinstance(subject, Subject) else open_subject(subject, tell=tell)


def _tell_skipped(skipped: list[str], tell: Tell, most: int = 20) -> None:
    """Lists the skipped images."""
    if skipped:
        tell("\n  ".join([f"Skipped {len(skipped):,}:", *skipped[:most]]))
    if len(skipped) > most:
        tell(f"  and {len(skipped) - most:,} more, in evaluation.json")


def _read(opened: _Opened, given: Mapping[str, Any]) -> tuple[ImageSet, ReadLog]:
    """The test images as they are read, with their own labels."""
    from tfrobust.models.inputs import input_shape

    config = opened.config.data
    shape = input_shape(opened.model) or (None, None, None)
    if not _is_foreign(opened, given):
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
      UsageError: no images are left.
    """
    from tfrobust.data.digests import RunImages

    run = run_of(model)
    seen = RunImages.load(run.seen) if run else None
    if seen is None:
        return test, ()
    rows, trained, chosen = seen.fresh(test)
    if len(rows) == len(test):
        return test, ()
    note = (
        f"{trained:,} of the {len(test):,} images were trained on by this run and its model was "
        f"chosen by {chosen:,}, by their content: they are left out, {len(rows):,} remain"
    )
    if not len(rows):
        raise UsageError(
            f"All {len(test):,} images were trained on by this run, or its model was chosen by "
            "them: give it images that it has not seen."
        )
    return test.subset(rows), (note,)


def _matched(
    model: Path, test: ImageSet, classes: int, class_map: str | None
) -> tuple[ImageSet, list[str]]:
    from tfrobust.data.labels import match_labels, parse_class_map

    names = class_names(model)
    names = names if names and len(names) == classes else None
    return match_labels(test, names, classes, parse_class_map(class_map) if class_map else None)


def require_layers(model: Classifier, source: Path, test: ImageSet, verb: str) -> KerasGraph:
    """The model as a flat tf_keras graph of [0, 1] images -> logits, with all of its layers.

    Raises:
      UsageError: it is a SavedModel, or has layers that cannot be taken apart.
    """
    from tfrobust.models.classifier import as_graph

    found = as_graph(model, test.image_shape)
    if found is None:
        raise UsageError(
            f"{source}: {verb} needs a model with layers that can be taken apart (a graph "
            "of Keras's own layers, such as a run folder), found a SavedModel, a subclassed model "
            "or layers of your own; evaluate takes any."
        )
    return found


def _is_foreign(opened: _Opened, given: Mapping[str, Any]) -> bool:
    """Whether the images are a file or folder that the model was not trained on.

    Of those all are used; of a run's own data, as of a built-in set, the test split.
    """
    dataset = opened.config.data.dataset
    if "dataset" not in given.get("data", {}) or dataset in DATASETS:
        return False
    trained_on = opened.trained.data.dataset if opened.trained else ""
    same = Path(trained_on).expanduser().resolve() == Path(dataset).expanduser().resolve()
    return not (trained_on and same)


def _open_model(path: Path, given: dict[str, Any], output: Path | None, tell: Tell) -> _Opened:
    """The run folder or model file, its settings, and the folder that results go to.

    Raises:
      UsageError: there is no such run or model, or a bare model without images.
    """
    from tfrobust.models.exported import is_exported
    from tfrobust.models.opening import load_any

    check_attacks(with_changes(RunConfig(), given).evaluation)
    if is_run(path):
        trained = RunFolder(path).read_config()
        config = run_config(trained, given, tell)
        run = RunFolder(output or path)
        _refuse_overwriting(run, path)
        run.create()
        source = RunFolder(path).best_model
        return _Opened(load_any(path), config, trained, run, path.name, source)
    config = _exported_config(path, given, tell) if is_exported(path) else bare_config(path, given)
    run = RunFolder(output or path.with_name(f"{path.name}-results"))
    _refuse_overwriting(run, None)
    model = load_any(path)
    run.create_figures()
    return _Opened(model, config, None, run, path.name, path)


def _exported_config(path: Path, given: dict[str, Any], tell: Tell) -> RunConfig:
    """What is measured of a file for another runtime: by outputs alone, without figures.

    One in a run folder is measured on that run's images, unless others are named.
    """
    changed = _by_outputs(given)
    tell(f"Skipping figures of {path.name}: they need gradients.")
    run = run_of(path)
    if run is None or "dataset" in given.get("data", {}):
        return bare_config(path, changed)
    tell(f"Note: the file is in the run {run.path}: using the images and eps of that run.")
    return run_config(run.read_config(), changed, tell)


def _by_outputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for a model that shows its outputs alone."""
    evaluation = {"attacks": _WITHOUT_GRADIENT, **given.get("evaluation", {}), "figures": False}
    return {**given, "evaluation": evaluation}


def _open_address(
    address: str, given: dict[str, Any], output: Path | None, patience: Patience | None, tell: Tell
) -> _Opened:
    """A served model, and the settings to evaluate it by outputs only, without figures.

    Raises:
      UsageError: it is no address, or no images are named.
      TFRobustError: nothing answers there.
    """
    from tfrobust.models.endpoint import Endpoint

    path = Path(address)
    config = bare_config(path, _by_outputs(given))
    check_attacks(config.evaluation)
    model = Endpoint(address, patience=patience)
    run = RunFolder(output or Path(f"{path.name.removesuffix(':predict')}-results"))
    _refuse_overwriting(run, None)
    run.create_figures()
    tell(f"Skipping figures of {model.address}: they need gradients, and many queries.")
    return _Opened(model, config, None, run, model.address, path)


def is_run(path: Path) -> bool:
    """Whether a path is taken for a run folder: a folder that is no SavedModel."""
    return path.is_dir() and not (path / "saved_model.pb").is_file()


def bare_config(model: Path, given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a job on a bare model, which has to name its images.

    Raises:
      UsageError: it does not, or a setting is wrong.
    """
    if "dataset" not in given.get("data", {}):
        raise UsageError(f"{model} is not a run folder: name its images with --data NAME|PATH.")
    return with_changes(RunConfig(), given)


def run_config(trained: RunConfig, given: Mapping[str, Any], tell: Tell = silent) -> RunConfig:
    """A run's configuration with the settings of a later job, which cannot change the split.

    The seed of the split stays in `split_seed`: a later `--seed` is that of attacks.
    """
    config = with_changes(trained, given)
    own = {name: getattr(trained.data, name) for name in _SPLIT}
    other = [n for n in _SPLIT if getattr(config.data, n) != own[n]]
    for name in other:
        tell(f"Note: keeping {name} {own[name]:g}, with which the run was split.")
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
            f"{run.path} has the run of another model, whose results would be overwritten: "
            "choose another --output."
        )


def _options(config: DataConfig) -> ReadOptions:
    low_high = config.pixel_range
    return ReadOptions(
        image_size=config.image_size,
        skip_broken=config.skip_broken,
        cache_dir=config.cache_dir,
        memory_limit=int(config.memory_limit * 2**30),
        pixel_range=(low_high[0], low_high[1]) if low_high else None,
    )


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
