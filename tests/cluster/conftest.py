"""Fixtures with the running test cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_stack import ClusterStack, running_cluster
from cluster_users import ClusterUsers
from harness.cluster import Cluster
from harness.server_image import server_image


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return the running cluster. Without one, fail and say how to run the tests."""
    with Cluster.attach() as attached:
        yield attached


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Return a new namespace for each test."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> str:
    """Return the server image with the code of this checkout, loaded on every node."""
    made = server_image(cluster.layout)
    cluster.load(made)
    return made.reference


@pytest.fixture(scope="session")
def stack(cluster: Cluster, image: str) -> Iterator[ClusterStack]:
    """Return gpudev, running on the cluster. Its logs stay in the cluster's state folder."""
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder:
        try:
            with running_cluster(Path(folder), cluster, image) as running:
                yield running
        finally:
            for log in Path(folder).glob("*.log"):
                shutil.copy(log, cluster.layout.root)


@pytest.fixture
def clean(stack: ClusterUsers) -> Iterator[None]:
    """After each test, restart parts that do not run, and end all reservations."""
    yield
    stack.clean()
