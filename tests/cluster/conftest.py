"""The cluster that these tests run beside."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_stack import ClusterStack, People, running_cluster
from harness.cluster import Cluster
from harness.server_image import server_image
from people import Person


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Fails, and says how to run the tests, where there is none."""
    with Cluster.attach() as attached:
        yield attached


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """One for each test."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> str:
    """The server image with the code of this checkout, on every node."""
    made = server_image(cluster.layout)
    cluster.load(made)
    return made.reference


@pytest.fixture(scope="session")
def stack(cluster: Cluster, image: str) -> Iterator[ClusterStack]:
    """gpudev on the cluster, up; what its parts said stays in the cluster's state folder."""
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder:
        try:
            with running_cluster(Path(folder), cluster, image) as running:
                yield running
        finally:
            for log in Path(folder).glob("*.log"):
                shutil.copy(log, cluster.layout.root)


@pytest.fixture
def clean(stack: ClusterStack) -> Iterator[None]:
    """Each test leaves the pool as it found it, and every part running."""
    yield
    stack.clean()


@pytest.fixture(scope="session")
def person(stack: ClusterStack) -> People:
    """A user with a laptop, and an SSH key at GitHub."""
    known: dict[str, Person] = {}

    def find(name: str) -> Person:
        if name not in known:
            known[name] = Person(stack, name)
            stack.allow(name, known[name].make_key())
            known[name].login_with_token()
            known[name].run("ssh-config", "enable")
        return known[name]

    return find
