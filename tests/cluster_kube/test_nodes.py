"""Node objects of the API, read as nodes of pools."""

from __future__ import annotations

from typing import Any

import pytest

from gpudev_hub.cluster.capacity import BlockSight
from gpudev_hub.cluster.kube_nodes import HEALTH, node_facts, nodes_of
from gpudev_hub.core.model import CapacityBlock, Node, NodeStatus


def node(
    *,
    ready: str = "True",
    labels: dict[str, str] | None = None,
    allocatable: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    cordoned: bool = False,
    annotations: dict[str, str] | None = None,
    conditions: list[dict[str, str]] | None = None,
    block: str | None = None,
) -> dict[str, Any]:
    spec: dict[str, Any] = {"taints": taints or []}
    if cordoned:
        spec["unschedulable"] = True
    item: dict[str, Any] = {
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
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": ready},
                *(conditions or []),
            ],
            "allocatable": {"nvidia.com/gpu": "8", "cpu": "4"} if allocatable is None else allocatable,
        },
    }
    if block is not None:
        item["metadata"]["labels"]["gpudev/capacity-reservation"] = block
    return item


def condition(
    type: str = "AcceleratedHardwareReady", status: str = "False", reason: str = "", message: str = ""
) -> dict[str, str]:
    return {"type": type, "status": status, "reason": reason, "message": message}


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


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (node(cordoned=True), "cordoned"),
        (node(taints=[{"key": "maintenance", "effect": "NoSchedule"}]), "tainted maintenance:NoSchedule"),
        (node(), ""),
    ],
)
def test_why_a_node_takes_no_new_server(item: dict[str, Any], reason: str) -> None:
    assert seen(item).reason == reason


def test_only_proven_nodes_take_new_servers_where_that_is_asked_for() -> None:
    facts = node_facts(node())
    (well,) = nodes_of([facts], {}, {"n1"})
    (unproven,) = nodes_of([facts], {}, {"n2"})
    (nobody_looks,) = nodes_of([facts], {}, None)
    assert (well.status, well.reason, well.unproven) == (NodeStatus.UP, "", False)
    assert nobody_looks == well
    assert (unproven.status, unproven.unproven) == (NodeStatus.DRAINED, True)
    assert unproven.reason == "its policy probe is not ready"
    (silent,) = nodes_of([node_facts(node(ready="Unknown"))], {}, set())
    assert silent.status is NodeStatus.UNKNOWN
    (both,) = nodes_of([node_facts(node(cordoned=True))], {}, set())
    assert both.reason == "cordoned; its policy probe is not ready"


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


def test_why_nothing_new_starts_on_a_node_is_said() -> None:
    taint = {"key": "maintenance", "effect": "NoSchedule"}
    found = seen(node(cordoned=True, taints=[taint], conditions=[condition(reason="NvidiaXID79Error")]))
    assert found.reason == (
        "cordoned; tainted maintenance:NoSchedule; AcceleratedHardwareReady is False: NvidiaXID79Error"
    )
    assert seen(node()).reason == ""


@pytest.mark.parametrize("type", HEALTH)
def test_a_node_that_is_not_well_gets_nothing_new(type: str) -> None:
    found = seen(node(conditions=[condition(type, reason="Broken")]))
    assert (found.status, found.unhealthy) == (NodeStatus.DRAINED, (type,))
    assert found.reason == f"{type} is False: Broken"


@pytest.mark.parametrize("status", ["True", "Unknown"])
def test_conditions_that_are_not_false_mean_nothing(status: str) -> None:
    found = seen(node(conditions=[condition(status=status, reason="NvidiaXID79Error")]))
    assert (found.status, found.unhealthy, found.reason) == (NodeStatus.UP, (), "")


def test_other_conditions_mean_nothing() -> None:
    """So it is on a node without the agent, too."""
    assert seen(node(conditions=[condition("DiskPressure"), condition("Whatever")])).status is NodeStatus.UP


def test_a_node_that_is_down_is_down_however_unwell_it_is() -> None:
    assert seen(node(ready="False", conditions=[condition(reason="Broken")])).status is NodeStatus.DOWN


@pytest.mark.parametrize(
    ("reason", "message", "ill"),
    [
        ("NvidiaXID13Error", "detected XID-13 on the instance, review kernel logs", False),
        ("NvidiaXID31Error", "detected XID-31 on the instance; detected XID-13 on the instance", False),
        ("NvidiaXID43Error", "", False),
        ("NvidiaXID45", "", False),
        ("NvidiaXID31Error", "detected XID-79 on the instance; detected XID-31 on the instance", True),
        ("NvidiaXID31Error", "detected XID-31 and XID-79 on the instance", True),
        ("NvidiaXID31Error", "2 GPUs are missing; detected XID-31 on the instance", True),
        ("NvidiaXID79Error", "detected XID-79 on the instance", True),
        ("NvidiaXID131Error", "", True),
        ("NvidiaDoubleBitError", "detected 1 double bit error; detected XID-13 on the instance", True),
        ("", "", True),
    ],
)
def test_an_error_of_a_users_program_is_no_fault_of_the_gpu(reason: str, message: str, ill: bool) -> None:
    found = seen(node(conditions=[condition(reason=reason, message=message)]))
    assert (found.status is NodeStatus.DRAINED) is ill
    assert bool(found.unhealthy) is ill


def test_a_reason_that_somebody_else_wrote_stays_short_and_on_one_line() -> None:
    found = seen(node(conditions=[condition(reason="a\nb\x1b[31m" + 300 * "x")]))
    assert found.reason.startswith("AcceleratedHardwareReady is False: a b [31mxx")
    assert len(found.reason) < 150


def of_block(sight: BlockSight | None) -> Node:
    blocks = {} if sight is None else {"cr-1": sight}
    return nodes_of([node_facts(node(block="cr-1"))], {}, blocks=blocks)[0]


def test_a_node_tells_of_its_capacity_block() -> None:
    assert seen(node()).block is None
    assert of_block(None).block == CapacityBlock("cr-1")
    known = of_block(BlockSight(ends_at=77, trouble="no answer")).block
    assert known == CapacityBlock("cr-1", 77, "no answer")


def test_nothing_new_starts_on_nodes_of_a_block_that_is_over() -> None:
    found = of_block(BlockSight(ends_at=77, over="capacity block cr-1 is cancelled"))
    assert (found.status, found.reason) == (NodeStatus.DRAINED, "capacity block cr-1 is cancelled")
