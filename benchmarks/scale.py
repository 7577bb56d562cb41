"""ImageNet on 1 to 256 workers, simulated from times that are measured here.

    python -m benchmarks.scale
    python -m benchmarks.scale --times times.json     # measured once, kept, and read again
    python -m benchmarks.scale --times times.json --faster 100 --price 1.5

Measures, in processes of a core each, every batch of an AutoAttack on the CIFAR-10 network of the
shared folder, what a Ray cluster's start and an empty task cost, an image through the network that
ImageNet is evaluated with, and steps of training (`benchmarks.scaling`); then the same evaluation
on one and on two Ray nodes, which the simulation (`benchmarks.simulation`) has to meet. From
these it works out an evaluation of ImageNet's 50,000 validation images under AutoAttack and an
adversarial training of 90 epochs: time, cost, and the part of the workers' time that goes into
the work.

Of ImageNet itself are taken: how many images stand at the end (--clean, --robust; by default of
a robust ResNet-50, Salman et al., 2020, https://arxiv.org/abs/2007.08489, as RobustBench lists
it), how fast the network between machines is, and the price. How a batch's time differs from
another's, and which part of the images each attack fells, is as in what was measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scaling, task_times
from benchmarks.simulation import Machines, Phase, Spent, evaluation, training_step
from tfrobust.io import read_json, write_json

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
IMAGES, SIDE = 50_000, task_times.SIDE
Found = dict[str, Any]


def main() -> int:
    """Measures or reads, and prints; see the module's docstring."""
    args = _parser().parse_args()
    found: Found = {}
    if args.times and args.times.is_file():
        found = read_json(args.times)
    for part, measure in (("evaluation", lambda: task_times.measured(args)),
                          ("training", _training_times)):  # fmt: skip
        if part not in found:
            found[part] = measure()
            if args.times:
                write_json(args.times, found)
    measured = found["evaluation"]
    _check_evaluation(measured)
    _check_training(found["training"], args.gigabits)
    _evaluation_table(measured, args)
    _training_table(found["training"], args)
    return 0


def phases_of(tasks: Found, column: int = 1) -> list[Phase]:
    """The phases as they were measured; the first batch of each has traced its attack.

    Args:
      tasks: what was measured.
      column: of a batch: 1 is its seconds, 2 those that it had the core.
    """
    found = []
    for phase in tasks["phases"]:
        images, seconds = np.array(phase["batches"])[:, [0, column]].T
        later = seconds[1:] / images[1:]
        usual = images[0] * float(np.median(later)) if len(later) else seconds[0]
        first = max(0.0, seconds[0] - usual)
        found.append(Phase(phase["name"], np.array([seconds[0] - first, *seconds[1:]]), first))
    return found


def replayed(phases: list[Phase], ran: Found) -> list[Phase]:
    """The phases with what Ray has seen of each batch, traces too."""
    counts = [len(phase.seconds) for phase in phases]
    seen = np.array(ran["batches"])
    if len(seen) != sum(counts):
        raise SystemExit(f"error: expected {sum(counts)} batches, Ray has seen {len(seen)}.")
    parts = np.split(seen, np.cumsum(counts)[:-1])
    return [Phase(one.name, part) for one, part in zip(phases, parts, strict=True)]


def phases_at_scale(tasks: Found, passes: Found, args: argparse.Namespace) -> list[Phase]:
    """The phases of ImageNet's images: each batch's time is drawn from those measured.

    An image takes as many passes as it took there, each as long as the network's takes.
    """
    rng = np.random.default_rng(0)
    # What others did on this machine is not part of it.
    small, found = phases_of(tasks, column=2), []
    standing = np.array([sum(row[0] for row in phase["batches"]) for phase in tasks["phases"]])
    # Of what falls to the attacks, the part that stands before each.
    left = (standing[1:] - tasks["standing"]) / max(standing[1] - tasks["standing"], 1)
    shares = [1.0, *(args.robust + (args.clean - args.robust) * left)]
    for share, phase, measured in zip(shares, tasks["phases"], small, strict=True):
        images, _, _, forward, backward = np.array(phase["batches"]).T
        each = measured.seconds / images
        # A gradient's pass forward is among those that are counted forward.
        one = passes["forward"] * (forward - backward) + passes["gradient"] * backward
        factor = one.sum() / images.sum() / (measured.seconds.sum() / images.sum())
        sizes = _sizes(round(share * IMAGES), args.batch)
        seconds = sizes * rng.choice(each, len(sizes)) * factor / args.faster
        found.append(Phase(phase["name"], seconds, measured.first))
    return found


def _sizes(images: int, most: int) -> np.ndarray:
    from tfrobust.evaluation.batches import even_batches

    return np.array([len(one) for one in even_batches(np.arange(images), most)], float)


def machines(found: Found, workers: int, payload: float, gigabits: float | None) -> Machines:
    """Workers whose tasks cost the driver what empty ones did, and their way over the network."""
    (small, a), (large, b) = ((row["bytes"], row["seconds"]) for row in found["empty"]["rows"])
    slope = max(0.0, (b - a) / (large - small))
    send = max(0.0, a - slope * small) + slope * payload
    wire = payload * 8 / (gigabits * 1e9) if gigabits else 0.0
    return Machines(workers, start=found["empty"]["start"], send=send + wire)


def _check_evaluation(found: Found) -> None:
    tasks = found["tasks"]
    phases = phases_of(tasks)
    images = tasks["images"]
    payload = 3072 * float(np.mean([row[0] for one in tasks["phases"] for row in one["batches"]]))
    print(f"AutoAttack, CIFAR-10, {images} images, a core each: simulated and measured")
    print(f"{'':<30}{'simulated s':>12}{'measured s':>12}{'error':>8}")
    print(f"{'without Ray':<30}{'':>12}{tasks['seconds']:12.1f}")
    for workers in (1, 2):
        ran, on = found[f"nodes{workers}"], machines(found, workers, payload, None)
        # By what this core took for each batch, and by what the workers took in that very run:
        # the second is right as far as the schedule is.
        for name, known in (("times of one core", phases), ("its own", replayed(phases, ran))):
            here = evaluation(known, on).seconds + tasks["own"]
            print(f"{f'{workers} Ray nodes, {name}':<30}{here:12.1f}{ran['seconds']:12.1f}"
                  f"{here / ran['seconds'] - 1:8.0%}")  # fmt: skip


def _check_training(times: Found, gigabits: float) -> None:
    """What two workers took, and what the network alone would have them take."""
    here = _seconds_apart(times) + _wire(times, gigabits)
    there = times["together"]["seconds"]
    print("\na step of training by two workers: simulated with the network alone, and measured")
    print(f"{'':<30}{here:12.2f}{there:12.2f}{here / there - 1:8.0%}")


def _seconds_apart(times: Found) -> float:
    return float(times["apart"]["seconds"])


def _wire(times: Found, gigabits: float) -> float:
    """Seconds in which two send each other their gradients."""
    return float(times["apart"]["megabytes"]) * 2**20 * 8 / (gigabits * 1e9)


def _exchange(times: Found) -> float:
    """Seconds of the exchange as it was measured, TensorFlow's own work on it too."""
    return max(0.0, float(times["together"]["seconds"]) - _seconds_apart(times))


def _evaluation_table(found: Found, args: argparse.Namespace) -> None:
    phases = phases_at_scale(found["tasks"], found["passes"], args)
    print(f"\nImageNet, {IMAGES:,} images, AutoAttack, {found['passes']['backbone']}, batches of "
          f"{args.batch}, {_kind(args)}")  # fmt: skip
    print("batches: " + ", ".join(f"{one.name} {len(one.seconds)}" for one in phases))
    print(f"{'workers':>8}{'hours':>10}{'cost $':>10}{'efficiency':>12}{'driver':>8}")
    for workers in WORKERS:
        payload = args.batch * SIDE * SIDE * 3.0
        spent = evaluation(phases, machines(found, workers, payload, args.gigabits))
        _row(spent, workers, args)


def _row(spent: Spent, workers: int, args: argparse.Namespace) -> None:
    hours = spent.seconds / 3600
    print(f"{workers:8}{hours:10,.1f}{hours * workers * args.price:10,.0f}"
          f"{spent.efficiency(workers):12.2f}{spent.driver / spent.seconds:8.1%}")  # fmt: skip


def _training_table(times: Found, args: argparse.Namespace) -> None:
    steps, rng = np.array(times["apart"]["steps"]), np.random.default_rng(0)
    # Differences between steps as they were measured, around what a step takes.
    steps = steps / steps.mean() * _seconds_apart(times) / args.faster
    print(
        f"\nImageNet, {scaling.EPOCHS} epochs, mobilenetv2, PGD of 2 steps, 16 images a worker, "
        f"{_kind(args)};\nthe exchange at {args.gigabits:g} Gbit/s, and as measured here"
    )
    print(f"{'workers':>8}" + 2 * f"{'hours':>10}{'cost $':>10}{'efficiency':>12}")
    for workers in WORKERS:
        print(f"{workers:8}", end="")
        for exchange in (_wire(times, args.gigabits), _exchange(times)):
            step = training_step(steps, workers, exchange, rng)
            hours = step * scaling.IMAGES * scaling.EPOCHS / (16 * workers) / 3600
            print(f"{hours:10,.1f}{hours * workers * args.price:10,.0f}"
                  f"{steps.mean() / step:12.2f}", end="")  # fmt: skip
        print()


def _kind(args: argparse.Namespace) -> str:
    speed = "like this core" if args.faster == 1 else f"{args.faster:g} times as fast as this core"
    return f"workers {speed} at ${args.price:g} an hour"


def _training_times() -> Found:
    """Steps of two workers that know nothing of each other, and of two together."""
    asked = scaling.make_parser().parse_args([])
    clusters = {"apart": [1, 1], "together": [2, 2]}
    return {name: scaling.run_workers(asked, workers) for name, workers in clusters.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="ImageNet on 1 to 256 workers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--times", type=Path, default=None, help="file of measured times: read, or written")
    add("--batch", type=int, default=128, help="images in a batch of ImageNet")
    add("--clean", type=float, default=0.640, help="accuracy without attack on ImageNet")
    add("--robust", type=float, default=0.350, help="accuracy under AutoAttack")
    add("--gigabits", type=float, default=10.0, help="a second, from the driver and between "
        "workers")  # fmt: skip
    add("--faster", type=float, default=1.0, help="than this core, is a worker")
    add("--price", type=float, default=0.04, help="dollars, of a worker for an hour")
    task_times.add_flags(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
