"""The HTTP server in replicas of Ray Serve, on one machine or many.

Each replica is a process with the application of `app.py`: its page, its routes, its batches, its
queue and its limits. Ray Serve distributes requests among the replicas, starts more of them under
load, replaces those that die, and lets stopping ones finish their open requests.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrobust.errors import UsageError

#: Names of the application and its deployment, in Ray's dashboard and metrics.
NAME = "tfrobust"
# Seconds that a stopping replica has for its open requests.
GRACE = 20


def application(
    model: Path | str, *, replicas: int = 1, most_replicas: int | None = None, cpus: float = 1,
    gpus: float = 0, max_batch: int = 32, max_body: int = 16, queue: int = 512,
) -> Any:  # fmt: skip
    """The server as an application of Ray Serve, for `ray.serve.run`.

    Args:
      model: run folder, or the folder of a SavedModel, on a path that all nodes see.
      replicas: minimum number of replicas.
      most_replicas: maximum number under load; None is `replicas`.
      cpus: cores of a replica, which also sets TensorFlow's threads.
      gpus: of a replica.
      max_batch: maximum batch size in a replica.
      max_body: maximum size of a request, in megabytes.
      queue: maximum queue length of a replica, and of requests waiting for a replica.

    Raises:
      UsageError: a number is out of range.
    """
    from ray import serve

    numbers = {"replicas": replicas, "max-batch": max_batch, "max-body": max_body, "queue": queue}
    for name, number in numbers.items():
        if number < 1:
            raise UsageError(f"--{name}: expected at least 1, found {number}.")
    most = replicas if most_replicas is None else most_replicas
    if most < replicas:
        raise UsageError(f"--most-replicas: expected at least {replicas}, found {most}.")
    path, threads = str(model), max(1, int(cpus))

    def build_app() -> Any:
        return _in_replica(path, threads, max_batch, max_body, queue)

    deployment = serve.deployment(
        serve.ingress(build_app)(), name=NAME,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        autoscaling_config={
            "min_replicas": replicas, "max_replicas": most,
            # One running batch and one queued.
            "target_ongoing_requests": 2 * max_batch,
        },
        # The replica itself rejects excess requests, in JSON.
        max_ongoing_requests=queue + max_batch, max_queued_requests=queue,
        graceful_shutdown_timeout_s=GRACE, graceful_shutdown_wait_loop_s=0.5,
    )  # fmt: skip
    return deployment.bind()


def build(args: Mapping[str, Any]) -> Any:
    """The application for a configuration file: ``import_path: tfrobust.serving.on_ray:build``.

    Args:
      args: arguments of `application`, by name; `model` is required.

    Raises:
      UsageError: `model` is missing, or an argument is unknown.
    """
    try:
        return application(**args)
    except TypeError as error:
        raise UsageError(f"args: expected model and settings of the server ({error}).") from error


def _in_replica(path: str, threads: int, max_batch: int, max_body: int, queue: int) -> Any:
    """The application, in the process that serves it."""
    _bind_to_node_address()
    from tfrobust.cluster.worker import settle_process

    settle_process({}, threads)
    from tfrobust.runtime import import_quietly

    import_quietly()
    from tfrobust.serving.app import make_app
    from tfrobust.serving.limits import Limits
    from tfrobust.serving.model import ServedModel

    limits = Limits(body=max_body * 2**20, batch=max_batch, queue=queue)
    return make_app(ServedModel(Path(path)), limits)


def _bind_to_node_address() -> None:
    """Makes this replica listen for Ray's requests at its node's address only.

    Ray Serve listens at all addresses, after the application was built, and unpickles what it
    receives: a cluster on the loopback device would not be closed.
    """
    ray: Any = importlib.import_module("ray")
    replica: Any = importlib.import_module("ray.serve._private.replica")
    bind, address = replica.add_port_to_grpc_server, ray.util.get_node_ip_address()
    host = f"[{address}]" if ":" in address else address
    replica.add_port_to_grpc_server = lambda server, at: bind(server, at.replace("[::]", host))
