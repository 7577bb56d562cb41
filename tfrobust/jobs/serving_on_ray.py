"""The job that serves a run's SavedModel by replicas on a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from tfrobust.cluster.connection import Ray, as_ray, connected, gpus_of, slots
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.jobs.serving import check_limits, require_packages, take_port
from tfrobust.progress import Tell, silent
from tfrobust.serving import again


def serve_on_ray(
    model: Path | str,
    on: str | Ray = "ray",
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    replicas: int = 1,
    most_replicas: int | None = None,
    max_batch: int = 32,
    max_body: int = 16,
    queue: int = 512,
    tell: Tell = silent,
) -> None:
    """Serves by replicas of Ray Serve until the process is stopped.

    Args:
      model: run folder, or the folder of a SavedModel, on a path that all nodes see.
      on: 'ray', 'ray://HOST:PORT' or a `Ray`, whose cores and GPUs are those of a replica.
      host: address to listen at, on each node that has a replica.
      port: to listen at; 0 takes a free one of this machine.
      replicas: how many there always are.
      most_replicas: how many there may be under load; None for no more.
      max_batch: images that run together in a replica.
      max_body: the largest request, in megabytes.
      queue: images that may wait in a replica.
      tell: takes the address once the server is ready, and a last line.

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
        _check_room(ray, cluster, replicas)
        made = _made(
            path,
            {
                "replicas": replicas,
                "most_replicas": most_replicas,
                "cpus": cluster.cores,
                "gpus": gpus_of(ray, cluster),
                "max_batch": max_batch,
                "max_body": max_body,
                "queue": queue,
            },
        )
        number = take_port(host, port)
        if serve.status().proxies:
            tell(
                 "Ray Serve runs on this cluster already: its proxies stay as they are, with their "
                 "address; docs/scale.md says how to start them so that none loses a request."
            )  # fmt: skip
        # A proxy on each node that has a replica.
        serve.start(
            proxy_location="EveryNode", http_options={"host": host, "port": number},
            controller_options=again.settings(),
        )  # fmt: skip
        try:
            _deploy(serve, made, path.name)
            for one in (signal.SIGTERM, signal.SIGINT):
                signal.signal(one, lambda *_: stop.set())
            tell(
                f"Serving {path.name} on Ray (replicas: {replicas}) at http://{host}:{number}/ ; "
                "Ctrl+C stops it."
            )
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
    # It logs every step at the driver.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return serve


def _check_model(path: Path) -> None:
    """Here rather than in each replica, which would try again and again."""
    from tfrobust.runtime import import_quietly

    import_quietly()
    from tfrobust.serving.model import newest_version

    newest_version(path)


def _check_room(ray: Any, cluster: Ray, replicas: int) -> None:
    """Refuses replicas for which no room will ever be: those of a cluster of this machine alone.

    Raises:
      UsageError: there are more than fit.
    """
    own = cluster.address is None and os.environ.get("RAY_ADDRESS", "") in ("", "local")
    if own and (fit := slots(ray, cluster)) < replicas:
        raise UsageError(
            f"--replicas {replicas}: this machine has room for {fit}: lower it or --worker-cpus, "
            "or name a cluster with more nodes."
        )


def _made(path: Path, settings: dict[str, Any]) -> Any:
    from tfrobust.serving.on_ray import application

    return application(path, **settings)


def _deploy(serve: Any, made: Any, name: str) -> None:
    from tfrobust.serving.on_ray import NAME

    try:
        serve.run(made, name=NAME, route_prefix="/")
    # Ray raises RuntimeError, ValueError and errors of its own, with the replicas' in the text.
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise TFRobustError(
            f"{name} cannot be served on the cluster: {lines[-1] if lines else error!r}"
        ) from error


def _end(serve: Any) -> None:
    """Deletes the application, and stops Ray Serve if it has no other."""
    from tfrobust.serving.on_ray import NAME

    # It waits until the replicas have answered, or their time is over.
    serve.delete(NAME)
    if not serve.status().applications:
        serve.shutdown()
