"""Pod objects of the API, read as servers. What is not surely gone is not gone (invariant 8)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpudev_hub.cluster.kube_pods import PodFacts, foreign_gpus, pod_facts, proven_nodes, sight_of
from gpudev_hub.cluster.kubernetes import split_log
from gpudev_hub.core.model import Presence
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.server.record import TOLD

NAMESPACE = "servers"
RUNNING = {"running": {"startedAt": "2030-01-01T00:00:00Z"}}


def ended(reason: str = "Error", code: int = 1, message: str = "") -> dict[str, Any]:
    return {
        "terminated": {
            "reason": reason,
            "exitCode": code,
            "message": message,
            "finishedAt": "2030-01-01T00:00:05Z",
        }
    }


def pod(
    *,
    rank: int = 0,
    ranks: int = 1,
    phase: str = "Running",
    state: dict[str, Any] | None = RUNNING,
    node: str | None = "n1",
    gpus: int = 2,
    namespace: str = NAMESPACE,
    labels: dict[str, str] | None = None,
    deleted: bool = False,
    conditions: list[dict[str, str]] | None = None,
    reason: str | None = None,
    message: str | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": f"a1-1-{rank}",
        "uid": f"uid-{rank}",
        "namespace": namespace,
        "labels": {
            "gpudev/reservation": "a1",
            "gpudev/attempt": "1",
            "gpudev/rank": str(rank),
            "gpudev/ranks": str(ranks),
        }
        if labels is None
        else labels,
    }
    if deleted:
        metadata["deletionTimestamp"] = "2030-01-01T00:01:00Z"
    status: dict[str, Any] = {"phase": phase, "podIP": f"198.18.0.{rank + 1}", "conditions": conditions or []}
    if state is not None:
        status["containerStatuses"] = [{"name": "server", "state": state}]
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    resources = {"requests": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    spec: dict[str, Any] = {"containers": [{"name": "server", "resources": resources}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": metadata, "spec": spec, "status": status}


def facts(item: dict[str, Any]) -> PodFacts:
    found = pod_facts(item, NAMESPACE)
    assert found is not None
    return found


def sight(*items: dict[str, Any], silent: tuple[str, ...] = (), nodes: tuple[str, ...] = ()) -> ServerSight:
    return sight_of("a1", 1, [facts(item) for item in items], silent, nodes)


def test_a_server_that_runs() -> None:
    assert sight(pod()) == ServerSight(
        "a1", 1, Presence.PRESENT, jupyter=("198.18.0.1", 8888), sshd={0: ("198.18.0.1", 2222)}
    )


def test_a_pair_is_one_server() -> None:
    both = sight(pod(ranks=2), pod(rank=1, ranks=2, node="n2"))
    assert both.complete
    assert both.sshd == {0: ("198.18.0.1", 2222), 1: ("198.18.0.2", 2222)}
    first = sight(pod(ranks=2))
    assert (first.presence, first.complete, first.forming) == (Presence.PRESENT, False, True)
    lost = sight(pod(ranks=2), pod(rank=1, ranks=2, phase="Failed", state=ended()))
    assert (lost.presence, lost.complete, lost.forming) == (Presence.PRESENT, False, False)
    assert lost.detail == "rank 1: Error"
    behind = sight(pod(ranks=2, phase="Failed", state=ended()), pod(rank=1, ranks=2))
    assert behind.sshd == {1: ("198.18.0.2", 2222)}, "the sshd of rank 1 must not be taken for rank 0's"


def test_gone_is_what_has_ended_for_certain() -> None:
    assert sight().presence is Presence.ABSENT
    assert sight(pod(phase="Succeeded", state=ended("Completed", 0))).presence is Presence.ABSENT
    refused = pod(phase="Failed", state=None, reason="UnexpectedAdmissionError")
    assert sight(refused).presence is Presence.ABSENT
    assert sight(pod(phase="Failed")).presence is Presence.PRESENT, "failed by others' word, and running"
    assert sight(pod(deleted=True)).presence is Presence.PRESENT, "a deletion is no end"
    assert sight(pod(phase="Pending", state=None, node=None)).presence is Presence.PRESENT


def test_nothing_is_concluded_of_a_node_that_is_silent() -> None:
    assert sight(pod(), silent=("n1",)).presence is Presence.UNKNOWN
    assert sight(pod(), silent=("n2",)).presence is Presence.PRESENT
    missing = sight(silent=("n1",), nodes=("n1",))
    assert missing.presence is Presence.UNKNOWN
    assert missing.detail == "no reports from n1"
    assert sight(silent=("n1",), nodes=("n2",)).presence is Presence.ABSENT
    over = pod(phase="Failed", state=ended())
    assert sight(over, silent=("n1",)).presence is Presence.ABSENT, "its end was seen before"


@pytest.mark.parametrize(
    ("item", "told", "by_user"),
    [
        (
            pod(
                phase="Failed",
                state=ended(message=json.dumps({"reason": "sshd: no hostkeys", "by_user": False, "code": 1})),
            ),
            "sshd: no hostkeys",
            False,
        ),
        (
            pod(
                phase="Succeeded",
                state=ended(
                    "Completed",
                    0,
                    json.dumps({"reason": "shut down from inside", "by_user": True}),
                ),
            ),
            "shut down from inside",
            True,
        ),
        (
            pod(phase="Failed", state=ended("OOMKilled", 137)),
            "it used more memory than its share and was killed (OOMKilled)",
            False,
        ),
        (pod(phase="Failed", state=ended("", 3)), "it ended with exit code 3", False),
        (pod(phase="Failed", state=ended("Error", 1, "{not json")), "Error: {not json", False),
        (pod(phase="Failed", state=ended("Error", 1, "[" * 4096)), f"Error: {'[' * 4096}", False),
        (pod(phase="Failed", state=None, reason="OutOfnvidia.com/gpu"), "OutOfnvidia.com/gpu", False),
        (
            pod(
                phase="Failed",
                state=ended("Error", 143, json.dumps({"reason": TOLD, "by_user": True})),
                reason="Evicted",
                message="Pod ephemeral local storage usage exceeds the total limit of containers 512Mi. ",
            ),
            "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 512Mi.",
            False,
        ),
        (
            pod(
                phase="Pending",
                state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
            ),
            "ImagePullBackOff: no such image",
            False,
        ),
        (pod(phase="Pending", state={"waiting": {"reason": "ContainerCreating"}}), "", False),
        (
            pod(
                phase="Pending",
                state=None,
                node=None,
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/2 nodes are available",
                    }
                ],
            ),
            "Unschedulable: 0/2 nodes are available",
            False,
        ),
    ],
)
def test_what_is_told_of_a_pod(item: dict[str, Any], told: str, by_user: bool) -> None:
    found = sight(item)
    assert (found.detail, found.user_stopped) == (told, by_user)


def test_who_told_a_server_to_end() -> None:
    """A kubelet that evicts a pod forgets to say so if the pod ends in time."""
    item = pod(phase="Succeeded", state=ended("Completed", 0, json.dumps({"reason": TOLD, "by_user": False})))
    assert "more to the local disk than its share" in sight(item).detail
    item["metadata"]["deletionTimestamp"] = "2030-01-01T00:01:00Z"
    assert sight(item).detail == "", "a deletion needs no words"


def test_pods_of_others_hold_gpus() -> None:
    items = [
        pod(),
        pod(rank=1, labels={}, gpus=3),
        pod(rank=2, namespace="elsewhere", gpus=2),
        pod(rank=3, labels={}, phase="Succeeded", gpus=4),
        pod(rank=4, labels={}, node=None, gpus=1),
    ]
    assert foreign_gpus(facts(item) for item in items) == {"n1": 5}
    assert pod_facts(pod(labels={}, gpus=0), NAMESPACE) is None


PROBE = {"app.kubernetes.io/component": "policy-probe"}
READY = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]


def test_a_policy_probe_that_is_ready_proves_its_node() -> None:
    item = pod(labels=PROBE, gpus=0, conditions=READY)
    assert facts(item).server is None
    assert proven_nodes([facts(item)]) == {"n1"}
    assert foreign_gpus([facts(item)]) == {"n1": 0}


@pytest.mark.parametrize(
    "item",
    [
        pod(labels=PROBE, gpus=0, conditions=[{"type": "Ready", "status": "False"}]),
        pod(labels=PROBE, gpus=0, conditions=[]),
        pod(labels=PROBE, gpus=0, conditions=READY, deleted=True),
        pod(labels=PROBE, gpus=0, conditions=READY, node=None),
        pod(labels=PROBE, gpus=1, conditions=READY, namespace="elsewhere"),
        pod(conditions=READY),
        pod(labels={"gpudev/reservation": "a1", "gpudev/attempt": "1"} | PROBE, conditions=READY),
    ],
    ids=["failing", "new", "leaving", "nowhere", "a stranger's", "a server", "a server with that label"],
)
def test_nothing_else_proves_a_node(item: dict[str, Any]) -> None:
    assert proven_nodes([facts(item)]) == frozenset()


def test_labels_of_another_namespace_make_no_server() -> None:
    assert facts(pod(namespace="elsewhere")).server is None
    assert facts(pod(labels={"gpudev/reservation": "a1", "gpudev/attempt": "x"})).server is None


def test_logs_are_told_apart() -> None:
    text = "jupyter| one\nsshd| two\njupyter| three\nno bar\njupyter| four"
    assert split_log(text, 2) == {"jupyter": "three\nfour", "sshd": "two", "launcher": "no bar"}


def test_the_rest_of_a_pod_that_was_deleted_before_it_ran_is_no_reason() -> None:
    """The reason why its start was given up must not be told over by it."""
    gone = pod(phase="Failed", state=ended("ContainerStatusUnknown", 137, "it could not be located"))
    facts = pod_facts(gone, NAMESPACE)
    assert facts is not None
    assert "could not be located" in sight_of("g1", 1, [facts], []).detail
    gone["metadata"]["deletionTimestamp"] = "2026-11-27T00:00:00Z"
    facts = pod_facts(gone, NAMESPACE)
    assert facts is not None
    assert sight_of("g1", 1, [facts], []).detail == ""
