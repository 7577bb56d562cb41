"""Opens the subject of a job: a run folder or a bare model, with its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.attacks.named import check_attacks
from tfrobust.config import RunConfig
from tfrobust.data import DATASETS, read_all, with_channels
from tfrobust.data.types import ImageSet, ReadLog
from tfrobust.errors import UsageError
from tfrobust.jobs.images import load_splits, read_options, without_seen
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
    """The subject of a job: a model with its test images, its settings and its folder.

    Attributes:
      model: tried on the images.
      test: the images, with the model's labels.
      config: the run's, overridden by the settings of this job.
      trained: the run's own, as it was trained; None for a bare model.
      run: the folder for results; the run folder, or MODEL-results for a model without run.
      name: of the model, in reports.
      source: the file or folder that the model was read from.
      notes: how model and images were read, a sentence each.
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
        """Whether the model is a file that was converted from another model."""
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
      settings: override the run's, nested as in YAML: ``{"threat": {"eps": 4 / 255}}``. A bare
        model needs ``{"data": {"dataset": NAME_OR_PATH}}``, unless it is a .tflite or .onnx file
        in a run folder, which is evaluated as that run.
      output: folder for results; None is the run folder, or MODEL-results beside a model,
        NAME-results in the working directory for an address.
      view: the range of pixels that the model takes; None finds out, or assumes [0, 1].
      class_map: the model's label of each class of the images: 'cat=2,dog=5'.
      patience: of requests to an address.
      tell: takes notes, a sentence each.

    Raises:
      UsageError: there is no such run or model, or no images are named for a bare model.
      TFRobustError: model or images cannot be read, or do not fit together.
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
        notes = (
            *notes,
            "the model is given pixels of [0, 1] (set another range with --input-range)",
        )
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
    """The subject itself, or the run folder of that path, opened."""
    return subject if isinstance(subject, Subject) else open_subject(subject, tell=tell)


def _tell_skipped(skipped: list[str], tell: Tell, most: int = 20) -> None:
    """Lists the skipped images."""
    if skipped:
        tell("\n  ".join([f"Skipped {len(skipped):,}:", *skipped[:most]]))
    if len(skipped) > most:
        tell(f"  and {len(skipped) - most:,} more, in evaluation.json")


def _read(opened: _Opened, given: Mapping[str, Any]) -> tuple[ImageSet, ReadLog]:
    """The test images, with their own labels."""
    from tfrobust.models.inputs import input_shape

    config = opened.config.data
    shape = input_shape(opened.model) or (None, None, None)
    if not _is_foreign(opened, given):
        splits = load_splits(config, opened.config.seed, augmented=False)
        return with_channels(splits.test, shape[2]), splits.log
    options, notes = read_options(config), []
    height, width, channels = shape
    if opened.trained is None and not config.image_size and height and height == width:
        path = Path(config.dataset).expanduser()
        # Image files have various sizes; arrays are evaluated as they are.
        if path.suffix.lower() != ".npz":
            options = dataclasses.replace(options, image_size=height)
            notes.append(f"images are read at {height}x{width}, the size of the model's input")
    data, log = read_all(config.dataset, dataclasses.replace(options, channels=channels))
    log.notes += notes
    return data, log


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

    All images of these are used; of a run's own data, and of a built-in set, the test split.
    """
    dataset = opened.config.data.dataset
    if "dataset" not in given.get("data", {}) or dataset in DATASETS:
        return False
    trained_on = opened.trained.data.dataset if opened.trained else ""
    same = Path(trained_on).expanduser().resolve() == Path(dataset).expanduser().resolve()
    return not (trained_on and same)


def _open_model(path: Path, given: dict[str, Any], output: Path | None, tell: Tell) -> _Opened:
    """The run folder or model file, its settings, and the folder for results.

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
    """The settings to evaluate a file of another runtime by outputs only, without figures.

    A file in a run folder is evaluated on the images of that run, unless others are named.
    """
    changed = _by_outputs(given)
    tell(f"Skipping figures of {path.name}: they need gradients.")
    run = run_of(path)
    if run is None or "dataset" in given.get("data", {}):
        return bare_config(path, changed)
    tell(f"Note: the file is in the run {run.path}: using the images and eps of that run.")
    return run_config(run.read_config(), changed, tell)


def _by_outputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for a model without gradients."""
    evaluation = {"attacks": _WITHOUT_GRADIENT, **given.get("evaluation", {}), "figures": False}
    return {**given, "evaluation": evaluation}


def _open_address(
    address: str, given: dict[str, Any], output: Path | None, patience: Patience | None, tell: Tell
) -> _Opened:
    """A served model, and the settings to evaluate it by outputs only, without figures.

    Raises:
      UsageError: it is no address, or no images are named.
      TFRobustError: there is no answer.
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
    """Whether a path is a run folder: a folder that is not a SavedModel."""
    return path.is_dir() and not (path / "saved_model.pb").is_file()


def bare_config(model: Path, given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a job on a bare model, whose images must be named.

    Raises:
      UsageError: they are not, or a setting is wrong.
    """
    if "dataset" not in given.get("data", {}):
        raise UsageError(f"{model} is not a run folder: name its images with --data NAME|PATH.")
    return with_changes(RunConfig(), given)


def run_config(trained: RunConfig, given: Mapping[str, Any], tell: Tell = silent) -> RunConfig:
    """A run's configuration with the settings of a later job, which cannot change the split.

    The seed of the split is kept in `split_seed`: a later `--seed` is that of attacks.
    """
    config = with_changes(trained, given)
    own = {name: getattr(trained.data, name) for name in _SPLIT}
    other = [n for n in _SPLIT if getattr(config.data, n) != own[n]]
    for name in other:
        tell(f"Note: keeping {name} {own[name]:g}, with which the run was split.")
    data = dataclasses.replace(config.data, split_seed=split_seed(trained), **own)
    return dataclasses.replace(config, data=data)


def split_seed(config: RunConfig) -> int:
    """The seed of the split of a configuration's images."""
    return config.seed if config.data.split_seed is None else config.data.split_seed


def _refuse_overwriting(run: RunFolder, own: Path | None) -> None:
    """Rejects the folder of another run for results.

    Raises:
      UsageError: it is one.
    """
    is_own = own is not None and run.path.resolve() == own.resolve()
    if run.config.is_file() and not is_own:
        raise UsageError(
            f"{run.path} has the run of another model, whose results would be overwritten: "
            "choose another --output."
        )
