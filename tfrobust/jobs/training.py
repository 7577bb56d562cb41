"""The main job: trains a robust classifier, measures it, explains it and exports it."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.jobs.evaluation import EvaluateResult, evaluate
from tfrobust.jobs.explanation import explain_examples
from tfrobust.jobs.exporting import export_saved_model
from tfrobust.jobs.images import load_splits, without_seen
from tfrobust.jobs.opening import Subject
from tfrobust.jobs.plan import Plan, as_plan
from tfrobust.jobs.taking_part import has_trained, take_part, take_part_on_ray
from tfrobust.progress import Tell, silent
from tfrobust.run import GUESSES, RunFolder
from tfrobust.runtime import import_quietly, setup
from tfrobust.settings import from_dict, merge, to_dict
from tfrobust.training.defaults import AUTO

if TYPE_CHECKING:
    from tfrobust.cluster import Ray
    from tfrobust.data.types import ImageSet, Splits
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
    strategy: str = "none", on: str | Ray | None = None, workers: int | None = None,
    reference: Path | str | None = None, export_anyway: bool = False, tell: Tell = silent,
) -> TrainResult:  # fmt: skip
    """Trains, evaluates, explains and exports, in one go.

    Args:
      plan: from `make_plan`, or a whole configuration.
      run: the folder; None is saved_models/DATASET-BACKBONE-METHOD.
      resume: resume a run that was interrupted; its settings hold.
      strategy: what training is spread over: 'none', 'mirrored' (all GPUs of this machine) or
        'multiworker' (the workers in TF_CONFIG).
      on: train, and then evaluate, on a Ray cluster: 'ray', 'ray://HOST:PORT', or a
        `cluster.Ray`, whose cores and GPUs are those of each worker. `run` is a folder that all
        nodes and this process see. Workers that die are replaced, and training goes on.
      workers: the most that train together on the cluster; None is one for each node that it has,
        or for each GPU. Fewer train where nodes are missing.
      reference: a run folder or model file for transfer attacks, as in `evaluate`.
      export_anyway: export even a model that is no better than guessing.
      tell: is told what is done, a line at a time.

    Raises:
      UsageError: the folder holds a run already, or one with other settings; a cluster without
        Ray, or settings that several workers cannot keep.
      TFRobustError: the images cannot be read, training fails, or the model has learnt nothing.
    """
    plan = as_plan(plan)
    run = run if isinstance(run, RunFolder) else RunFolder(Path(run or default_output(plan.config)))
    plan = _resumed(plan, run, resume)
    after: dict[str, Any] = {"resume": resume, "reference": reference}
    after |= {"export_anyway": export_anyway, "tell": tell}
    if on is not None or workers is not None:
        return _train_on_ray(plan, run, _cluster_of(on, workers, strategy), workers, after)
    config, splits = take_part(plan, run, strategy, resume=resume, tell=tell)
    if splits is None:
        return TrainResult(run, config)
    return publish(run, config, splits, strategy=strategy, **after)


def _cluster_of(on: str | Ray | None, workers: int | None, strategy: str) -> Ray:
    """The cluster to train on.

    Raises:
      UsageError: none is named, or another way to spread the training as well.
    """
    from tfrobust.cluster import as_ray

    if on is None:
        raise UsageError(f"--workers {workers} is of a cluster: add --on ray.")
    if strategy != "none":
        raise UsageError(f"--on and --strategy {strategy} exclude each other: give one of them.")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers: expected 1 or more, found {workers}.")
    return as_ray(on)


def _train_on_ray(
    plan: Plan, run: RunFolder, cluster: Ray, workers: int | None, after: dict[str, Any]
) -> TrainResult:
    """Has the training done on the cluster, where the evaluation goes too."""
    import_quietly()
    from tfrobust.cluster import connected
    from tfrobust.training.on_ray import Work, fit_on_ray

    run = RunFolder(run.path.resolve())
    setup(seed=plan.config.seed)
    # Errors are told at once, and no two workers download to one file.
    splits = load_splits(plan.config.data, plan.config.seed)
    config = plan.settle(splits)
    with connected(cluster) as ray:
        if not (after["resume"] and has_trained(run, config)):
            part = functools.partial(take_part_on_ray, Plan(config), run)
            work = Work(part, run, config.training)
            fit_on_ray(work, ray, cluster, most=workers, tell=after["tell"])
        return publish(run, run.read_config(), splits, on=cluster, **after)


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


def publish(
    run: RunFolder, config: RunConfig, splits: Splits, *, resume: bool = False,
    strategy: str = "none", on: str | Ray | None = None, reference: Path | str | None = None,
    export_anyway: bool = False, tell: Tell = silent,
) -> TrainResult:  # fmt: skip
    """Measures the kept model, explains it and exports it, unless it has learnt nothing.

    Raises:
      TFRobustError: it has learnt nothing, or one of the jobs fails.
    """
    setup(seed=config.seed)
    subject = _kept(run, config, splits, tell)
    # The other workers have ended with the training.
    alone = "mirrored" if strategy == "mirrored" else "none"
    found = evaluate(subject, reference=reference, resume=resume, strategy=alone, on=on, tell=tell)
    failure = why_it_failed(run, found.report, splits)
    if failure and not export_anyway:
        raise TFRobustError(failure)
    whole = dataclasses.replace(subject, test=splits.test)
    figures = [run.figures / "data.png", run.figures / "curves.png"]
    if config.evaluation.figures:
        figures.append(explain_examples(whole, tell=tell, evaluator=_reusable(found, config)))
    saved = export_saved_model(whole, tell=tell)
    return TrainResult(run, config, found, tuple(figures), saved)


def _reusable(found: EvaluateResult, config: RunConfig) -> Evaluator | None:
    """The evaluation's evaluator, if it holds all test images and the model without noise draws."""
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
