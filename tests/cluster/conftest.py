"""The cluster that these tests run beside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.cluster import Cluster


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
