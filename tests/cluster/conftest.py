"""What the tests of the cluster share: a model, images, and real Ray clusters of several nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.scaling import free_ports
from tfrobust.data.types import ImageSet


@pytest.fixture
def case(small_cnn):
    """A model, and images of which some fall and some stand under a weak attack."""
    model = small_cnn()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3)).astype("uint8")
    y = np.argmax(model(pixels / np.float32(255), training=False), axis=1).astype("int32")
    return model, ImageSet(pixels, y, tuple("abcd"))


class Nodes:
    """A Ray cluster of this machine, whose head works on nothing, and nodes of one core."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.client_port = free_ports(1)[0]
        head = {"num_cpus": 0, "include_dashboard": False,
                "ray_client_server_port": self.client_port}  # fmt: skip
        self.cluster = Cluster(True, False, head)
        self.nodes: list[Any] = []

    def fill(self, count: int = 2) -> None:
        """Adds nodes until there are so many."""
        while len(self.nodes) < count:
            self.nodes.append(self.cluster.add_node(num_cpus=1))

    def kill(self, place: int = 0) -> None:
        """Ends all processes of a node at once."""
        self.cluster.remove_node(self.nodes.pop(place), allow_graceful=False)


@pytest.fixture(scope="session")
def started() -> Iterator[Nodes]:
    ray = pytest.importorskip("ray")
    from tfrobust.cluster.connection import _loopback

    with _loopback():
        nodes = Nodes()
        ray.init(address=nodes.cluster.address, logging_level="error", log_to_driver=False)
        yield nodes
        ray.shutdown()
        nodes.cluster.shutdown()


@pytest.fixture
def nodes(started) -> Nodes:
    """A connected cluster with two nodes."""
    started.fill()
    return started
