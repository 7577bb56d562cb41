"""An evaluation on two Ray nodes of a core each, beside two processes that share nothing.

    python -m benchmarks.cluster
    python -m benchmarks.cluster saved_models/digits-nsl --images 300 --kill-images 100 --kills 2

Without a model it is the CIFAR-10 network of the shared folder, at L-infinity 2/255.

First the same images under the suite `quick`, a core each: half of them in each of two processes
that know nothing of each other, and all of them by a driver and two nodes of a Ray cluster. Times
begin where model and images are open; those of the cluster hold its workers' start, the import of
TensorFlow in each too. Goal: at least .85 of the speed of the two. Then evaluations during which
a node is killed at a random moment and another one is added: each has to find the very
predictions, confidences and verdicts of one process without Ray. Ray's servers listen on the
loopback device alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import shared_folder
from tfrobust.settings import parse_number

# Before Ray is imported, here and in the drivers: the cluster is of this machine alone.
OWN = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
GOAL = 0.85


def main(words: Sequence[str] | None = None) -> int:
    """Prints what was measured; 0 where the goals are reached."""
    args = with_reference(_parser().parse_args(words))
    if args.part:
        _one_part(args)
        return 0
    os.environ.update(OWN)
    with tempfile.TemporaryDirectory(prefix="tfrobust-cluster-") as folder, Nodes() as nodes:
        apart, together = _speeds(args, Path(folder), nodes)
        ratio = apart / together
        print(f"{args.model.name}, {args.images} images, {args.attack}, a core each\n"
              f"2 processes apart {apart:8.1f} s{args.images / apart:8.1f} images/s\n"
              f"2 Ray nodes       {together:8.1f} s{args.images / together:8.1f} images/s, "
              f"{ratio:.2f} of their speed (goal {GOAL})", flush=True)  # fmt: skip
        same = _kills(args, Path(folder), nodes)
    print(f"{same} of {args.kills} evaluations with a node killed found the same for every image")
    return 0 if ratio >= GOAL and same == args.kills else 1


def _speeds(args: argparse.Namespace, folder: Path, nodes: Nodes) -> tuple[float, float]:
    """Seconds of the two processes, and of the cluster."""
    halves = [folder / "1.npz", folder / "2.npz"]
    _wait([_started(args, path, args.images, f"{path.stem}/2") for path in halves])
    whole = folder / "all.npz"
    _wait([_started(args, whole, args.images, "1/1", nodes.address)])
    return max(map(_seconds, halves)), _seconds(whole)


def _seconds(path: Path) -> float:
    import numpy as np

    with np.load(path) as found:
        return float(found["seconds"])


def _kills(args: argparse.Namespace, folder: Path, nodes: Nodes) -> int:
    """How many evaluations with a node killed found what this machine finds alone."""
    if not args.kills:
        return 0
    import numpy as np

    alone, undisturbed = folder / "alone.npz", folder / "undisturbed.npz"
    _wait([_started(args, alone, args.kill_images, "1/1")])
    start = time.perf_counter()
    _wait([_started(args, undisturbed, args.kill_images, "1/1", nodes.address)])
    whole = time.perf_counter() - start
    # Before that the driver opens model and images.
    first = whole - _seconds(undisturbed)
    same, draw = 0, random.Random(args.seed)
    for turn in range(args.kills):
        path = folder / f"kill{turn}.npz"
        driver = _started(args, path, args.kill_images, "1/1", nodes.address)
        moment, killed = draw.uniform(first, whole), False
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(moment)
        if driver.poll() is None:
            nodes.replace(draw.randrange(2))
            killed = True
        _wait([driver])
        with np.load(alone) as one, np.load(path) as other:
            names = [name for name in one.files if name != "seconds"]
            alike = all(np.array_equal(one[name], other[name]) for name in names)
        same += alike and killed
        print(f"node killed after {moment:.0f} s: {'the same' if alike else 'NOT the same'}"
              f"{'' if killed else ', but it had ended before'}", flush=True)  # fmt: skip
    return same


def _started(
    args: argparse.Namespace, path: Path, images: int, part: str, address: str | None = None
) -> subprocess.Popen[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "benchmarks.cluster", str(args.model), "--images", str(images),
        "--attack", args.attack, "--part", part, "--result", str(path),
        *(["--data", args.data] if args.data else []),
        *(["--eps", str(args.eps)] if args.eps else []),
    ]  # fmt: skip
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    env = {**os.environ, **threads, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if address:
        env["RAY_ADDRESS"] = address
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def _wait(running: list[subprocess.Popen[str]]) -> None:
    for process in running:
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"error: an evaluation failed:\n{errors[-3000:]}")


def _one_part(args: argparse.Namespace) -> None:
    """What one of the processes does: its part of the images, and all verdicts into a file."""
    import numpy as np

    from tfrobust.cluster.pool import opened_workers
    from tfrobust.config import EvaluationConfig
    from tfrobust.evaluation.evaluate import cascade
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.threat_model import ThreatModel
    from tfrobust.workers import Threads

    place, count = map(int, args.part.split("/"))
    if count > 1:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[place - 1]})
    subject, data = opened(args)
    data = data.subset(np.arange(place - 1, len(data), count))
    start = time.perf_counter()
    with opened_workers("ray" if "RAY_ADDRESS" in os.environ else None) as workers:
        from tfrobust.attacks.named import make_attacks

        evaluator = Evaluator(subject.model, data, workers=workers or Threads(at_once=1))
        config = EvaluationConfig(attacks=tuple(args.attack.split(",")))
        attacks = make_attacks(config, evaluator.classifier.classes, subject.config.threat.norm)
        results = cascade(evaluator, attacks, ThreatModel.from_config(subject.config.threat))
    outcomes = [("clean", evaluator.clean), *((one.name, one.outcome) for one in results)]
    arrays = {f"{name}/{key}": value for name, outcome in outcomes
              for key, value in vars(outcome).items()}  # fmt: skip
    np.savez(args.result, seconds=time.perf_counter() - start, **arrays)


def opened(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model with its settings, and the images that are drawn."""
    from tfrobust.jobs.images import sample
    from tfrobust.jobs.opening import open_subject

    eps = args.eps or (2 / 255 if args.data else None)
    settings: dict[str, Any] = {"data": {"dataset": args.data}} if args.data else {}
    settings |= {"threat": {"eps": eps}} if eps else {}
    subject = open_subject(args.model, settings, output=args.result.with_suffix(".run"))
    return subject, sample(subject.test, args.images, 42)


class Nodes:
    """A cluster whose head works on nothing, and nodes of a core each.

    Args:
      count: of the nodes.
    """

    def __init__(self, count: int = 2) -> None:
        self._count = count

    def __enter__(self) -> Nodes:
        from ray.cluster_utils import Cluster

        self._cores = sorted(os.sched_getaffinity(0))[: self._count]
        if len(self._cores) < self._count:
            raise SystemExit(f"error: expected {self._count} cores, found {len(self._cores)}.")
        head = {"num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self._nodes = [self._added(core) for core in self._cores]
        return self

    def __exit__(self, *_: Any) -> None:
        self._cluster.shutdown()

    def replace(self, place: int) -> None:
        """Kills a node with all of its processes, and adds another one."""
        self._cluster.remove_node(self._nodes[place], allow_graceful=False)
        self._nodes[place] = self._added(self._cores[place])

    def _added(self, core: int) -> Any:
        with on_core(core):
            return self._cluster.add_node(num_cpus=1)


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes that are started meanwhile stay on one core."""
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, kept)


def with_reference(args: argparse.Namespace) -> argparse.Namespace:
    """With the network and images of the shared folder, where none are named."""
    if args.model is None:
        args.model = shared_folder() / "reference" / "resnet2b.h5"
        args.data = args.data or str(shared_folder() / "cifar10-images.zip")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description="Two Ray nodes against two processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("model", nargs="?", type=Path, default=None, help="run folder, or model file with --data")
    add("--data", default=None, help="its images, by name or path, in place of its own")
    add("--eps", type=parse_number, default=None, help="of the ball, such as 8/255 (default: the "
        "run's, or 2/255)")  # fmt: skip
    add("--images", type=int, default=5_000, help="of the comparison of speeds")
    add("--attack", default="quick", help="attacks or a suite")
    add("--kills", type=int, default=10, help="evaluations during which a node is killed")
    add("--kill-images", type=int, default=500, help="of those evaluations")
    add("--seed", type=int, default=0, help="of the moments")
    add("--part", default=None, help=argparse.SUPPRESS)
    add("--result", type=Path, default=None, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
