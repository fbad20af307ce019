"""Parts die or stop answering while servers start and run. Numbers are those of the invariants."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from checks import (
    CONVERGED,
    again,
    all_ready,
    asked_until_acknowledged,
    history,
    one_owner_each,
    ready,
    the_only_one,
    uids,
    untouched,
)
from cluster_stack import ClusterStack
from cluster_users import NAMESPACE
from dynamodb_proxy import Fault
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_ANSWER, BEFORE_COMMIT, BEFORE_EFFECT
from harness.cluster import Cluster
from hub_users import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]


def test_the_service_dies_between_two_steps_of_a_reservation(stack: ClusterStack) -> None:
    """3, 10: an acknowledged or retried request makes one reservation."""
    running = ready(stack, "bob", gpus=8)
    before = uids(stack, running["id"])
    for place in (BEFORE_COMMIT, AFTER_COMMIT, BEFORE_ANSWER, BEFORE_EFFECT):
        stack.kill("service")
        # The first commit of a service records that it has compared users with GitHub.
        at = "2" if place in (BEFORE_COMMIT, AFTER_COMMIT) else "1"
        stack.start_part("service", {"GPUDEV_FAILPOINT": place, "GPUDEV_FAILPOINT_AT": at})
        record = _asked_across_a_death(stack, place)
        stack.wait_until_up()
        stack.wait_state(record["id"], "ready", "alice", CONVERGED)
        the_only_one(stack, record)
        assert len(stack.pods(record["id"])) == 1, place
        one_owner_each(stack)
        untouched(stack, running, before)
        stack.end(record["id"], "alice")


def _asked_across_a_death(stack: ClusterStack, place: str) -> dict[str, Any]:
    """Retry a request until it is acknowledged. The service dies once meanwhile, and is restarted."""
    ask = {"gpus": 2, "hours": 1, "request_id": f"at-{place}-{time.monotonic_ns()}"}
    deaths: list[str] = []

    def asked() -> dict[str, Any] | None:
        if not stack.runs("service"):
            deaths.append(place)
            stack.start_part("service")
        try:
            with stack.client("alice") as client:
                answer = client.post("reservations", json=ask)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code in (200, 201) else None

    record = wait_for("an answer", asked, CONVERGED)
    if not deaths:
        # This failpoint comes after the answer.
        wait_for("its death", lambda: not stack.runs("service"), CONVERGED)
        stack.start_part("service")
    return record


def test_the_hub_dies_in_the_middle_of_a_start(stack: ClusterStack) -> None:
    """The pod continues, and the next Hub adopts it: there is one pod and one attempt."""
    record = stack.reserve("alice", gpus=2)
    wait_for("its pod", lambda: stack.pods(record["id"]))
    before = uids(stack, record["id"])
    stack.kill("hub")
    stack.start_part("hub")
    after = stack.wait_state(record["id"], "ready", "alice", CONVERGED)
    assert uids(stack, record["id"]) == before
    assert stack.jupyter(after) == 200
    assert not [e for e in history(stack, record["id"], "alice") if "start_failed" in e["cause"]]


def test_the_hub_dies_before_a_pod_has_an_address(stack: ClusterStack, cluster: Cluster) -> None:
    """The next Hub waits for the pod's address instead of using the one that it guessed."""
    nodes = ("node-1", "node-2")
    for node in nodes:
        cluster.kill_kubelet(node)
    try:
        record = stack.reserve("alice", gpus=2)
        wait_for("its pod", lambda: stack.pods(record["id"]))
        before = uids(stack, record["id"])
        stack.kill("hub")
        stack.start_part("hub")
        wait_for("the Hub", lambda: stack.answers("hub"), CONVERGED)
        assert not stack.pods(record["id"])[0]["status"].get("podIP")
    finally:
        for node in nodes:
            cluster.start_kubelet(node)
    after = stack.wait_state(record["id"], "ready", "alice", CONVERGED)
    assert uids(stack, record["id"]) == before
    assert stack.jupyter(after) == 200


def test_a_hub_restarts_while_servers_run(stack: ClusterStack) -> None:
    """5, 8: routes and servers stay."""
    record = ready(stack, gpus=2)
    before = uids(stack, record["id"])
    stack.kill("hub")
    # That the server answers proves the route. It asks the Hub who the user is.
    assert stack.jupyter(record) != 0
    stack.start_part("hub")
    stack.wait_until_up()
    untouched(stack, record, before)


def test_the_api_server_is_away_for_a_minute(stack: ClusterStack, cluster: Cluster) -> None:
    """8: the service concludes nothing from silence. Requests made meanwhile start when the API is back."""
    record, pair = all_ready(stack, alice={"gpus": 2}, bob={"gpus": 4})
    before, others = uids(stack, record["id"]), uids(stack, pair["id"])
    said = len(stack.log("hub"))
    cluster.stop_api_server()
    begun = time.monotonic()
    try:
        asked = stack.reserve("carol", gpus=2)
        assert asked["state"] in ("queued", "starting"), "the queue works without the cluster"
        # KubeSpawner's watch then ends for good, without a message.
        wait_for("the watch to give up", lambda: "never recovered" in stack.log("hub")[said:], 120)
        wait_for("a minute", lambda: time.monotonic() - begun > 60, 70)
        assert stack.jupyter(record) == 200, "who works is not disturbed"
    finally:
        cluster.start_api_server()
    stack.wait_until_up()
    stack.wait_state(asked["id"], "ready", "carol", 2 * CONVERGED)
    assert not [e for e in history(stack, asked["id"], "carol") if "start_failed" in e["cause"]]
    untouched(stack, record, before)
    untouched(stack, pair, others)


def test_somebodys_pod_has_the_name_already(stack: ClusterStack, cluster: Cluster) -> None:
    """After a 409 nothing is deleted: the next attempt starts, and the other user's pod stays."""
    first, second = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    waiting = stack.reserve("carol", gpus=8)
    stranger = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{waiting['id']}-1", "namespace": NAMESPACE},
        "spec": {**_harmless(stack.pods(first["id"])[0]["spec"])},
    }
    cluster.apply(stranger)
    strange = cluster.pods(NAMESPACE)[f"{waiting['id']}-1"]["metadata"]["uid"]
    stack.end(first["id"], "alice")
    after = stack.wait_state(waiting["id"], "ready", "carol", 2 * CONVERGED)
    assert stack.jupyter(after, "carol") == 200
    assert cluster.pods(NAMESPACE)[f"{waiting['id']}-1"]["metadata"]["uid"] == strange
    assert any("another pod called" in e["cause"] for e in history(stack, waiting["id"], "carol"))
    one_owner_each(stack)
    assert stack.wait_state(second["id"], "ready", "bob")["allocation"] == second["allocation"]
    cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{waiting['id']}-1").raise_for_status()


def _harmless(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a pod that passes the namespace's rules, holds no GPU and does nothing."""
    (container,) = spec["containers"]
    return {
        "securityContext": spec["securityContext"],
        "containers": [
            {
                "name": "sleeper",
                "image": container["image"],
                "imagePullPolicy": "Never",
                "command": ["sleep", "600"],
                "securityContext": container["securityContext"],
            }
        ],
        "terminationGracePeriodSeconds": 0,
    }


def test_a_pod_of_a_pair_is_deleted_by_hand(stack: ClusterStack, cluster: Cluster) -> None:
    """2: the whole gang restarts on the same nodes, and ends at the same time."""
    record = ready(stack, "alice", gpus=8, nodes=2)
    for rank in (0, 1):
        before = uids(stack, record["id"])
        name = sorted(before)[rank]
        cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}").raise_for_status()
        after = again(stack, record, before)
        assert len(uids(stack, record["id"])) == 2
        assert after["allocation"] == record["allocation"]
        assert after["ends_at"] == record["ends_at"]
        one_owner_each(stack)


def test_a_worker_of_a_pair_dies(stack: ClusterStack, cluster: Cluster) -> None:
    """2: the whole gang restarts."""
    record = ready(stack, "bob", gpus=8, nodes=2)
    before = uids(stack, record["id"])
    # Kill process 1 of its container from the node, so that the pod fails.
    cluster.execute(NAMESPACE, sorted(before)[1], "sh", "-c", "kill -TERM 1")
    after = again(stack, record, before)
    assert after["allocation"] == record["allocation"]
    assert stack.jupyter(after, "bob") == 200


def test_a_pod_is_deleted_by_hand(stack: ClusterStack, cluster: Cluster) -> None:
    """The server comes back on the same GPUs. No other user gets them meanwhile."""
    record, other = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    waiting = stack.reserve("carol", gpus=8)
    before = uids(stack, record["id"])
    cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{next(iter(before))}").raise_for_status()
    after = again(stack, record, before)
    assert after["allocation"] == record["allocation"]
    assert stack.record(waiting["id"], "carol")["state"] == "queued"
    assert stack.wait_state(other["id"], "ready", "bob")["allocation"] == other["allocation"]


def test_dynamodb_answers_late_after_it_has_committed(stack: ClusterStack) -> None:
    """3, 11: the service reads the head to find an unknown outcome, and commits once."""
    running = ready(stack, "bob", gpus=2)
    before = uids(stack, running["id"])
    stack.faults.next(Fault.ANSWER_LATE)
    record = asked_until_acknowledged(stack, "alice", "late")
    assert not stack.faults.left, "the test is about an answer that came late"
    stack.wait_state(record["id"], "ready", "alice", CONVERGED)
    the_only_one(stack, record)
    untouched(stack, running, before)
    one_owner_each(stack)
