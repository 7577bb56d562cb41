"""Times of an evaluation's batches on one core, and what a Ray cluster adds: for `scale`.

Each part runs in a process of its own, which prints what it found as JSON:

- tasks: each batch of each attack of an evaluation without Ray, and what its driver does itself;
- whole: the same evaluation on a cluster, with RAY_ADDRESS, and its batches as Ray has seen them;
- empty: what tasks that do nothing cost there, with a small and a large payload, and the start;
- passes: an image forward and backward through the network that ImageNet is evaluated with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import engines
from benchmarks.cluster import OWN, Nodes, opened, with_reference
from benchmarks.measuring import shared_folder
from tfrobust.workers import Piece, Workers

Found = dict[str, Any]
# Of the network and images of ImageNet.
SIDE, CLASSES = 224, 1000


def measured(args: argparse.Namespace) -> Found:
    """All parts, those of one core and of one and two nodes one after the other.

    Raises:
      SystemExit: Ray or the shared folder is missing, or a part fails.
    """
    shared_folder()
    if not engines.is_there("ray"):
        raise SystemExit("error: Ray is not installed: pip install 'tfrobust[cluster]'")
    os.environ.update(OWN)
    found = {"tasks": _run("tasks", args, core=0), "passes": _run("passes", args, core=0)}
    for count in (1, 2):
        with Nodes(count) as nodes:
            found[f"nodes{count}"] = _run("whole", args, nodes.address)
            if count == 2:
                found["empty"] = _run("empty", args, nodes.address)
    return found


def _run(part: str, args: argparse.Namespace, address: str = "", core: int | None = None) -> Found:
    command = [
        sys.executable, "-m", "benchmarks.task_times", part, "--images", str(args.images),
        "--batch-size", str(args.batch_size), "--attack", args.attack,
        "--backbone", args.backbone,
    ]  # fmt: skip
    one = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    env = {**os.environ, **one, "TF_CPP_MIN_LOG_LEVEL": "3"}
    env |= {"RAY_ADDRESS": address} if address else {}
    pin = [] if core is None else ["--core", str(core)]
    done = subprocess.run([*command, *pin], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {part} failed:\n{done.stderr[-3000:]}")
    read: Found = json.loads(done.stdout.strip().splitlines()[-1])
    return read


class Timed:
    """This thread, which notes what each batch takes.

    Attributes:
      phases: of each call of `map` the attack, and of each batch its images, seconds, those of
        them that this process had the core, and examples forward and backward.
    """

    def __init__(self) -> None:
        self.phases: list[Found] = []

    def map(
        self, work: Any, method: str, pieces: Iterable[Piece], shared: Piece = ()
    ) -> Generator[list[Any], None, None]:
        """As in `Workers`, one at a time."""
        call, batches = getattr(work, method), list[list[float]]()
        name = type(shared[0]).__name__ if shared else method
        self.phases.append({"name": name, "batches": batches})
        for piece in pieces:
            begin, had = time.perf_counter(), time.process_time()
            found = call(*shared, *piece)
            spent = time.perf_counter() - begin, time.process_time() - had
            counts = map(int, found[-1] if method == "attack" else (len(piece[0]), 0))
            batches.append([len(piece[0]), *spent, *counts])
            yield [found]


def _evaluated(args: argparse.Namespace, workers: Workers) -> tuple[list[str], int]:
    """The names of the attacks, in order, and how many images stand at the end."""
    from tfrobust.attacks.named import make_attacks
    from tfrobust.config import EvaluationConfig
    from tfrobust.evaluation.evaluate import cascade
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.threat_model import ThreatModel

    subject, data = args.opened
    evaluator = Evaluator(subject.model, data, batch_size=args.batch_size, workers=workers)
    config = EvaluationConfig(attacks=tuple(args.attack.split(",")))
    attacks = make_attacks(config, evaluator.classifier.classes, subject.config.threat.norm)
    found = cascade(evaluator, attacks, ThreatModel.from_config(subject.config.threat))
    return list(attacks), int(found[-1].outcome.correct.sum())


def _tasks(args: argparse.Namespace) -> Found:
    workers, begin = Timed(), time.perf_counter()
    names, standing = _evaluated(args, workers)
    seconds = time.perf_counter() - begin
    # An attack with restarts has several phases: they keep the name of its kind.
    if len(workers.phases) == len(names) + 1:
        for phase, name in zip(workers.phases[1:], names, strict=True):
            phase["name"] = name
    inside = sum(batch[1] for phase in workers.phases for batch in phase["batches"])
    return {"seconds": seconds, "own": seconds - inside, "phases": workers.phases,
            "images": len(args.opened[1]), "standing": standing}  # fmt: skip


def _whole(args: argparse.Namespace) -> Found:
    from tfrobust.cluster.pool import opened_workers

    begin = time.perf_counter()
    with opened_workers("ray") as workers:
        assert workers is not None
        _evaluated(args, workers)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "batches": _seen_by_ray()}


def _seen_by_ray() -> list[float]:
    """Seconds of each task in its worker, in the order in which they began."""
    import ray

    # Workers tell of their tasks once a second.
    time.sleep(3)
    tasks = [one for one in ray.timeline() if one["cat"] == "task::do"]
    return [one["dur"] / 1e6 for one in sorted(tasks, key=lambda one: float(one["ts"]))]


class _Nothing:
    """Takes a batch and gives verdicts back, without any work; it holds the model all the same."""

    def __init__(self, judge: Any) -> None:
        self._judge = judge

    def done(self, x: np.ndarray, y: np.ndarray, seed: np.ndarray) -> list[np.ndarray]:
        """As long as verdicts are."""
        return [y, y.astype(np.float32), y > 0, y > 0, seed]


def _empty(args: argparse.Namespace) -> Found:
    """Seconds of the first task, and of each of many in a row, by the bytes of its images."""
    from tfrobust.cluster.pool import opened_workers
    from tfrobust.evaluation.judge import Judge
    from tfrobust.models.classifier import as_classifier

    subject, data = args.opened
    judge = Judge(as_classifier(subject.model, data.pixels(slice(0, 8))), data.image_shape, "uint8")
    small = data.images[: args.batch_size]
    large = np.zeros((128, SIDE, SIDE, 3), np.uint8)
    found: Found = {"rows": []}
    begin = time.perf_counter()
    with opened_workers("ray") as workers:
        assert workers is not None
        nothing = _Nothing(judge)
        # As many as there are workers twice: each starts.
        _all(workers, nothing, small, 4)
        found["start"] = time.perf_counter() - begin
        for images, count in ((small, 200), (large, 40)):
            _all(workers, nothing, images, 4)
            begin = time.perf_counter()
            _all(workers, nothing, images, count)
            each = (time.perf_counter() - begin) / count
            found["rows"].append({"bytes": int(images.nbytes), "seconds": each})
    return found


def _all(workers: Workers, work: Any, images: np.ndarray, count: int) -> None:
    piece = images, np.zeros(len(images), np.int32), np.zeros(2, np.int32)
    for _ in workers.map(work, "done", (piece for _ in range(count))):
        pass


def _passes(args: argparse.Namespace, batch: int = 8, rounds: int = 5) -> Found:
    """Seconds of an image forward, and forward and backward."""
    from benchmarks.measuring import real_batch
    from tfrobust.attacks.ascent import input_gradient
    from tfrobust.backbones import build
    from tfrobust.models.classifier import as_classifier
    from tfrobust.models.inference import attackable
    from tfrobust.runtime import tf

    x, y = real_batch(batch, SIDE)
    model = build(args.backbone, num_classes=CLASSES, image_shape=(SIDE, SIDE, 3), seed=0)
    logits = attackable(as_classifier(model, x.numpy()))
    forward = tf.function(logits, autograph=False)
    backward = tf.function(
        lambda x: input_gradient(logits, x, y, "cross_entropy")[0], autograph=False
    )
    found: Found = {"backbone": args.backbone}
    for name, call in (("forward", forward), ("gradient", backward)):
        times = [_core_seconds(call, x) for _ in range(rounds + 1)]
        # The first traces.
        found[name] = float(np.median(times[1:])) / batch
    return found


def _core_seconds(call: Callable[..., Any], x: Any) -> float:
    """That the process has had the core: a busy machine does not change them."""
    begin = time.process_time()
    call(x).numpy()
    return time.process_time() - begin


def main() -> int:
    """One part; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_times")
    parser.add_argument("part", choices=["tasks", "whole", "empty", "passes"])
    add_flags(parser)
    parser.add_argument("--core", type=int, default=None, help="to stay on")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[args.core]})
    if args.part != "passes":
        # What a run folder would name.
        args.model = args.data = args.eps = None
        args.result = Path("unused")
        args.opened = opened(with_reference(args))
    parts = {"tasks": _tasks, "whole": _whole, "empty": _empty, "passes": _passes}
    print(json.dumps(parts[args.part](args)))
    return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What is measured."""
    add = parser.add_argument
    add("--images", type=int, default=256, help="of the evaluation that is measured")
    add("--batch-size", type=int, default=16, help="of that evaluation")
    add("--attack", default="autoattack", help="attacks or a suite")
    add("--backbone", default="resnet50", help="network of the evaluation on ImageNet")


if __name__ == "__main__":
    raise SystemExit(main())
