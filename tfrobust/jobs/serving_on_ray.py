"""The job that serves a run's SavedModel by replicas on a Ray cluster."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Any

from tfrobust.cluster.connection import Ray, as_ray, connected, gpus_of
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.jobs.serving import check_limits, require_packages, take_port
from tfrobust.progress import Tell, silent


def serve_on_ray(
    model: Path | str, on: str | Ray = "ray", *, host: str = "127.0.0.1", port: int = 8080,
    replicas: int = 1, most_replicas: int | None = None, max_batch: int = 32, max_body: int = 16,
    queue: int = 512, tell: Tell = silent,
) -> None:  # fmt: skip
    """Serves by replicas of Ray Serve until the process is told to stop.

    Args:
      model: run folder, or the folder of a SavedModel, on a path that all nodes see.
      on: 'ray', 'ray://HOST:PORT' or a `Ray`, whose cores and GPUs are those of a replica.
      host: address to listen at, on each node that has a replica.
      port: to listen at; 0 takes a free one of this machine.
      replicas: how many there always are.
      most_replicas: how many there may be under load; None for no more.
      max_batch: images that run together in a replica.
      max_body: the most megabytes that a request may hold.
      queue: images that may wait in a replica.
      tell: is told the address once requests are taken, and the end.

    Raises:
      UsageError: a number or the port is none, there is no such model, or a package is missing.
      TFRobustError: the cluster cannot be reached, the port is taken, or no replica starts.
    """
    check_limits(port, max_batch=max_batch, max_body=max_body, queue=queue, replicas=replicas)
    require_packages()
    cluster, path = as_ray(on), Path(model).resolve()
    stop = threading.Event()
    with connected(cluster) as ray:
        serve = _serve_of_ray()
        _check_model(path)
        number = take_port(host, port)
        gpus = gpus_of(ray, cluster)
        try:
            _deploy(serve, path, host, number, {
                "replicas": replicas, "most_replicas": most_replicas, "cpus": cluster.cpus,
                "gpus": gpus, "max_batch": max_batch, "max_body": max_body, "queue": queue,
            })  # fmt: skip
            for one in (signal.SIGTERM, signal.SIGINT):
                signal.signal(one, lambda *_: stop.set())
            tell(f"Serving {path.name} on Ray (replicas: {replicas}) at http://{host}:{number}/ ; "
                 "Ctrl+C stops it.")  # fmt: skip
            stop.wait()
        finally:
            _end(serve)
    tell("Stopped: the replicas had their time to answer what had come.")


def _serve_of_ray() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise UsageError(
            f"Ray Serve is not installed ({error}): run 'pip install \"ray[serve]\"'."
        ) from error
    # It tells of each step at the driver.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return serve


def _check_model(path: Path) -> None:
    """Here rather than in each replica, which would try again and again."""
    from tfrobust.runtime import import_quietly

    import_quietly()
    from tfrobust.serving.model import newest_version

    newest_version(path)


def _deploy(serve: Any, path: Path, host: str, port: int, settings: dict[str, Any]) -> None:
    from tfrobust.serving.on_ray import NAME, application

    made = application(path, **settings)
    try:
        # A proxy on each node that has a replica; where Serve runs already, its own stay.
        serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
        serve.run(made, name=NAME, route_prefix="/")
    # Ray raises RuntimeError, ValueError and errors of its own, with the replicas' in the text.
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise TFRobustError(
            f"{path.name} cannot be served on the cluster: {lines[-1] if lines else error!r}"
        ) from error


def _end(serve: Any) -> None:
    """Takes the application away; and Ray Serve, where it has no other."""
    from tfrobust.serving.on_ray import NAME

    # It waits until the replicas have answered, or their time is over.
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()
