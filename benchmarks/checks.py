"""Do the checks of an evaluation raise false alarms, or miss unsound models?

    python -m benchmarks.checks --output build/checks
    python -m benchmarks.checks --data digits --models pgd "k-winners-take-all" --seeds 0

Trains sound and unsound models on the digits and on 3,000 CIFAR-10 images, seconds to a minute
each, and evaluates each as a user does who gives nothing but model, images and ball:
`tr.evaluate(model, (x, y), tr.Linf(eps))`. Goal: no flag on a sound model, and on each unsound one
a flag that names its fault, for each seed. A row is written as soon as it is ready: stopped, the
same command resumes. The table is in OUTPUT/table.md and OUTPUT/table.json.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.checks_models import CASES, cases
from benchmarks.checks_training import DATA, Task
from tfrobust.io import read_json, write_json, write_text

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> int:
    """Runs the missing rows, then prints and writes the table; 0 if the goal is reached."""
    args = _parser().parse_args(words)
    for seed in args.seeds:  # seed by seed, so that a stopped run has all models
        for data in args.data:
            for name in cases(data):
                if name in args.models:
                    _complete(Task(data, seed), name, args)
    rows = _rows(args.output)
    print(as_table(rows))
    return 0 if rows and all(map(is_right, rows)) else 1


def _complete(task: Task, name: str, args: argparse.Namespace) -> None:
    """Writes a model's row, unless it exists, and updates the table."""
    slug = re.sub(r"\W+", "-", name).strip("-")
    file = args.output / "rows" / f"{task.data}-{slug}-{task.seed}.json"
    if file.is_file() and not args.again:
        return
    row = measured(task, name)
    write_json(file, row)
    rows = _rows(args.output)
    write_text(args.output / "table.md", as_table(rows) + "\n")
    write_json(args.output / "table.json", {"rows": rows, "right": sum(map(is_right, rows))})
    told = "right" if is_right(row) else "WRONG"
    print(f"{told}: {task.data}, {name}, seed {task.seed}: {', '.join(row['flags']) or 'no flag'}",
          flush=True)  # fmt: skip


def measured(task: Task, name: str) -> Row:
    """Makes a model and evaluates it.

    Args:
      task: the data set and the seed.
      name: name in `CASES`.

    Returns:
      The row: accuracies, the flags with their sentences, and seconds.
    """
    import tfrobust as tr

    case = CASES[name]
    start = time.perf_counter()
    model = case.make(task)
    training, start = time.perf_counter() - start, time.perf_counter()
    ball = tr.Linf(task.large_eps if case.large else task.eps)
    report = tr.evaluate(model, (task.images.test_x, task.images.test_y), ball)
    evaluation = time.perf_counter() - start
    attacks = sum(attack.seconds for attack in report.attacks)
    return {
        "data": task.data, "model": name, "seed": task.seed, "expected": list(case.flags),
        "eps": ball.eps, "images": len(task.images.test_y),
        "clean": round(report.clean_accuracy, 4), "robust": round(report.robust_accuracy, 4),
        "flags": [flag["name"] for flag in report.flags],
        "meanings": [flag["meaning"] for flag in report.flags],
        "training_seconds": round(training, 1), "evaluation_seconds": round(evaluation, 1),
        "attack_seconds": round(attacks, 1),
    }  # fmt: skip


def is_right(row: Row) -> bool:
    """Whether a row is as expected: no flag, or one of those that name the fault."""
    if not row["expected"]:
        return not row["flags"]
    return bool(set(row["expected"]) & set(row["flags"]))


def as_table(rows: Sequence[Row]) -> str:
    """Models by flags, as Markdown: the number of seeds on which each flag was raised."""
    raised = sorted({flag for row in rows for flag in row["flags"]})
    head = ["model", "seeds", "clean", "robust", *(f"`{flag}`" for flag in raised), "right"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for data in DATA:
        for name in CASES:
            own = [row for row in rows if (row["data"], row["model"]) == (data, name)]
            if own:
                lines.append(f"| {' | '.join(_cells(data, name, own, raised))} |")
    sound = [row for row in rows if not row["expected"]]
    unsound = [row for row in rows if row["expected"]]
    lines += ["", (
        f"False alarms: {sum(not is_right(row) for row in sound)} of {len(sound)} evaluations of "
        f"sound models. Misses: {sum(not is_right(row) for row in unsound)} of {len(unsound)} of "
        "unsound ones."
    )]  # fmt: skip
    return "\n".join(lines)


def _cells(data: str, name: str, own: Sequence[Row], raised: Sequence[str]) -> list[str]:
    right = sum(map(is_right, own))
    counts = [sum(flag in row["flags"] for row in own) for flag in raised]
    shown = [
        f"**{count}**" if flag in CASES[name].flags and count else str(count or "")
        for flag, count in zip(raised, counts, strict=True)
    ]
    means = [sum(row[key] for row in own) / len(own) for key in ("clean", "robust")]
    accuracies = [f"{mean:.2f}" for mean in means]
    shown_name = f"{data}: {name}{' (held out)' if CASES[name].held_out else ''}"
    return [shown_name, str(len(own)), *accuracies, *shown, f"{right} of {len(own)}"]


def _rows(output: Path) -> list[Row]:
    return [read_json(file) for file in sorted((output / "rows").glob("*.json"))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--output", type=Path, default=Path("build/checks"), help="folder for rows and table")
    add("--data", nargs="+", default=DATA, choices=DATA, help="data sets (all)")
    add("--models", nargs="+", default=tuple(CASES), choices=tuple(CASES), metavar="MODEL",
        help=f"some of: {'; '.join(CASES)} (all)")  # fmt: skip
    add("--seeds", nargs="+", type=int, default=(0, 1, 2), help="seeds of the models (0 1 2)")
    add("--again", action="store_true", help="also repeat models that already have a row")
    return parser


if __name__ == "__main__":
    sys.exit(main())
