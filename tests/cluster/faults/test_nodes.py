"""Faults of nodes and pods: silent, gone, cordoned, short of GPUs, stuck, or using too much."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checks import CONVERGED, again, all_ready, failed_starts, history, one_owner_each, ready, uids, untouched
from cluster_stack import ClusterStack
from cluster_users import NAMESPACE
from fake_ec2 import Block, Fault
from harness.cluster import Cluster
from hub_users import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]

MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(autouse=True)
def mended(cluster: Cluster, clean: None) -> Iterator[None]:
    """Undo what a test did to nodes, before its reservations are ended."""
    yield
    for node in cluster.nodes:
        cluster.cordon(node.name, False)


def node_of(record: dict[str, Any]) -> str:
    found: str = record["allocation"][0]["node"]
    return found


def shown(
    stack: ClusterStack, record: dict[str, Any], server: str, within: float = CONVERGED
) -> dict[str, Any]:
    """Wait until the reservation shows its server in this state; return it."""

    def look() -> dict[str, Any] | None:
        found = stack.record(record["id"], record["owner"])
        return found if found["server"] == server else None

    return wait_for(f"{record['id']} shown as {server}", look, CONVERGED)


def test_a_node_is_silent_for_a_while(
    stack: ClusterStack, cluster: Cluster, namespace: str, image: str
) -> None:
    """8: an unknown node frees no GPUs and ends no server, however long. Waiting users are told why.

    Here a node counts as silent after 8 s, and pods that do not tolerate that are evicted 2 s later. By
    default, Kubernetes waits 50 s and five minutes. A pod of another program shows that evictions happen.
    """
    record, other = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    before = uids(stack, record["id"])
    lost = node_of(record)
    cluster.apply(_foreign(namespace, image, lost, 0))
    cluster.wait_for_pod(namespace, "stranger")
    cluster.kill_kubelet(lost)
    try:
        unknown = shown(stack, record, "unknown")
        assert unknown["state"] == "ready"
        assert "the state of the server is unknown" in unknown["reason"]
        pair = stack.reserve("carol", gpus=8, nodes=2)
        assert pair["state"] == "queued"
        assert f"{lost} is unknown" in stack.record(pair["id"], "carol")["reason"]
        wait_for("the eviction of others", lambda: _told_to_go(cluster.pods(namespace).values()), CONVERGED)
        with pytest.raises(AssertionError, match="not within"):
            wait_for("ours", lambda: _told_to_go(stack.pods(record["id"])), 5)
        assert uids(stack, record["id"]) == before
    finally:
        cluster.start_kubelet(lost)
        cluster.wait_for_node(lost)
    shown(stack, record, "running")
    untouched(stack, record, before)
    assert stack.record(other["id"], "bob")["state"] == "ready"
    planned = wait_for("carol's place", lambda: stack.record(pair["id"], "carol")["planned_start"], CONVERGED)
    assert planned


def _told_to_go(pods: Iterable[dict[str, Any]]) -> bool:
    """Return whether all of these pods are gone or told to end."""
    return all("deletionTimestamp" in pod["metadata"] for pod in pods)


def test_a_node_is_deleted(stack: ClusterStack, cluster: Cluster) -> None:
    """The servers of a deleted node end, their users are told, and other servers are not affected."""
    record, other = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    before = uids(stack, other["id"])
    lost = node_of(record)
    cluster.kill_kubelet(lost)
    cluster.delete_node(lost)
    try:
        ended = stack.wait_state(record["id"], "ended", "alice", CONVERGED)
        assert ended["outcome"] == "node_lost"
        assert f"{lost} was removed" in ended["reason"]
    finally:
        cluster.register_again(lost)
    untouched(stack, other, before)
    again = stack.wait_state(stack.reserve("carol", gpus=8)["id"], "ready", "carol", 2 * CONVERGED)
    assert node_of(again) == lost
    one_owner_each(stack)


def test_a_node_is_cordoned_while_servers_run_there(stack: ClusterStack, cluster: Cluster) -> None:
    record = ready(stack, "alice", gpus=2)
    before = uids(stack, record["id"])
    closed = node_of(record)
    cluster.cordon(closed)
    wait_for(
        "the service to see it", lambda: _size(stack, 8)["free_now"] <= 1 and _size(stack, 2)["free_now"] == 4
    )
    elsewhere = ready(stack, "bob", gpus=2)
    assert node_of(elsewhere) != closed
    untouched(stack, record, before)
    # Servers there continue to their end, and may also restart there.
    cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{next(iter(before))}").raise_for_status()
    assert again(stack, record, before)["allocation"] == record["allocation"]
    assert not failed_starts(stack, record)
    cluster.cordon(closed, False)
    wait_for("the service to see it again", lambda: _size(stack, 2)["free_now"] == 6)


def test_a_node_that_is_not_well_gets_nothing_new(stack: ClusterStack, cluster: Cluster) -> None:
    """The EKS node monitoring agent reports it. A bug in a user's program does not count."""
    record = ready(stack, "alice", gpus=2)
    before = uids(stack, record["id"])
    ill, condition = node_of(record), "AcceleratedHardwareReady"
    cluster.set_condition(ill, "KernelReady", "False", "NvidiaXID31Error")
    cluster.set_condition(ill, condition, "False", "NvidiaXID79Error")
    reason = f"{condition} is False: NvidiaXID79Error"
    try:
        wait_for("the service to see it", lambda: _node(stack, ill)["status"] == "drained")
        assert _node(stack, ill)["reason"] == reason
        pair = stack.reserve("carol", gpus=8, nodes=2)
        assert f"{ill} is drained ({reason})" in pair["reason"]
        untouched(stack, record, before)
    finally:
        for name in (condition, "KernelReady"):
            cluster.set_condition(ill, name, "True", "Healthy")
    wait_for("the service to use it again", lambda: _node(stack, ill)["status"] == "up")
    planned = wait_for("carol's place", lambda: stack.record(pair["id"], "carol")["planned_start"])
    assert planned


def test_the_end_of_a_capacity_block_is_known_across_a_restart(stack: ClusterStack, cluster: Cluster) -> None:
    """The end comes from EC2. While EC2 refuses, the last known end holds; an unknown end is not an end."""
    record = ready(stack, "alice", gpus=2)
    before = uids(stack, record["id"])
    node, other = (named.name for named in cluster.nodes[:2])
    stack.ec2.blocks["cr-1"] = Block("2090-01-01T12:00:00Z")
    try:
        cluster.label(node, capacity_reservation="cr-1")
        wait_for("the end", lambda: _node(stack, node)["until"] == "2090-01-01T11:20:00Z")
        assert _node(stack, node)["status"] == "up"
        stack.ec2.fault = Fault.DENIED
        stack.restart("service")
        cluster.label(other, capacity_reservation="cr-2")
        why = "give the role of the service the right ec2:DescribeCapacityReservations"
        unknown = f"the end of capacity block cr-2 is unknown: {why}"
        wait_for("the other node's reason", lambda: _node(stack, other)["reason"] == unknown)
        assert _node(stack, other)["status"] == "drained"
        known = _node(stack, node)
        assert (known["until"], known["status"]) == ("2090-01-01T11:20:00Z", "up")
        stack.ec2.fault = None
        stack.ec2.blocks |= dict.fromkeys(("cr-1", "cr-3"), Block("2090-01-02T12:00:00Z"))
        cluster.label(other, capacity_reservation="cr-3")
        wait_for("the extension", lambda: _ends(stack) == {"2090-01-02T11:20:00Z"})
        untouched(stack, record, before)
    finally:
        stack.ec2.fault = None
        for name in (node, other):
            cluster.label(name, capacity_reservation=None)
    wait_for("nodes without an end", lambda: _ends(stack) == {None})


def _ends(stack: ClusterStack) -> set[str | None]:
    (pool,) = stack.api("GET", "timeline")["pools"]
    return {node["until"] for node in pool["nodes"]}


def _node(stack: ClusterStack, name: str) -> dict[str, Any]:
    (pool,) = stack.api("GET", "timeline")["pools"]
    found: dict[str, Any] = next(node for node in pool["nodes"] if node["name"] == name)
    return found


def _size(stack: ClusterStack, gpus: int) -> dict[str, Any]:
    pools = stack.api("GET", "availability")["pools"]
    found: dict[str, Any] = next(s for s in pools[0]["sizes"] if (s["gpus"], s["nodes"]) == (gpus, 1))
    return found


def test_a_foreign_pod_takes_gpus_of_a_node(
    stack: ClusterStack, cluster: Cluster, namespace: str, image: str
) -> None:
    """1: GPUs of another program's pod count as used, even if planned. No server is affected."""
    with_room = stack.api("GET", "availability")["pools"][0]["sizes"]
    assert next(s for s in with_room if (s["gpus"], s["nodes"]) == (8, 2))["free_now"] == 1
    cluster.apply(_foreign(namespace, image, "node-1", 6))
    cluster.wait_for_pod(namespace, "stranger")
    wait_for(
        "it to be counted", lambda: _size(stack, 8)["free_now"] == 1 and _size(stack, 2)["free_now"] == 5
    )
    whole = ready(stack, "alice", gpus=8)
    assert node_of(whole) == "node-2"
    small = ready(stack, "bob", gpus=2)
    assert node_of(small) == "node-1"
    waits = stack.reserve("carol", gpus=4)
    assert waits["state"] == "queued"
    cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/stranger").raise_for_status()
    stack.wait_state(waits["id"], "ready", "carol", CONVERGED)
    one_owner_each(stack)


def test_a_foreign_pod_is_quicker_than_a_start(
    stack: ClusterStack, cluster: Cluster, namespace: str, image: str
) -> None:
    """1: the planned GPUs are used when the pod is made. It moves to another node; the cause is logged."""
    stack.kill("service")
    cluster.apply(_foreign(namespace, image, "node-1", 8))
    cluster.wait_for_pod(namespace, "stranger")
    stack.start_part("service")
    stack.wait_until_up()
    record = ready(stack, "alice", gpus=8)
    assert node_of(record) == "node-2"
    one_owner_each(stack)
    cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/stranger").raise_for_status()


def _foreign(namespace: str, image: str, node: str, gpus: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger", "namespace": namespace},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "600"],
                    "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
                }
            ],
        },
    }


def test_a_pod_that_can_not_go_keeps_its_gpus(stack: ClusterStack, cluster: Cluster) -> None:
    """8: a slot is free only when its server is seen to be gone. Then the next request starts."""
    record, other = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    waiting = stack.reserve("carol", gpus=8)
    (pod,) = stack.pods(record["id"])
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
    hold = {"metadata": {"finalizers": ["gpudev.test/hold"]}}
    cluster.api.patch(path, json=hold, headers=MERGE).raise_for_status()
    try:
        stack.api("DELETE", f"reservations/{record['id']}", None, "alice")
        # The kubelet reports that its processes have ended. That is enough, although the object stays.
        after = stack.wait_state(waiting["id"], "ready", "carol", CONVERGED)
        assert uids(stack, record["id"]), "the test is about a pod that is still there"
        assert node_of(after) == node_of(record)
        one_owner_each(stack)
    finally:
        free = {"metadata": {"finalizers": None}}
        cluster.api.patch(path, json=free, headers=MERGE).raise_for_status()
    assert stack.record(other["id"], "bob")["state"] == "ready"


def test_allocatable_changes_under_running_servers(stack: ClusterStack, cluster: Cluster) -> None:
    record = ready(stack, "alice", gpus=2)
    before = uids(stack, record["id"])
    node = node_of(record)

    def seen() -> bool:
        # Repeat the change for each check, because the kubelet may have reset it.
        cluster.set_allocatable(node, "nvidia.com/gpu", 4)
        return bool(_size(stack, 2)["free_now"] == 5)

    try:
        wait_for("the service to see it", seen)
        untouched(stack, record, before)
    finally:
        cluster.set_allocatable(node, "nvidia.com/gpu", 8)
    wait_for("the service to see it again", lambda: _size(stack, 2)["free_now"] == 7)


def test_a_pod_that_nobody_can_end_keeps_its_gpus(stack: ClusterStack, cluster: Cluster) -> None:
    """8: its node is silent, so it never ends. Even deleting the object would free no GPUs."""
    record, other = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    lost = node_of(record)
    (pod,) = uids(stack, record["id"])
    cluster.kill_kubelet(lost)
    try:
        cluster.wait_for_node(lost, ready=False)
        stack.api("DELETE", f"reservations/{record['id']}", None, "alice")
        waiting = stack.reserve("carol", gpus=8)
        wait_for("the pod told to go", lambda: _told_to_go(stack.pods(record["id"])), CONVERGED)
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}"
        cluster.api.delete(path, params={"gracePeriodSeconds": "0"}).raise_for_status()
        assert uids(stack, record["id"]) == {}
        with pytest.raises(AssertionError, match="not within"):
            stack.wait_state(record["id"], "ended", "alice", 8)
        assert stack.record(waiting["id"], "carol")["state"] == "queued"
    finally:
        cluster.start_kubelet(lost)
        cluster.wait_for_node(lost)
    after = stack.wait_state(waiting["id"], "ready", "carol", 2 * CONVERGED)
    assert node_of(after) == lost
    assert stack.record(other["id"], "bob")["state"] == "ready"


def test_a_server_that_takes_too_much_memory(stack: ClusterStack, cluster: Cluster) -> None:
    """Other servers are not affected. With cgroups of version 2, the server restarts and shows the reason.

    With version 1, the kernel ends only the process that takes the memory, and the server continues.
    """
    record, neighbour = all_ready(stack, alice={"gpus": 1}, bob={"gpus": 1})
    before, others = uids(stack, record["id"]), uids(stack, neighbour["id"])
    hog = "import ctypes; ctypes.memset(ctypes.create_string_buffer(2**31), 1, 2**31)"
    with pytest.raises(subprocess.CalledProcessError) as killed:
        cluster.execute(NAMESPACE, next(iter(before)), "python3", "-c", hog)
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        after = again(stack, record, before)
        assert after["allocation"] == record["allocation"]
        causes = [entry["cause"] for entry in history(stack, record["id"], "alice")]
        assert any("more memory than its share" in cause for cause in causes), causes
    else:
        assert killed.value.returncode == 137
        untouched(stack, record, before)
    untouched(stack, neighbour, others)


def test_a_server_that_writes_more_than_its_share_of_the_disk(stack: ClusterStack, cluster: Cluster) -> None:
    """Other servers are not affected. The server restarts with its home, and shows the reason."""
    record, neighbour = all_ready(stack, alice={"gpus": 1}, bob={"gpus": 1})
    before, others = uids(stack, record["id"]), uids(stack, neighbour["id"])
    (pod,) = before
    cluster.execute(NAMESPACE, pod, "fallocate", "--length", "600M", "/scratch/too-much")
    after = again(stack, record, before)
    assert after["allocation"] == record["allocation"]
    causes = [entry["cause"] for entry in history(stack, record["id"], "alice")]
    # The text is the kubelet's, or gpudev's if the server ended before the kubelet wrote one.
    assert any("ephemeral local storage" in cause or "local disk" in cause for cause in causes), causes
    untouched(stack, neighbour, others)
