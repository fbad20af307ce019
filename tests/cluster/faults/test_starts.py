"""Starts that cannot succeed: missing images, and pods that are deleted before they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from checks import CONVERGED, attempts, ready, uids
from cluster_stack import MISSING, ClusterStack, pool
from cluster_users import NAMESPACE
from harness.cluster import Cluster
from hub_users import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]


@pytest.fixture(scope="module", autouse=True)
def impatient(stack: ClusterStack, image: str) -> Iterator[None]:
    """Allow three starts of 12 s each, and 5 s for a start that is stuck."""
    different: dict[str, dict[str, Any]] = {
        "hub": {"stuck_seconds": 5},
        "service": {"pools": [pool(image, startup_seconds=12)]},
    }
    for part, settings in different.items():
        stack.kill(part)
        stack.start_part(part, settings=settings)
    stack.wait_until_up()
    yield
    stack.restart(*different)


def test_an_image_that_is_nowhere(stack: ClusterStack) -> None:
    """The message names the image and the reason. The reservation fails, and delays no other."""
    record = stack.reserve("alice", gpus=8, image=MISSING)
    told = wait_for(
        "the reason", lambda: "ErrImageNeverPull" in (stack.record(record["id"])["reason"] or ""), CONVERGED
    )
    assert told
    assert MISSING in stack.record(record["id"])["reason"]
    other = ready(stack, "bob", gpus=2)
    failed = stack.wait_state(record["id"], "ended", "alice", 4 * CONVERGED)
    assert (failed["outcome"], MISSING in failed["reason"]) == ("failed", True)
    assert stack.record(other["id"], "bob")["state"] == "ready"


def test_a_pod_is_deleted_while_it_starts(stack: ClusterStack, cluster: Cluster) -> None:
    """The Hub does not wait for it until the whole start-up time is over."""
    record = stack.reserve("alice", gpus=2, image=MISSING)
    (pod,) = wait_for("its pod", lambda: list(uids(stack, record["id"])))
    cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}").raise_for_status()
    wait_for("the next attempt", lambda: attempts(stack, record) == {2}, 10)


def test_one_worker_of_a_pair_never_gets_ready(stack: ClusterStack, cluster: Cluster, image: str) -> None:
    """2: all or nothing. The message names pod and reason. After some tries it fails; no pod is left."""
    with cluster.without_image("node-2", image):
        record = stack.reserve("alice", gpus=8, nodes=2)
        told = wait_for(
            "the reason", lambda: "rank 1" in (stack.record(record["id"])["reason"] or ""), 2 * CONVERGED
        )
        assert told
        failed = stack.wait_state(record["id"], "ended", "alice", 4 * CONVERGED)
    assert failed["outcome"] == "failed"
    assert "ErrImageNeverPull" in failed["reason"]
    assert all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in stack.pods(record["id"]))
    assert ready(stack, "bob", gpus=8, nodes=2)["state"] == "ready"
