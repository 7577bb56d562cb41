"""One process's part in a training: alone, or as one of the workers that train together."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.config import RunConfig
from tfrobust.io import read_json
from tfrobust.jobs.images import load_splits
from tfrobust.jobs.network import build_network
from tfrobust.jobs.plan import Plan
from tfrobust.progress import Tell
from tfrobust.run import RunFolder
from tfrobust.runtime import import_quietly, setup

if TYPE_CHECKING:
    from tfrobust.data.types import Splits
    from tfrobust.distribution import Worker


def take_part(
    plan: Plan, run: RunFolder, strategy: str, *, resume: bool, tell: Tell
) -> tuple[RunConfig, Splits | None]:
    """Trains as one of the workers, or alone; images come back to the chief, who has more to do."""
    import_quietly()
    spread, worker = _join(run, plan.config, strategy, resume)
    if not worker.is_chief and spread.num_replicas_in_sync == 1:
        tell(f"Worker {worker.index} has nothing to do: training has ended.")
        return plan.config, None
    job = _Training(run, resume, strategy, spread, worker, tell)
    config, splits, facts = job.read(plan)
    if not worker.is_chief:
        job.help_out(config, splits)
        return config, None
    job.begin(config, splits, facts)
    job.fit(run, config, splits)
    return config, splits


def take_part_on_ray(plan: Plan, run: RunFolder, strategy: str) -> None:
    """What a worker of a cluster does, each time that it is started."""
    take_part(plan, run, strategy, resume=True, tell=functools.partial(print, flush=True))


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


def _join(run: RunFolder, config: RunConfig, strategy: str, resume: bool) -> tuple[Any, Worker]:
    """The strategy, and this process's part in it.

    A chief that was killed after the training does the rest alone: the others have ended, and
    nothing would start them again.
    """
    from tfrobust.distribution import make_strategy, this_worker, worker_of

    if strategy == "multiworker" and resume and has_trained(run, config):
        return make_strategy("none"), worker_of(os.environ.get("TF_CONFIG", ""))
    spread = make_strategy(strategy)
    return spread, this_worker(spread)


def has_trained(run: RunFolder, config: RunConfig) -> bool:
    """Whether all stages of the training are done."""
    try:
        stage = read_json(run.state)["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(stage >= len(config.training.stages))


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
