"""`tfrobust probe`: measures what an evaluation in a ball does not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tfrobust.cli.cluster import add_cluster, cluster_of
from tfrobust.cli.command import Command, say
from tfrobust.cli.flags import add_setting, add_settings
from tfrobust.cli.intake import add_intake, run_defaults, subject_of
from tfrobust.cli.parser import Parser
from tfrobust.errors import UsageError
from tfrobust.settings import parse_number

#: Kind of measurement -> its description, and its own flags.
PROBES = {
    "distances": ("distance of the nearest adversarial image, and accuracy against eps",
                  ("attack", "norms")),
    "spatial": ("accuracy under the worst rotation and translation",
                ("degrees", "pixels", "grid", "draws")),
    "universal": ("one perturbation in the ball of --norm and --eps for all images",
                  ("epochs", "step_size")),
    "patch": ("one square for all images, at random positions",
              ("size", "target", "epochs", "step_size")),
}  # fmt: skip

#: Those whose images have nothing to do with each other.
SPREAD = ("distances", "spatial")


def add_flags(parser: Parser, words: Sequence[str] = ()) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    kinds = "; ".join(f"{name}: {what}" for name, (what, _) in PROBES.items())
    add("what", metavar="WHAT", choices=list(PROBES), help=kinds)
    add("model", metavar="RUN_OR_MODEL",
        help="run folder, SavedModel folder, or .keras or .h5 file of tf_keras or Keras 3"
    )  # fmt: skip
    add("--attack", type=_names, default=None, metavar="NAMES",
        help="distances: minimal-norm attacks: fmn (default), deepfool, ddn, cw, ead, "
        "sigma-zero, fab:early_stop=false")  # fmt: skip
    add("--norms", type=_names, default=None, metavar="NAMES",
        help="distances: linf,l2,l1,l0; default: each attack's own")  # fmt: skip
    add("--degrees", type=parse_number, default=None, help="spatial: the largest rotation (30)")
    add("--pixels", type=parse_number, default=None, help="spatial: the largest shift (3)")
    add("--grid", type=_grid, default=None, metavar="TURNS,SHIFTS",
        help="spatial: numbers of rotations, and of shifts along each axis (31,5)")  # fmt: skip
    add("--draws", type=int, default=None,
        help="spatial: number of random positions per image, instead of the grid")  # fmt: skip
    add("--size", type=int, default=None, help="patch: its side, in pixels; required")
    add("--target", default=None, metavar="CLASS",
        help="patch: target class, by name or number (default: any wrong class)"
    )  # fmt: skip
    add("--epochs", type=int, default=None,
        help="universal, patch: passes over the training half of the images"
    )  # fmt: skip
    add("--step-size", type=parse_number, default=None,
        help="universal, patch: step size per batch, in pixels of [0, 1]")  # fmt: skip
    add("--output", default=None, metavar="FOLDER",
        help="folder; results go to its subfolder WHAT (default: the run folder, or MODEL-results)"
    )  # fmt: skip
    add_cluster(parser)
    add_intake(parser)
    shown = run_defaults(parser, words)
    add_setting(parser, "evaluation", "limit", shown)
    add_setting(parser, "evaluation", "batch_size", shown)
    add_settings(parser, ["", "threat", "data"], {}, shown)


def work(args: argparse.Namespace) -> None:
    """Runs one kind of measurement on a run folder's or a bare model."""
    settings = _settings(args)
    if args.on is not None and args.what not in SPREAD:
        raise UsageError(
            f"--on: expected it with {' or '.join(SPREAD)}; each step of {args.what} needs the one "
            "before: leave --on away."
        )
    if (on := cluster_of(args)) is not None:
        settings["on"] = on
    from tfrobust import jobs

    if args.what == "distances":
        attacks, norms = settings.pop("attack", ("fmn",)), settings.pop("norms", ())
        jobs.distances(subject_of(args), attacks, norms, tell=say, **settings)
    else:
        getattr(jobs, args.what)(subject_of(args), tell=say, **settings)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of this kind of measurement, if given.

    Raises:
      UsageError: a flag of another kind is given, or a required one is missing.
    """
    own = PROBES[args.what][1]
    every = {name for _, names in PROBES.values() for name in names}
    given = {name: getattr(args, name) for name in every if getattr(args, name) is not None}
    for name in given:
        if name not in own:
            owners = ", ".join(kind for kind, (_, names) in PROBES.items() if name in names)
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: only valid for {owners}, found it with {args.what}.")
    if args.what == "patch" and "size" not in given:
        raise UsageError("patch: expected its side in pixels, such as --size 8.")
    return given


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _grid(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


COMMAND = Command(
    "probe", "Measure distances, rotations, universal perturbations and patches.", add_flags, work,
    common=("--data", "--limit", "--attack", "--norms", "--degrees", "--pixels", "--norm", "--eps",
            "--size", "--target", "--output"),
)  # fmt: skip
main, make_parser = COMMAND.main, COMMAND.parser
