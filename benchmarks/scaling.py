"""Two workers compared with one, and the projection for ImageNet on 1, 8 and 64.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --backbone resnet50 --method pgd --side 224 --batch-size 16

Measures steps of adversarial training in real processes on this machine, one core each: one worker
alone; two independent ones, which shows the cost of sharing caches and memory; then two that
exchange each step's gradients over 127.0.0.1 (MultiWorkerMirroredStrategy). Efficiency is the
images per second of two over twice those of one. The table for ImageNet follows from the measured
time of a step and the bytes of the weights, of which a ring all-reduce sends 2 (n - 1) / n after
the step: once at the full speed of the given network, and once at the speed measured here, which
includes TensorFlow's work on the exchange. The truth lies between, usually near the second. The
projection ignores reading the images, stragglers, and evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

# ImageNet-1k, and the epochs of the usual schedule.
IMAGES, EPOCHS = 1_281_167, 90
_WARM, _STEPS = 3, 12


def main() -> int:
    """Measures and prints; see the module's docstring."""
    args = make_parser().parse_args()
    if args.worker:
        print(json.dumps(_measure(args)))
        return 0
    print(f"{args.backbone}, {args.side}x{args.side}, --method {args.method} "
          f"({args.steps} steps), {args.batch_size} images a worker, a core each")  # fmt: skip
    one = run_workers(args, [1])
    _row("1 worker", args, one, one, 1)
    apart, together = run_workers(args, [1, 1]), run_workers(args, [2, 2])
    _row("2 apart", args, one, apart, 2)
    _row("2 workers", args, one, together, 2)
    _imagenet(args, one, max(together["seconds"] - apart["seconds"], 0.0))
    return 0


def _row(
    name: str, args: argparse.Namespace, one: dict[str, Any], found: dict[str, Any], count: int
) -> None:
    speed = count * args.batch_size / found["seconds"]
    print(f"{name:<10}{found['seconds'] * 1e3:8.0f} ms per step{speed:8.1f} images/s, "
          f"efficiency {one['seconds'] / found['seconds']:.2f}", flush=True)  # fmt: skip


def _imagenet(args: argparse.Namespace, one: dict[str, Any], measured: float) -> None:
    """What the epochs cost, by the network's speed and by that of the exchange measured here.

    Args:
      args: the benchmark's arguments.
      one: the measurements of one worker.
      measured: seconds in which two workers exchanged their gradients.
    """
    print(
        f"\nImageNet, {EPOCHS} epochs, workers like this core, {one['megabytes']:.0f} MB of "
        "weights; computed from the numbers above"
    )
    network = one["megabytes"] * 2**20 / (args.gigabits * 1e9 / 8)
    for name, seconds in ((f"at {args.gigabits:g} Gbit/s", network), ("as measured", measured)):
        print(f"exchange {name}: {seconds * 1e3:.0f} ms for two")
        print(f"{'workers':>8}{'step ms':>9}{'images/s':>10}{'efficiency':>12}{'days':>9}"
              f"{'core-hours':>12}")  # fmt: skip
        for count in (1, 8, 64):
            # Two workers send as many bytes as the weights have.
            step = one["seconds"] + 2 * (count - 1) / count * seconds
            speed = count * args.batch_size / step
            days = IMAGES * EPOCHS / speed / 86_400
            print(f"{count:8}{step * 1e3:9.0f}{speed:10.1f}{one['seconds'] / step:12.2f}"
                  f"{days:9.1f}{days * 24 * count:12,.0f}")  # fmt: skip


def run_workers(args: argparse.Namespace, clusters: list[int]) -> dict[str, Any]:
    """What the slowest process has found; clusters: how many workers the cluster of each has."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < len(clusters):
        raise SystemExit(f"error: expected {len(clusters)} cores, found {len(cores)}.")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(clusters))]
    running = []
    for index, workers in enumerate(clusters):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {**os.environ, "TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [
            sys.executable, "-m", "benchmarks.scaling", "--worker", str(cores[index]),
            "--backbone", args.backbone, "--method", args.method, "--side", str(args.side),
            "--batch-size", str(args.batch_size), "--steps", str(args.steps),
            "--workers", str(workers),
        ]  # fmt: skip
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True))  # fmt: skip
    found = []
    for process in running:
        out, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"error: a worker failed:\n{errors[-2000:]}")
        found.append(json.loads(out.strip().splitlines()[-1]))
    return max(found, key=lambda one: one["seconds"])


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    """What one worker does: trains for some steps, and times the later ones."""
    os.sched_setaffinity(0, {int(args.worker)})
    from tfrobust.attacks.gradient import PGD
    from tfrobust.backbones import build
    from tfrobust.distribution import make_strategy
    from tfrobust.runtime import keras
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training import METHODS
    from tfrobust.training.recipe import Recipe

    strategy = make_strategy("multiworker" if args.workers > 1 else "none")
    shape = (args.side, args.side, 3)
    with strategy.scope():
        model = build(args.backbone, num_classes=1000, image_shape=shape, seed=0)
        attack = PGD(steps=args.steps, early_stop=False)
        method = METHODS[args.method].step()(model, Recipe(ThreatModel("linf", 4 / 255), attack))
        optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
        optimizer.build(model.trainable_variables)
        method.compile(optimizer)
    clock = _Clock()
    method.fit(_batches(args, shape), epochs=1, steps_per_epoch=_WARM + _STEPS, verbose=0,
               callbacks=[clock.callback()])  # fmt: skip
    weights = sum(int(v.shape.num_elements()) for v in model.trainable_variables)
    return {
        "seconds": clock.seconds, "megabytes": weights * 4 / 2**20, "steps": clock.core_steps,
    }  # fmt: skip


def _batches(args: argparse.Namespace, shape: tuple[int, int, int]) -> Any:
    from benchmarks.measuring import real_batch
    from tfrobust.runtime import tf

    image, label = real_batch(args.batch_size * args.workers, shape[0])
    data = tf.data.Dataset.from_tensors({"image": image, "label": label}).repeat()
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    options.autotune.enabled = False
    return data.with_options(options)


class _Clock:
    """Seconds per step, without the first few steps."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.core: list[float] = []

    @property
    def seconds(self) -> float:
        kept = self.times[_WARM:]
        return (kept[-1] - kept[0]) / (len(kept) - 1)

    @property
    def core_steps(self) -> list[float]:
        """Seconds of each step that counts that this process has had its core."""
        kept = self.core[_WARM:]
        return [after - before for before, after in zip(kept, kept[1:], strict=False)]

    def callback(self) -> Any:
        from tfrobust.runtime import keras

        def note(batch: int, logs: Any) -> None:
            self.times.append(time.perf_counter())
            self.core.append(time.process_time())

        return keras.callbacks.LambdaCallback(on_batch_end=note)


def free_ports(count: int) -> list[int]:
    """Free ports of this machine."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def make_parser() -> argparse.ArgumentParser:
    """What is trained."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description="Two workers compared with one.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--backbone", default="mobilenetv2", help="network")
    add("--method", default="pgd", help="training method")
    add("--side", type=int, default=224, help="side of the images, in pixels")
    add("--batch-size", type=int, default=16, help="images per worker")
    add("--steps", type=int, default=2, help="steps of the training attack")
    add("--gigabits", type=float, default=10.0, help="Gbit/s between workers, for ImageNet")
    add("--worker", default=None, help=argparse.SUPPRESS)
    add("--workers", type=int, default=1, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
