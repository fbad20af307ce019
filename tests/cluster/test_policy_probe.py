"""Servers start only where network policies are enforced: probes check the nodes, and each server checks."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from checks import CONVERGED, history, ready, uids, untouched
from cluster_stack import ADDRESS, ClusterStack
from cluster_users import NAMESPACE
from enforcement import Enforcement
from harness.bastion_image import bastion_image
from harness.cluster import Cluster
from harness.layout import API_SERVICE
from hub_users import wait_for
from manifests import Object, policy_probe

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]

NAME = "gpudev-policy-probe"
METADATA = "169.254.169.254"
SOON = 20.0
"""Seconds until the service knows the result of a probe. It checks every 5 s."""


@pytest.fixture(scope="module")
def enforcement(cluster: Cluster, stack: ClusterStack) -> Iterator[Enforcement]:
    """Run the chart's probes on every node, enforce policies, and let Hub and service use both."""
    image = bastion_image(cluster.layout)
    cluster.load(image)
    with ExitStack() as undo:
        undo.enter_context(metadata())
        cluster.apply(endpoints(), *policy_probe(image.reference))
        undo.callback(delete, cluster)
        running = undo.enter_context(Enforcement(cluster))
        stack.settings["policy_probe"] = True
        stack.restart("hub", "service")

        def back() -> None:
            stack.clean()
            del stack.settings["policy_probe"]
            stack.restart("hub", "service")

        undo.callback(back)
        wait_for("both probes are ready", lambda: proving(cluster) == {"node-1", "node-2"}, CONVERGED)
        yield running


@pytest.fixture(autouse=True)
def enforced(enforcement: Enforcement, clean: None) -> Iterator[None]:
    """Enforce all policies again after a test, before its reservations are ended."""
    yield
    enforcement.change()


SLICE = "gpudev-service-for-probes"


def endpoints() -> Object:
    """Return objects that resolve the service's name to the process beside the cluster."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": SLICE,
            "namespace": "gpudev",
            "labels": {
                "kubernetes.io/service-name": "gpudev-service",
                "endpointslice.kubernetes.io/managed-by": "tests",
            },
        },
        "addressType": "IPv4",
        "ports": [
            {"name": name, "port": port, "protocol": "TCP"}
            for name, port in (("public", 8100), ("gate", 8101))
        ],
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
    }


def delete(cluster: Cluster) -> None:
    """Delete the objects that ``enforcement`` applied."""
    for kind, name in (
        ("daemonset", NAME),
        ("service", NAME),
        ("serviceaccount", NAME),
        ("networkpolicy", "policy-probe"),
    ):
        cluster.kubectl("delete", kind, name, f"--namespace={NAMESPACE}", "--ignore-not-found")
    cluster.kubectl("delete", "endpointslice", SLICE, "--namespace=gpudev", "--ignore-not-found")
    wait_for("no probes", lambda: not [name for name in cluster.pods(NAMESPACE) if name.startswith(NAME)])


@contextmanager
def metadata() -> Iterator[None]:
    """Answer at the address of the instance metadata."""
    address = ["ip", "address"]
    subprocess.run([*address, "add", f"{METADATA}/32", "dev", "host0"], check=True)
    server = socket.create_server((METADATA, 80))

    def accept() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        subprocess.run([*address, "del", f"{METADATA}/32", "dev", "host0"], check=True)


def proving(cluster: Cluster) -> set[str]:
    """Return the nodes whose probe is Ready."""
    return {
        pod["spec"]["nodeName"]
        for name, pod in cluster.pods(NAMESPACE).items()
        if name.startswith(NAME)
        for condition in pod["status"].get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def probe_on(cluster: Cluster, node: str) -> str:
    """Return the name of the probe's pod."""
    return next(
        name
        for name, pod in cluster.pods(NAMESPACE).items()
        if name.startswith(NAME) and pod["spec"].get("nodeName") == node
    )


def said(cluster: Cluster, node: str) -> str:
    """Return the log of the node's probe."""
    return cluster.kubectl("logs", f"--namespace={NAMESPACE}", probe_on(cluster, node))


def failing(stack: ClusterStack) -> dict[str, float]:
    """Return the values of the metric by node."""
    text = httpx.get(f"http://{ADDRESS}:8102/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("gpudev_policy_probe_failing{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def node_of(record: dict[str, Any]) -> str:
    found: str = record["allocation"][0]["node"]
    return found


def test_servers_start_where_policies_are_enforced(stack: ClusterStack, cluster: Cluster) -> None:
    """Servers of one and of two nodes start. Each checks by itself, and probes do not count as servers."""
    pair = ready(stack, "alice", gpus=8, nodes=2)
    for pod in stack.pods(pair["id"]):
        log = cluster.kubectl("logs", f"--namespace={NAMESPACE}", pod["metadata"]["name"])
        assert "network policies are in force" in log
    assert failing(stack) == {"node-1": 0, "node-2": 0}
    assert NAME not in stack.log("service"), "no orphans"
    stack.end(pair["id"], "alice")
    assert proving(cluster) == {"node-1", "node-2"}


def test_nothing_new_starts_where_they_are_not_enforced(
    stack: ClusterStack, cluster: Cluster, enforcement: Enforcement
) -> None:
    running = ready(stack, "alice", gpus=1)
    before, open_node = uids(stack, running["id"]), node_of(running)
    (other,) = {"node-1", "node-2"} - {open_node}
    enforcement.change(off={open_node})
    wait_for("the service to know", lambda: failing(stack) == {open_node: 1, other: 0}, SOON)
    assert proving(cluster) == {other}
    # The probe reports what is wrong. On a busy machine, that takes a check or two.
    for target in (f"{METADATA}:80", f"{API_SERVICE}:443", "gpudev-service.gpudev:8101"):
        wait_for(
            f"{target} in its log",
            lambda target=target: f"{target} can be reached from here." in said(cluster, open_node),  # type: ignore[misc]
            SOON,
        )
    elsewhere = ready(stack, "bob", gpus=8)
    assert node_of(elsewhere) == other
    waiting = stack.reserve("carol", gpus=4)
    assert waiting["state"] == "queued"
    assert f"{open_node} is drained (its policy probe is not ready)" in waiting["reason"]
    untouched(stack, running, before)
    enforcement.change()
    started = stack.wait_state(waiting["id"], "ready", "carol", CONVERGED)
    assert node_of(started) == open_node
    assert failing(stack) == {open_node: 0, other: 0}
    untouched(stack, running, before)


def test_a_connection_that_a_node_lets_in_is_found_there(
    cluster: Cluster, enforcement: Enforcement, stack: ClusterStack
) -> None:
    """This works even if the node lets no forbidden connection out, because other probes try to connect."""
    enforcement.change(off={"node-1"}, only="ingress")
    wait_for("node-1 alone to be found out", lambda: proving(cluster) == {"node-2"}, SOON)
    address = cluster.pods(NAMESPACE)[probe_on(cluster, "node-2")]["status"]["podIP"]
    last = f"policy-probe: A connection from the probe {address} was let in."
    # Other messages come from the moment before all rules were loaded.
    wait_for("its last word", lambda: said(cluster, "node-1").splitlines()[-1] == last, SOON)
    enforcement.change()
    wait_for("node-1 is trusted again", lambda: proving(cluster) == {"node-1", "node-2"}, CONVERGED)


def test_a_plug_in_that_leaves_out_pods_without_a_controller_is_found_out(
    stack: ClusterStack, cluster: Cluster, enforcement: Enforcement
) -> None:
    """The probes are Ready, because a DaemonSet controls them. Each server finds it by its own check."""
    enforcement.change(controlled_only=True)
    record = stack.reserve("dave", gpus=1)

    def found_out() -> list[str]:
        """Return whether the start failed for this reason, as the Hub or the ended pod reports."""
        causes = [entry["cause"] for entry in history(stack, record["id"], "dave")]
        return [cause for cause in causes if "the network policies of this server are not enforced" in cause]

    causes = wait_for("a failed start", found_out, CONVERGED)
    assert causes[0].startswith(("start_failed", "server_gone"))
    assert f"it can reach {API_SERVICE}:443" in causes[0] or f"and {API_SERVICE}:443" in causes[0]
    assert proving(cluster) == {"node-1", "node-2"}


def test_a_service_that_restarts_moves_nobody(stack: ClusterStack, cluster: Cluster) -> None:
    """The probes are not Ready after a minute without an answer of the service. A restart takes seconds."""
    holding = [ready(stack, user, gpus=8) for user in ("alice", "bob")]
    waiting = stack.reserve("carol", gpus=8)
    stack.restart("service")
    assert proving(cluster) == {"node-1", "node-2"}
    after = stack.record(waiting["id"], "carol")
    assert after["planned_start"] == waiting["planned_start"]
    assert after["guaranteed_by"] == waiting["guaranteed_by"]
    assert [stack.record(one["id"], one["owner"])["state"] for one in holding] == ["ready", "ready"]
