"""What runs in the processes of a cluster: settles TensorFlow, keeps models, does pieces."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from tfrobust.errors import TFRobustError
from tfrobust.workers import Piece

# Objects that a process keeps at the same time: a model, its attack, and those before.
_KEPT_AT_ONCE = 4


@dataclass(frozen=True)
class Manner:
    """How TensorFlow works in the process that asks: results are to be the same elsewhere.

    Attributes:
      versions: package -> version, of what results depend on.
      flags: environment variables of TensorFlow.
      precision: the Keras policy.
      optimizer: options of the graph optimiser.
      deterministic: whether operations are to be reproducible.
      threads: of one operation.
    """

    versions: dict[str, str]
    flags: dict[str, str]
    precision: str
    optimizer: dict[str, Any]
    deterministic: bool
    threads: int


@dataclass(frozen=True)
class Sent:
    """An object that the cluster holds as bytes.

    Attributes:
      key: no other object of this driver has it.
      held: Ray's reference, in a list, so that the bytes travel only to who asks for them.
    """

    key: str
    held: list[Any]


_kept: dict[str, Any] = {}


def do(manner: Manner, work: Sent, shared: Sent, method: str, piece: Piece) -> Any:
    """One piece, by an object that is unpacked the first time a process sees it."""
    _settle(manner)
    call = getattr(_unpacked(work), method)
    return call(*_unpacked(shared), *piece)


def _unpacked(sent: Sent) -> Any:
    if sent.key not in _kept:
        import ray

        from tfrobust.cluster.packing import unpack

        while len(_kept) >= _KEPT_AT_ONCE:
            del _kept[next(iter(_kept))]
        _kept[sent.key] = unpack(ray.get(sent.held[0]))
    # The last that was used is the last to go.
    _kept[sent.key] = found = _kept.pop(sent.key)
    return found


def versions() -> dict[str, str]:
    """Of the packages that results depend on."""
    from importlib.metadata import version

    import tfrobust

    return {"tfrobust": tfrobust.__version__, "tensorflow": version("tensorflow")}


def check_versions(wanted: dict[str, str]) -> None:
    """Refuses a node with other packages than the driver has.

    Raises:
      TFRobustError: a package is of another version.
    """
    for name, there in wanted.items():
        if (here := versions()[name]) != there:
            raise TFRobustError(
                f"A node of the cluster has {name} {here}, the driver {there}: install the same "
                "on both, or results would differ."
            )


_settled: list[Manner] = []


def _settle(manner: Manner) -> None:
    """Makes TensorFlow of this process work as that of the driver does, once.

    Raises:
      TFRobustError: a package is of another version.
    """
    if manner in _settled:
        return
    settle_process(manner.versions, manner.threads, manner.flags)
    from tfrobust.runtime import import_quietly, setup

    import_quietly()
    from tfrobust.runtime import tf

    setup(precision=manner.precision, deterministic=manner.deterministic)
    tf.config.optimizer.set_experimental_options(manner.optimizer)
    _settled.append(manner)


def settle_process(
    wanted: dict[str, str], threads: int, flags: dict[str, str] | None = None
) -> None:
    """Checks versions, and sets the threads and flags of a TensorFlow that is still to come.

    Raises:
      TFRobustError: a package is of another version.
    """
    check_versions(wanted)
    if "tensorflow" not in sys.modules:
        os.environ.update(flags or {})
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            os.environ[name] = str(threads)


def manner_of(threads: int) -> Manner:
    """How TensorFlow works in this process, for workers of so many threads."""
    from tfrobust.runtime import is_deterministic, keras, tf

    own = ("TF_CONFIG", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return Manner(
        versions(),
        {name: text for name, text in os.environ.items()
         if name.startswith("TF_") and name not in own},
        keras.mixed_precision.global_policy().name,
        tf.config.optimizer.get_experimental_options(),
        is_deterministic(),
        threads,
    )  # fmt: skip
