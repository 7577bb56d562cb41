"""The main job: trains a robust classifier, measures it, explains it and exports it."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.io import read_json
from tfrobust.jobs.evaluation import EvaluateResult, evaluate
from tfrobust.jobs.explanation import explain_examples
from tfrobust.jobs.exporting import export_saved_model
from tfrobust.jobs.images import load_splits, without_seen
from tfrobust.jobs.opening import Subject
from tfrobust.jobs.plan import Plan, as_plan
from tfrobust.progress import Tell, silent
from tfrobust.run import GUESSES, RunFolder
from tfrobust.runtime import import_quietly, setup
from tfrobust.settings import from_dict, merge, to_dict
from tfrobust.tables import is_model_file
from tfrobust.training.defaults import AUTO

if TYPE_CHECKING:
    from tfrobust.data.types import ImageSet, Splits
    from tfrobust.distribution import Worker
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.evaluation.report import RobustnessReport


@dataclass(frozen=True)
class TrainResult:
    """What a training has made.

    Attributes:
      run: the folder with all of it.
      config: the settings that it was trained with.
      evaluation: what the kept model was measured to be; None for a worker that is not the chief,
        which has nothing but trained.
      figures: what was drawn of the training and of what the model looks at.
      saved_model: the exported model; None where `evaluation` is.
    """

    run: RunFolder
    config: RunConfig
    evaluation: EvaluateResult | None = None
    figures: tuple[Path, ...] = ()
    saved_model: Path | None = None

    @property
    def report(self) -> RobustnessReport | None:
        """The measured robustness of the kept model."""
        return self.evaluation.report if self.evaluation else None


def train(
    plan: Plan | RunConfig, run: RunFolder | Path | str | None = None, *, resume: bool = False,
    strategy: str = "none", reference: Path | str | None = None, export_anyway: bool = False,
    tell: Tell = silent,
) -> TrainResult:  # fmt: skip
    """Trains, evaluates, explains and exports, in one go.

    Args:
      plan: from `make_plan`, or a whole configuration.
      run: the folder; None is saved_models/DATASET-BACKBONE-METHOD.
      resume: resume a run that was interrupted; its settings hold.
      strategy: what training is spread over: 'none', 'mirrored' (all GPUs of this machine) or
        'multiworker' (the workers in TF_CONFIG).
      reference: a run folder or model file for transfer attacks, as in `evaluate`.
      export_anyway: export even a model that is no better than guessing.
      tell: is told what is done, a line at a time.

    Raises:
      UsageError: the folder holds a run already, or one with other settings.
      TFRobustError: the images cannot be read, training fails, or the model has learnt nothing.
    """
    plan = as_plan(plan)
    run = run if isinstance(run, RunFolder) else RunFolder(Path(run or default_output(plan.config)))
    plan = _resumed(plan, run, resume)
    import_quietly()
    spread, worker = _join(run, plan.config, strategy, resume)
    if not worker.is_chief and spread.num_replicas_in_sync == 1:
        tell(f"Worker {worker.index} has nothing to do: training has ended.")
        return TrainResult(run, plan.config)
    job = _Training(run, resume, strategy, spread, worker, tell)
    config, splits, facts = job.read(plan)
    if not worker.is_chief:
        job.help_out(config, splits)
        return TrainResult(run, config)
    job.begin(config, splits, facts)
    job.fit(run, config, splits)
    return publish(
        run, config, splits, resume=resume, strategy=strategy, reference=reference,
        export_anyway=export_anyway, tell=tell,
    )  # fmt: skip


def default_output(config: RunConfig) -> str:
    """saved_models/<data set>-<backbone>-<method>."""
    data = Path(config.data.dataset).stem
    names = (config.backbone.name, config.training.method.name)
    # A plug-in or file of the user's own is called by its last part.
    network, method = (Path(name).stem.rpartition(":")[2] for name in names)
    return f"saved_models/{data.rpartition(':')[2]}-{network}-{method}"


def _resumed(plan: Plan, run: RunFolder, resume: bool) -> Plan:
    """The plan, or that of the run that is resumed.

    Raises:
      UsageError: the folder holds a run already, or one with other settings.
    """
    if not run.started():
        return plan
    if not resume:
        raise UsageError(
            f"{run.path} already holds a run: add --resume to resume it, or choose another "
            "--output."
        )
    earlier, asked = run.read_config(), plan.asked.settings
    if asked.get("backbone", {}).get("name") == AUTO:
        asked = {**asked, "backbone": {k: v for k, v in asked["backbone"].items() if k != "name"}}
    if plan.asked.length and not plan.chosen:
        # A length that is asked for is known again in the stages; chosen ones depend on the images.
        stages = to_dict(plan.config)["training"]["stages"]
        asked = merge(asked, {"training": {"stages": stages}})
    changed: RunConfig = from_dict(RunConfig, merge(to_dict(earlier), asked))
    if changed != earlier or (plan.asked.length and plan.chosen):
        raise UsageError(
            f"--resume uses the settings in {run.config}, found others: leave the "
            "settings out, or start a new run in another --output."
        )
    return Plan(earlier)


@dataclass(frozen=True)
class _Training:
    """This process's part in a training.

    Attributes:
      run: the folder.
      resume: whether it goes on with what is there.
      strategy: what training is to be spread over, as the user says it.
      spread: TensorFlow's strategy.
      worker: which of the workers this is.
      tell: is told what is done.
    """

    run: RunFolder
    resume: bool
    strategy: str
    spread: Any
    worker: Worker
    tell: Tell

    def read(self, plan: Plan) -> tuple[RunConfig, Splits, dict[str, Any]]:
        """The settings for the images, the images, and what this machine is."""
        from tfrobust.runtime import environment, native_precision

        setup(seed=plan.config.seed)
        here = environment()
        machine = _machine(here, self.spread, self.worker, self.strategy)
        self.tell(f"Run folder: {self.run.path}\n{machine}")
        splits = load_splits(plan.config.data, plan.config.seed)
        config = native_precision(plan.settle(splits))
        setup(seed=config.seed, precision=config.training.precision)
        return config, splits, here

    def help_out(self, config: RunConfig, splits: Splits) -> None:
        """Trains along with the chief, who keeps what comes of it."""
        from tfrobust.distribution import folder_of

        with folder_of(self.worker, self.run) as own:
            self.fit(own, config, splits, home=self.run)
        self.tell(f"Worker {self.worker.index} is done; the chief runs the evaluation.")

    def begin(self, config: RunConfig, splits: Splits, here: dict[str, Any]) -> None:
        """Leaves in the folder what the run is, and tells it."""
        from tfrobust.data.digests import RunImages

        self.run.create()
        self.run.write_config(config)
        facts = {"seed": config.seed, "commit": _commit(), "data": _sizes(splits)}
        self.run.write_environment({**here, **facts})
        RunImages.of(splits).save(self.run.seen)
        _introduce(config, splits, self.tell)

    def fit(
        self, run: RunFolder, config: RunConfig, splits: Splits, home: RunFolder | None = None
    ) -> None:
        """Builds the network, trains it and draws the curves."""
        from tfrobust.data.summary import data_summary
        from tfrobust.distribution import lost_workers, this_worker
        from tfrobust.figures import draw_figures
        from tfrobust.figures.training import TrainingHistory
        from tfrobust.training.fit import fit

        draw_figures(data_summary(splits, config.data.dataset), run.figures)
        with self.spread.scope():
            model = build_network(config, splits, self.tell)
        with lost_workers(this_worker(self.spread)):
            state = fit(model, splits, config, run, resume=self.resume, home=home)
        chosen = "the best" if config.training.choose == "best" else "the lowest loss"
        self.tell(f"Kept the model of epoch {state.best_epoch}, {chosen} on 'select'.")
        draw_figures(TrainingHistory(state.rows, state.elbow), run.figures)


def _introduce(config: RunConfig, splits: Splits, tell: Tell) -> None:
    """Says what the images are, and what was chosen for them."""
    from tfrobust.data.split import table
    from tfrobust.data.summary import describe, remarks

    tell(f"{describe(splits, config.data.dataset)}\n{table(splits)}")
    for line in remarks(splits):
        tell(f"Note: {line}.")
    if config.chosen:
        tell("\n".join(["Chosen for these images:", *(f"- {why}" for why in config.chosen)]))


def publish(
    run: RunFolder, config: RunConfig, splits: Splits, *, resume: bool = False,
    strategy: str = "none", reference: Path | str | None = None, export_anyway: bool = False,
    tell: Tell = silent,
) -> TrainResult:  # fmt: skip
    """Measures the kept model, explains it and exports it, unless it has learnt nothing.

    Raises:
      TFRobustError: it has learnt nothing, or one of the jobs fails.
    """
    setup(seed=config.seed)
    subject = _kept(run, config, splits, tell)
    # The other workers have ended with the training.
    alone = "mirrored" if strategy == "mirrored" else "none"
    found = evaluate(subject, reference=reference, resume=resume, strategy=alone, tell=tell)
    failure = why_it_failed(run, found.report, splits)
    if failure and not export_anyway:
        raise TFRobustError(failure)
    whole = dataclasses.replace(subject, test=splits.test)
    figures = [run.figures / "data.png", run.figures / "curves.png"]
    if config.evaluation.figures:
        figures.append(explain_examples(whole, tell=tell, evaluator=_again(found, config)))
    saved = export_saved_model(whole, tell=tell)
    return TrainResult(run, config, found, tuple(figures), saved)


def _again(found: EvaluateResult, config: RunConfig) -> Evaluator | None:
    """The evaluator of all test images on the model itself, where there is one."""
    whole = config.evaluation.limit is None and config.evaluation.eot == 1
    return found.evaluator if whole else None


def _kept(run: RunFolder, config: RunConfig, splits: Splits, tell: Tell) -> Subject:
    """The kept model, with the test images that are not in train or select by their content."""
    from tfrobust.models.opening import load_any

    model = load_any(run.best_model)
    test, told = _unseen(run, splits.test, tell)
    return Subject(model, test, config, config, run, run.path.name, run.best_model, told)


def _unseen(run: RunFolder, test: ImageSet, tell: Tell) -> tuple[ImageSet, tuple[str, ...]]:
    """The images that the run has not seen, and what was left out.

    Where all have been seen, all are kept, and it is told.
    """
    try:
        test, told = without_seen(run.path, test)
    except UsageError:
        told = (f"all {len(test):,} test images are in train or select too, by their content: "
                "this is no test accuracy",)  # fmt: skip
    for line in told:
        tell(f"Note: {line}.")
    return test, told


def why_it_failed(run: RunFolder, report: RobustnessReport, splits: Splits) -> str | None:
    """One sentence where the kept model is no better than guessing: what was reached, and why."""
    from tfrobust.training.diagnosis import diagnose
    from tfrobust.training.state import read_state

    if not any(flag["name"] == GUESSES for flag in report.flags):
        return None
    rows = read_state(run).rows
    correct, total = int(report.clean.correct.sum()), len(report.labels)
    return (
        f"The model has learnt nothing: {correct} of {total} test images right, no better than "
        f"guessing; {diagnose(rows, splits.train.labels)}. Nothing was exported (--export-anyway "
        "does it all the same)."
    )


def _join(run: RunFolder, config: RunConfig, strategy: str, resume: bool) -> tuple[Any, Worker]:
    """The strategy, and this process's part in it.

    A chief that was killed after the training does the rest alone: the others have ended, and
    nothing would start them again.
    """
    from tfrobust.distribution import make_strategy, this_worker, worker_of

    if strategy == "multiworker" and resume and _has_trained(run, config):
        return make_strategy("none"), worker_of(os.environ.get("TF_CONFIG", ""))
    spread = make_strategy(strategy)
    return spread, this_worker(spread)


def _has_trained(run: RunFolder, config: RunConfig) -> bool:
    try:
        stage = read_json(run.state)["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(stage >= len(config.training.stages))


def build_network(config: RunConfig, splits: Splits, tell: Tell = silent) -> Any:
    """The classifier that a configuration names, for the classes and images of `splits`."""
    from tfrobust.backbones import build

    backbone = config.backbone
    if is_model_file(backbone.name):
        return own_network(Path(backbone.name), splits, backbone.bn_momentum, tell)
    return build(
        backbone.name,
        num_classes=len(splits.train.label_names),
        image_shape=splits.train.image_shape,
        weights=backbone.weights,
        resize=backbone.resize,
        alpha=backbone.alpha,
        stem=backbone.stem,
        convolution=backbone.convolution,
        position_embedding=backbone.position_embedding,
        bn_momentum=backbone.bn_momentum,
        dropout=backbone.dropout,
        seed=config.seed,
        **backbone.settings,
    )


def own_network(
    path: Path, splits: Splits, bn_momentum: float | None = None, tell: Tell = silent
) -> Any:
    """The classifier in a model file as a flat tf_keras graph of [0, 1] images -> logits.

    Raises:
      UsageError: it is no graph of Keras's own layers, or of other classes or images.
      TFRobustError: the file cannot be read.
    """
    from tfrobust.models.classifier import as_classifier, as_graph
    from tfrobust.models.opening import load_any
    from tfrobust.training.batch_norm import batch_norm_layers

    shape, classes = splits.train.image_shape, len(splits.train.label_names)
    made = as_classifier(load_any(path), splits.train.pixels(slice(0, 64)))
    graph = as_graph(made, shape)
    if graph is None:
        raise UsageError(
            f"--backbone {path}: expected a graph of Keras's own layers, found another; from "
            "Python, tfrobust.robust(model, ...) trains any."
        )
    if made.classes != classes:
        raise UsageError(
            f"--backbone {path}: the model knows {made.classes} classes, the images have {classes}."
        )
    for line in made.notes:
        tell(f"Note: {line}.")
    if bn_momentum is not None:
        for layer in batch_norm_layers(graph):
            layer.momentum = bn_momentum
    return graph


def _sizes(splits: Splits) -> dict[str, Any]:
    sizes = {name: len(getattr(splits, name)) for name in ("train", "select", "test")}
    return {**sizes, "image_shape": list(splits.train.image_shape)}


def _machine(here: dict[str, Any], strategy: Any, worker: Worker, asked: str) -> str:
    versions = here["packages"]
    gpus = ", ".join(here["gpus"]) or "no GPU"
    text = f"TensorFlow {versions['tensorflow']}, {here['cpus']} CPU cores, {gpus}."
    if strategy.num_replicas_in_sync > 1:
        text += (
            f" Worker {worker.index} of {worker.count}, {strategy.num_replicas_in_sync} replicas."
        )
    elif asked == "mirrored":
        text += " --strategy mirrored: found one device, which does all of the work."
    return text


def _commit() -> str | None:
    """The project's commit, where it is run from a checkout."""
    import subprocess

    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return found.stdout.strip() or None
