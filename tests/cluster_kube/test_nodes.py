"""Node objects of the API, read as nodes of pools."""

from __future__ import annotations

from typing import Any

import pytest

from gpudev_hub.cluster.kube_nodes import node_facts, nodes_of
from gpudev_hub.core.model import Node, NodeStatus


def node(
    *,
    ready: str = "True",
    labels: dict[str, str] | None = None,
    allocatable: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    cordoned: bool = False,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    spec: dict[str, Any] = {"taints": taints or []}
    if cordoned:
        spec["unschedulable"] = True
    return {
        "metadata": {
            "name": "n1",
            "labels": {
                "gpudev/pool": "h100",
                "topology.kubernetes.io/zone": "us-east-2a",
                "gpudev/placement-group": "pg",
            }
            if labels is None
            else labels,
            "annotations": annotations or {},
        },
        "spec": spec,
        "status": {
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
            "allocatable": {"nvidia.com/gpu": "8", "cpu": "4"} if allocatable is None else allocatable,
        },
    }


def seen(item: dict[str, Any], **foreign: int) -> Node:
    facts = node_facts(item)
    return nodes_of([facts], foreign)[0]


def test_a_node_that_is_well() -> None:
    until = {"gpudev/until": "2030-01-01T00:00:00Z"}
    assert seen(node(annotations=until)) == Node(
        "n1", "h100", 8, "us-east-2a/pg", NodeStatus.UP, until=1_893_456_000_000
    )


@pytest.mark.parametrize(
    ("item", "status"),
    [
        (node(ready="False"), NodeStatus.DOWN),
        (node(ready="Unknown"), NodeStatus.UNKNOWN),
        (node(ready="Unknown", cordoned=True), NodeStatus.UNKNOWN),
        (node(cordoned=True), NodeStatus.DRAINED),
        (node(taints=[{"key": "maintenance", "effect": "NoSchedule"}]), NodeStatus.DRAINED),
        (node(taints=[{"key": "maintenance", "effect": "NoExecute"}]), NodeStatus.DRAINED),
        (node(taints=[{"key": "maintenance", "effect": "PreferNoSchedule"}]), NodeStatus.UP),
        (node(taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]), NodeStatus.UP),
        (
            node(ready="False", taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]),
            NodeStatus.DOWN,
        ),
    ],
)
def test_what_a_node_offers(item: dict[str, Any], status: NodeStatus) -> None:
    assert seen(item).status is status


def test_a_node_without_conditions_is_not_known() -> None:
    item = node()
    item["status"]["conditions"] = []
    assert seen(item).status is NodeStatus.UNKNOWN


def test_gpus_of_others_are_not_offered() -> None:
    assert seen(node(), n1=3, n2=8).gpus == 5
    assert seen(node(), n1=9).gpus == 0
    assert seen(node(allocatable={})).gpus == 0, "no device plugin yet"


def test_a_node_without_our_label_is_told_of_as_of_no_pool() -> None:
    """Whether it is one of ours that servers still run on, the core knows."""
    facts = node_facts(node(labels={"topology.kubernetes.io/zone": "us-east-2a"}))
    assert [found.pool for found in nodes_of([facts], {})] == [""]


def test_devices_are_those_that_the_node_has_to_give() -> None:
    facts = node_facts(
        node(
            allocatable={
                "nvidia.com/gpu": "8",
                "vpc.amazonaws.com/efa": "32",
                "hugepages-2Mi": "5Gi",
                "hugepages-1Gi": "0",
            }
        )
    )
    assert dict(facts.devices) == {"vpc.amazonaws.com/efa": "32", "hugepages-2Mi": "5Gi"}
    none = node_facts(node(allocatable={"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "0"}))
    assert none.devices == ()


def test_an_annotation_that_nobody_can_read_says_nothing() -> None:
    assert seen(node(annotations={"gpudev/until": "next week"})).until is None
