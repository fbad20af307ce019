"""Each check of an installation, as it should be and as it should not; what is wrong says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpudev_hub.core.model import HOUR, MINUTE, Node, NodeStatus
from gpudev_hub.core.policy import PoolSettings
from gpudev_hub.core.views.doctor import CHECKS, Facts, Finding, PodFact, examine

NOW = 1_893_456_000_000
POOL = PoolSettings("h100", 8, ("image",), max_gang=2)
NODES = tuple(Node(f"node-{n}", "h100", 8, "zone/group") for n in (1, 2))
PODS = (
    *(PodFact("prepull", node.name, True) for node in NODES),
    *(PodFact("bastion", "cpu-1", True) for _ in range(2)),
    PodFact("service", "cpu-1", True),
)
WELL = Facts(
    now=NOW,
    pools=(POOL,),
    policy_probe=True,
    bastion=True,
    cluster_time=NOW - 20_000,
    nodes=NODES,
    efa={"node-1": 32, "node-2": 32},
    pods=PODS,
    github=(11, ()),
)


def finding(facts: Facts, key: str) -> Finding:
    return next(one for one in examine(facts) if one.id == key)


def test_an_installation_that_is_as_it_should_be() -> None:
    found = examine(WELL)
    assert [one.id for one in found] == [key for key, *_ in CHECKS]
    assert len({one.id for one in found}) == len(CHECKS)
    assert all(one.ok for one in found), [one for one in found if not one.ok]


def nodes(**fields: Any) -> tuple[Node, ...]:
    """The second one is otherwise."""
    return (NODES[0], replace(NODES[1], **fields))


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("store", {"store": "there is no table gpudev"}, "no table gpudev", "table's name and region"),
    ("backups", {"backups": False}, "it is off", "update-continuous-backups"),
    ("hub", {"hub": "the Hub answered 403"}, "answered 403", "service-token"),
    ("cluster", {"cluster": "the API answered 403"}, "answered 403", "account gpudev-service"),
    ("clock", {"cluster_time": NOW - 2 * MINUTE}, "2 min ahead of", "Set the clock"),
    ("clock", {"cluster_time": NOW + 2 * MINUTE}, "2 min behind", "Set the clock"),
    ("clock", {"cluster_time": None}, "does not say the time", "Date header"),
    ("nodes", {"nodes": ()}, "no node in h100", "label gpudev/pool"),
    ("nodes", {"nodes": nodes(status=NodeStatus.DOWN)}, "node-2 is down", "Uncordon or repair"),
    (
        "nodes",
        {"nodes": nodes(status=NodeStatus.DRAINED, reason="cordoned")},
        "node-2 is drained (cordoned)",
        "Uncordon or repair",
    ),
    ("nodes", {"nodes": NODES[:1]}, "h100 has 1 for reservations of 2", "max_gang"),
    ("gpus", {"nodes": nodes(gpus=6)}, "node-2 offers 6 of 8 GPUs", "device plugin"),
    ("efa", {"efa": {"node-1": 32, "node-2": 31}}, "node-2 offers 31 of 32", "EFA device plugin"),
    ("efa", {"efa": {"node-1": 32}}, "node-2 offers 0 of 32", "launch template"),
    ("probes", {"policy_probe": False}, "nothing shows", "policy_probe to true"),
    ("probes", {"nodes": nodes(unproven=True)}, "not proven to be enforced on node-2", "Policy probe"),
    ("prepull", {"pods": PODS[1:]}, "not yet on node-1", "gpudev-prepull"),
    (
        "prepull",
        {"pods": (replace(PODS[0], ready=False), *PODS[1:])},
        "not yet on node-1",
        "cannot be pulled",
    ),
    ("bastion", {"pods": PODS[:3]}, "1 of at least 2 pods are ready", "describe pods"),
    ("bastion", {"bastion": False}, "the settings name none", "bastion.host"),
    ("ends", {"nodes": nodes(until=NOW + 23 * HOUR)}, "node-2 at ", "capacity block"),
    ("github", {"github": (11, ("clock", "App"))}, "2 of 11 facts do not hold: clock, App", "github-check"),
]


@pytest.mark.parametrize(("key", "fields", "found", "todo"), WRONG)
def test_what_is_wrong_is_found_and_says_what_to_do(
    key: str, fields: dict[str, Any], found: str, todo: str
) -> None:
    one = finding(replace(WELL, **fields), key)
    assert not one.ok
    assert found in one.found
    assert todo in one.todo
    assert one.todo.endswith(".")


def test_each_check_is_seen_to_fail() -> None:
    assert {key for key, *_ in WRONG} == {key for key, *_ in CHECKS}


def test_what_cannot_be_read_is_no_fault() -> None:
    one = finding(replace(WELL, backups="AccessDeniedException"), "backups")
    assert one.ok
    assert "AccessDeniedException" in one.found


def test_no_efa_at_all_is_no_fault() -> None:
    assert finding(replace(WELL, efa={}), "efa").ok


def test_what_needs_the_cluster_is_not_called_wrong_without_it() -> None:
    found = examine(replace(WELL, cluster="it does not answer", nodes=(), pods=(), cluster_time=None))
    unknown = {one.id for one in found if one.found.startswith("not checked")}
    assert unknown == {key for key, _, needs_cluster, _ in CHECKS if needs_cluster}


def test_nodes_of_no_pool_are_nobodys() -> None:
    stranger = Node("other", "", 0, "", NodeStatus.DOWN, unproven=True)
    assert all(one.ok for one in examine(replace(WELL, nodes=(*NODES, stranger))))
