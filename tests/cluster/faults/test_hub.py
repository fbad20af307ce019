"""A Hub that starts at a bad moment, is wrong about a server, or has lost its database."""

from __future__ import annotations

import signal

import pytest

from checks import (
    CONVERGED,
    again,
    all_ready,
    attempts,
    failed_starts,
    nft_table,
    one_owner_each,
    ready,
    uids,
    untouched,
)
from cluster_stack import MISSING, ClusterStack
from cluster_users import NAMESPACE
from harness.cluster import Cluster
from hub_users import wait_for
from sessions import hub_api, log_in

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]


def test_it_starts_while_the_api_server_is_away(stack: ClusterStack, cluster: Cluster) -> None:
    """8: it ends no server that it cannot see, and starts made meanwhile do not fail."""
    record = ready(stack, gpus=2)
    before = uids(stack, record["id"])
    cluster.stop_api_server()
    try:
        stack.kill("hub")
        stack.start_part("hub")
        wait_for("the Hub", lambda: stack.answers("hub"), CONVERGED)
        asked = stack.reserve("bob", gpus=2)
        assert stack.jupyter(record) == 200, "who works is not disturbed"
    finally:
        cluster.start_api_server()
    stack.wait_state(asked["id"], "ready", "bob", CONVERGED)
    assert not failed_starts(stack, asked)
    untouched(stack, record, before)


def test_it_starts_while_a_jupyter_is_too_busy_to_answer(stack: ClusterStack) -> None:
    """8: it forgets the server, and the service lets it adopt the server again: same pod, same end."""
    record = ready(stack, gpus=2)
    before = uids(stack, record["id"])
    (pod,) = stack.pods(record["id"])
    # Refuse connections, like a full queue. JupyterHub would wait five minutes for a Jupyter that hangs.
    busy = f"ip daddr {pod['status']['podIP']} tcp dport 8888 reject with tcp reset"
    with nft_table(("type filter hook output priority 0", busy)):
        stack.kill("hub")
        said = len(stack.log("hub"))
        stack.start_part("hub", {"GPUDEV_TEST_HTTP_TIMEOUT": "5"})
        wait_for("the Hub to give it up", lambda: "does not appear to be running" in stack.log("hub")[said:])
        wait_for("the Hub", lambda: stack.answers("hub"), CONVERGED)
        assert uids(stack, record["id"]) == before
    untouched(stack, record, before)


def test_it_says_stopped_and_the_pod_lives(stack: ClusterStack, cluster: Cluster) -> None:
    """8, 10: its report frees no GPUs. The service ends the pod; then the user may start the server again."""
    record, _ = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    waiting = stack.reserve("carol", gpus=8)
    before = uids(stack, record["id"])
    with log_in(stack, "alice") as browser:
        cluster.stop_api_server()
        try:
            hub_api(browser, "DELETE", f"/users/alice/servers/{record['id']}")
            wait_for(
                "the Hub to take it for stopped",
                lambda: "may still run" in stack.log("hub"),
                CONVERGED,
            )
        finally:
            cluster.start_api_server()
    wait_for("its pod gone", lambda: not uids(stack, record["id"]), 2 * CONVERGED)
    stopped = stack.record(record["id"])
    assert "the GPUs are kept until" in stopped["reason"]
    assert stack.record(waiting["id"], "carol")["state"] == "queued"
    stack.api("POST", f"reservations/{record['id']}/resume")
    after = stack.wait_state(record["id"], "ready", "alice", CONVERGED)
    assert after["allocation"] == record["allocation"]
    assert not set(uids(stack, record["id"]).values()) & set(before.values())
    one_owner_each(stack)


def test_its_user_stops_a_start_that_has_no_pod_yet(stack: ClusterStack, cluster: Cluster) -> None:
    """The stop is recorded: the server does not restart, and its GPUs are kept for a while."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods", "namespace": NAMESPACE},
        "spec": {"hard": {"pods": "0"}},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas/no-pods"
    with log_in(stack, "alice") as browser:
        cluster.apply(quota)
        try:
            wait_for("the quota", lambda: cluster.api.get(path).json().get("status", {}).get("hard"))
            record = stack.reserve("alice", gpus=2)
            server = f"/users/alice/servers/{record['id']}"

            def starts() -> bool:
                found = hub_api(browser, "GET", "/users/alice").json()["servers"]
                return bool(found.get(record["id"], {}).get("pending") == "spawn")

            wait_for("its start", starts)
            hub_api(browser, "DELETE", server)
            wait_for("the wish", lambda: "the GPUs are kept until" in (_reason(stack, record["id"]) or ""))
        finally:
            cluster.api.delete(path).raise_for_status()
    assert not failed_starts(stack, record)
    assert not stack.pods(record["id"])
    stack.api("POST", f"reservations/{record['id']}/resume")
    stack.wait_state(record["id"], "ready", "alice", CONVERGED)


def _reason(stack: ClusterStack, id: str) -> str | None:
    found: str | None = stack.record(id)["reason"]
    return found


def test_its_database_is_lost(stack: ClusterStack, cluster: Cluster) -> None:
    """5, 8: servers continue, and users reach them again after they log in."""
    record, other, lost = all_ready(stack, alice={"gpus": 2}, bob={"gpus": 4}, dave={"gpus": 8})
    before, others, lone = (uids(stack, mine["id"]) for mine in (record, other, lost))
    stack.kill("hub")
    stack.lose_hub_database()
    stack.start_part("hub")
    wait_for("the Hub", lambda: stack.answers("hub"), CONVERGED)
    # A server that ends now cannot be restarted, because the Hub does not know its user.
    cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{next(iter(lone))}").raise_for_status()
    wait_for("it gone", lambda: not uids(stack, lost["id"]), CONVERGED)
    for mine, pods in ((record, before), (other, others)):
        stack.record(mine["id"], mine["owner"])
        wait_for("its Jupyter", lambda mine=mine: stack.jupyter(mine, mine["owner"]) == 200, 2 * CONVERGED)  # type: ignore[misc]
        untouched(stack, mine, pods)
    assert ready(stack, "carol", gpus=2)["state"] == "ready"
    waits = wait_for("the reason", lambda: "log in" in (_reason(stack, lost["id"]) or ""), CONVERGED)
    assert waits
    after = again(stack, lost, lone)
    assert (after["allocation"], after["ends_at"]) == (lost["allocation"], lost["ends_at"])


def test_it_says_pending_and_then_the_start_fails(stack: ClusterStack) -> None:
    """It answers after ten seconds and gives up after fifteen. The user is told the cause."""
    said = len(stack.log("hub"))
    record = stack.reserve("alice", gpus=8, image=MISSING)
    wait_for("its failure", lambda: failed_starts(stack, record), CONVERGED)
    assert "is slow to start (timeout=10)" in stack.log("hub")[said:]
    assert "ErrImageNeverPull" in failed_starts(stack, record)[0]
    wait_for("the next attempt", lambda: attempts(stack, record) == {2}, CONVERGED)


def test_it_hangs_while_servers_run(stack: ClusterStack) -> None:
    """The Hub accepts requests and answers none: the queue continues; starts follow when it is back."""
    record = ready(stack, gpus=4)
    before = uids(stack, record["id"])
    stack.forget_tokens()
    assert stack.record(record["id"])["state"] == "ready", "the service knows her for half a minute now"
    said = len(stack.log("service"))
    stack.send("hub", signal.SIGSTOP)
    try:
        asked = stack.reserve("alice", gpus=2)
        assert asked["state"] in ("queued", "starting")
        # The service gives up its start request and repeats it, so the Hub gets it twice.
        wait_for("the service to notice", lambda: "the Hub does not answer" in stack.log("service")[said:])
    finally:
        stack.send("hub", signal.SIGCONT)
    untouched(stack, record, before)
    stack.wait_state(asked["id"], "ready", "alice", CONVERGED)
    assert ready(stack, "bob", gpus=8)["state"] == "ready"
