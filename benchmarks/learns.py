"""Does every network learn with the defaults, by every method, on every kind of images?

    python -m benchmarks.learns

Trains each network on the digits, on 4,000 CIFAR-10 images in a folder and on 20 classes of
TinyImageNet in a folder, by nsl, fast, trades and standard, two minutes each, as a user would:
`pipelines.train` with nothing but network, method, images, eps and time. A row is written to
`docs/learns.jsonl` as soon as its training has ended, and the table to `docs/learns.md`: stopped,
the same command resumes with the rows that are missing. `--networks`, `--data` and `--methods`
select a part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import shared_folder
from tfrobust.backbones import BACKBONES
from tfrobust.io import read_json, write_text

# Larger siblings of networks in the table, which see too few images in two minutes on 2 cores.
TOO_HEAVY = {
    "resnet50": ("resnet101", "resnet152"),
    "densenet121": ("densenet169", "densenet201"),
    "nasnetmobile": ("nasnetlarge",),
    "efficientnetb0": tuple(f"efficientnetb{k}" for k in range(1, 8)),
}
_LEFT_OUT = [name for names in TOO_HEAVY.values() for name in names]
NETWORKS = ("auto", *(name for name in BACKBONES if name not in _LEFT_OUT))
METHODS = ("nsl", "fast", "trades", "standard")
EPS = {"digits": "0.05", "cifar10": "8/255", "tiny20": "2/255"}
_SECONDS = 900
_HEAD = """# Does every network learn with the defaults?

`python -m benchmarks.learns` trains each network by each method for two minutes, given only
network, method, images, eps (0.05 for the digits, 8/255 for 4,000 CIFAR-10 images, 2/255 for 20
classes of TinyImageNet) and `--time-limit 2`. Test accuracy of up to 500 images, clean and under
PGD-20 in that ball; the total time includes start, evaluation and export. `cores` is the number of
cores available to the training; other work ran on the rest.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Runs the trainings without a row, then prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--output", type=Path, default=Path("learns"), help="images and runs")
    parser.add_argument("--rows", type=Path, default=Path("docs/learns.jsonl"), help="the rows")
    parser.add_argument("--minutes", type=float, default=2.0, help="minutes of training, each")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--data", nargs="+", default=tuple(EPS), choices=tuple(EPS))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--again", action="store_true", help="repeat finished trainings")
    args = parser.parse_args(words)
    folders = {name: _images(name, args.output) for name in args.data}
    rows = _read(args.rows)
    for method, data, network in itertools.product(args.methods, args.data, args.networks):
        if args.again or (data, network, method) not in rows:
            row = _row(data, folders[data], network, method, args)
            rows[data, network, method] = row
            write_text(args.rows, "".join(json.dumps(one) + "\n" for one in rows.values()))
            print(_line(row), flush=True)
    table = as_table(list(rows.values()))
    write_text(args.rows.with_suffix(".md"), f"{_HEAD}\n{table}\n")
    print(table)


def _read(file: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The rows so far, by images, network and method."""
    lines = file.read_text().splitlines() if file.is_file() else []
    rows = map(json.loads, lines)
    return {(row["data"], row["network"], row["method"]): row for row in rows}


class _Plain(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _images(name: str, output: Path) -> str:
    """A folder with one folder per class, made once; the name for a built-in data set."""
    if name == "digits":
        return name
    folder = output / "images" / name
    if not folder.is_dir():
        archive, part, every, count = {
            "cifar10": ("cifar10-images.zip", "/train/", 1, 400),
            "tiny20": ("tiny-imagenet-200.zip", "/train/", 10, 150),
        }[name]
        extract(shared_folder() / archive, part, every, count, folder)
    return str(folder)


def extract(archive: Path, part: str, every: int, count: int, folder: Path) -> None:
    """A folder of `count` images of every `every`-th class of a zip, drawn by a fixed seed."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    with zipfile.ZipFile(archive) as source:
        by_class: dict[str, list[str]] = {}
        for member in source.namelist():
            if part in member and member.lower().endswith((".jpg", ".jpeg")):
                by_class.setdefault(member.split(part)[1].split("/")[0], []).append(member)
        for name in sorted(by_class)[::every]:
            (unfinished / name).mkdir(parents=True, exist_ok=True)
            members = sorted(by_class[name])
            random.Random(0).shuffle(members)
            for member in members[:count]:
                (unfinished / name / Path(member).name).write_bytes(source.read(member))
    unfinished.rename(folder)


def _row(
    data: str, images: str, network: str, method: str, args: argparse.Namespace
) -> dict[str, Any]:
    """Trains once and reads the results."""
    run = args.output / "runs" / f"{data}-{network}-{method}"
    if args.again:
        shutil.rmtree(run, ignore_errors=True)
    command = [
        sys.executable, "-m", "pipelines.train", "--dataset", images, "--backbone", network,
        "--method", method, "--eps", EPS[data], "--time-limit", str(args.minutes),
        "--output", str(run), "--no-figures", "--sweep", "none", "--attack", "pgd",
        "--limit", "500",
    ]  # fmt: skip
    if (run / "checkpoints" / "state.json").is_file():
        command = [sys.executable, "-m", "pipelines.train", "--output", str(run), "--resume"]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False,
                          env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})  # fmt: skip
    row: dict[str, Any] = {"data": data, "network": network, "method": method}
    row |= {"minutes": args.minutes, "cores": _cores(), "seconds": round(time.monotonic() - start)}
    row["exit"] = done.returncode
    evaluation = run / "evaluation.json"
    if evaluation.is_file():
        report = read_json(evaluation)
        flags = [flag["name"] for flag in report["flags"]]
        row |= {"clean": report["clean_accuracy"], "pgd": report["robust_accuracy"], "flags": flags}
    if done.returncode:
        row["reason"] = " ".join(done.stderr.strip().splitlines()[-1:])[:300]
    return row


def _cores() -> int:
    """The number of cores that TensorFlow may use for an operation."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or os.cpu_count() or 1


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, and the networks that were skipped."""
    order = {name: place for place, name in enumerate((*EPS, *NETWORKS, *METHODS))}
    rows = sorted(rows, key=lambda row: [order[row[key]] for key in ("data", "network", "method")])
    total = len(EPS) * len(NETWORKS) * len(METHODS)
    lines = [
        f"{len(rows)} of {total} trainings; the others have not been run yet.\n"
        if len(rows) < total
        else f"All {total} trainings.\n",
        "| images | network | method | clean | PGD-20 | cores | total seconds | learnt |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
        "Skipped, as too heavy for two minutes on 2 cores: "
        + "; ".join(f"{', '.join(names)} (larger than {k})" for k, names in TOO_HEAVY.items())
        + ".",
    ]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    clean, pgd = (f"{row[key]:.3f}" if key in row else "" for key in ("clean", "pgd"))
    learnt = "yes" if row["exit"] == 0 else f"no: {row.get('reason', '')}"
    flags = ", ".join(row.get("flags", ()))
    if flags and row["exit"] == 0:
        learnt += f" ({flags})"
    return (
        f"| {row['data']} | {row['network']} | {row['method']} | {clean} | {pgd} | "
        f"{row['cores']} | {row['seconds']} | {learnt} |"
    )


if __name__ == "__main__":
    main()
