"""Flags that select where the work runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tfrobust.errors import UsageError

if TYPE_CHECKING:
    from tfrobust.cluster import Ray


def add_cluster(parser: argparse.ArgumentParser, cores: str = "1") -> None:
    """Adds --on, --worker-cpus and --worker-gpus; `cores` is what the help says the second is."""
    parser.add_argument(
        "--on", default=None, metavar="CLUSTER",
        help="distribute the work over a Ray cluster: ray (RAY_ADDRESS, or else this machine's "
        "cores) or ray://HOST:PORT; needs the extra [cluster]",
    )  # fmt: skip
    parser.add_argument(
        "--worker-cpus", type=int, default=None, metavar="N",
        help=f"cores of each worker, with --on (default: {cores})",
    )  # fmt: skip
    parser.add_argument(
        "--worker-gpus", type=float, default=None, metavar="N",
        help="GPUs per worker, may be a fraction, with --on (default: 1 if there are any)",
    )  # fmt: skip


def cluster_of(args: argparse.Namespace) -> Ray | None:
    """The cluster that the flags select, None without one; before anything large is opened.

    Raises:
      UsageError: the flags name no valid cluster, Ray is not installed, or they size workers
        without a cluster.
    """
    import dataclasses

    from tfrobust.cluster.connection import as_ray, import_ray

    if args.on is None:
        for flag in ("worker_cpus", "worker_gpus"):
            if getattr(args, flag) is not None:
                raise UsageError(
                    f"--{flag.replace('_', '-')} sizes the workers of a cluster: add --on."
                )
        return None
    found = dataclasses.replace(as_ray(args.on), cpus=args.worker_cpus, gpus=args.worker_gpus)
    import_ray()
    return found
