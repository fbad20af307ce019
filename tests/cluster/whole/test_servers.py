"""Servers as pods: reserve, open, connect, end. Only the GPUs are simulated."""

from __future__ import annotations

import re
from typing import Any

import pytest

from all_reduce import ALL_REDUCE
from cluster_users import NAMESPACE
from harness.cluster import Cluster
from hub_users import wait_for
from people import People
from sessions import hub_api, log_in, reserve_in_picker
from whole_stack import WholeStack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420), pytest.mark.usefixtures("clean")]


def gpus_of(pod: dict[str, Any]) -> str:
    found: str = pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    return found


def test_every_size_in_the_picker_becomes_a_server(stack: WholeStack, person: People) -> None:
    """1, 2, 4 and 8 GPUs on two nodes: JupyterLab works through the proxy, and SSH in the pod."""
    names = {"1": "alice", "2": "bob", "4": "carol", "8": "dave"}
    ids: dict[str, str] = {}
    for gpus, user in names.items():
        # Add the keys first, because the service asks GitHub for keys at most once a minute.
        person(user)
        with log_in(stack, user) as browser:
            ids[gpus] = reserve_in_picker(browser, f"of-{gpus}", f"h100-1x{gpus}")
    for gpus, user in names.items():
        ready = stack.wait_state(ids[gpus], "ready", user)
        assert stack.jupyter(ready, user) == 200
        (pod,) = stack.pods(ids[gpus])
        assert gpus_of(pod) == gpus
        assert pod["spec"]["nodeName"] == ready["allocation"][0]["node"], "the scheduler agrees with the plan"
        said = person(user).ssh(
            f"gpu-of-{gpus}", "echo $GPUDEV_RESERVATION $GPUDEV_NODE $NNODES; id -un; pwd"
        )
        assert said.stdout.split() == [ids[gpus], pod["spec"]["nodeName"], "1", "dev", "/home/dev"]


def test_a_full_pool_queues_and_moves_on(stack: WholeStack) -> None:
    first, second = stack.reserve("alice", gpus=8), stack.reserve("bob", gpus=8)
    third = stack.reserve("carol", gpus=4)
    assert third["state"] == "queued"
    assert (third["position"], third["planned_start"]) == (1, third["guaranteed_by"])
    assert re.search(r"waiting for 4 GPUs: node-[12] is free by (\d+ \w+ )?..:..", third["reason"])
    for record in (first, second):
        stack.wait_state(record["id"], "ready", record["owner"])
    stack.api("DELETE", f"reservations/{first['id']}", None, "alice")
    ready = stack.wait_state(third["id"], "ready", "carol")
    assert stack.jupyter(ready, "carol") == 200


def test_a_pair_is_two_pods_that_know_each_other(stack: WholeStack, cluster: Cluster, person: People) -> None:
    """Invariant 2: an all-reduce works over both without edits. Both end together, with their policy."""
    alice = person("alice")
    record = alice.json("reserve", "--nodes", "2", "--hours", "1", "--name", "pair")
    pods = stack.pods(record["id"])
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node-1", "node-2"]
    for pod in pods:
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert (limits["nvidia.com/gpu"], limits["vpc.amazonaws.com/efa"]) == ("8", "32")
        assert "hostNetwork" not in pod["spec"]
    policies = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
    policy = f"{policies}/gang-{record['id']}-{pods[0]['metadata']['labels']['gpudev/attempt']}"
    selected = cluster.api.get(policy).raise_for_status().json()["spec"]["podSelector"]
    assert selected == {"matchLabels": {"gpudev/reservation": record["id"]}}
    show = "echo $NODE_RANK $NNODES $MASTER_ADDR $MASTER_PORT"
    first = alice.ssh("gpu-pair", show).stdout.split()
    for name in ("rank-1", f"{record['id']}-1", "pair-1", "gpu-pair-1"):
        other = alice.ssh("gpu-pair", f"ssh {name} '{show}'").stdout.split()
        assert (first[0], other[0], first[1:]) == ("0", "1", other[1:])
    assert alice.ssh("gpu-pair-1", "echo $NODE_RANK").stdout == "1\n"
    alice.ssh("gpu-pair", f"cat > ~/sum.py <<'X'\n{ALL_REDUCE}\nX")
    run = "mpirun --hostfile ~/hostfile --map-by ppr:2:node python ~/sum.py"
    assert alice.ssh("gpu-pair", run, timeout=120).stdout == "6 2\n"
    stack.end(record["id"], "alice")
    assert alice.ssh("gpu-pair", "true", check=False).returncode == 255
    wait_for("both pods gone", lambda: not stack.pods(record["id"]), 20)
    wait_for("their policy gone", lambda: cluster.api.get(policy).status_code == 404)


def test_a_jupyter_that_dies_comes_back_in_its_pod_and_a_pod_on_its_node(
    stack: WholeStack, cluster: Cluster, person: People
) -> None:
    before = stack.wait_state(stack.reserve("bob", gpus=2)["id"], "ready", "bob")
    name = stack.pods(before["id"])[0]["metadata"]["name"]
    cluster.execute(NAMESPACE, name, "pkill", "-9", "-f", "jupyterhub-singleuser")
    wait_for("JupyterLab again", lambda: stack.jupyter(before, "bob") == 200, 60)
    assert [pod["metadata"]["name"] for pod in stack.pods(before["id"])] == [name]
    assert stack.api("GET", f"reservations/{before['id']}", None, "bob")["state"] == "ready"

    cluster.execute(NAMESPACE, name, "kill", "1")

    def again() -> dict[str, Any] | None:
        found: dict[str, Any] = stack.api("GET", f"reservations/{before['id']}", None, "bob")
        pods = stack.pods(before["id"])
        moved = found["state"] == "ready" and pods and pods[-1]["metadata"]["name"] != name
        return found if moved else None

    after = wait_for("the same server again", again, 120)
    assert after["allocation"] == before["allocation"]
    assert after["ends_at"] == before["ends_at"]
    assert "it was asked to stop" in str(
        stack.api("GET", f"reservations/{before['id']}/history", None, "bob")
    )
    assert stack.jupyter(after, "bob") == 200


def test_a_stop_in_the_hub_keeps_the_slots_and_a_deletion_does_not(
    stack: WholeStack, cluster: Cluster
) -> None:
    before = stack.wait_state(stack.reserve("carol", gpus=8)["id"], "ready", "carol")
    with log_in(stack, "carol") as browser:
        hub_api(browser, "DELETE", f"/users/carol/servers/{before['id']}")

    def shown(server: str) -> dict[str, Any] | None:
        found: dict[str, Any] = stack.api("GET", f"reservations/{before['id']}", None, "carol")
        return found if found["server"] == server else None

    stopped = wait_for("the stop", lambda: shown("stopped"))
    assert stopped["allocation"] == before["allocation"]
    assert "the GPUs are kept until" in stopped["reason"]
    stack.api("POST", f"reservations/{before['id']}/resume", None, "carol")
    after = stack.wait_state(before["id"], "ready", "carol")
    assert after["allocation"] == before["allocation"]
    assert stack.jupyter(after, "carol") == 200
    with log_in(stack, "carol") as browser:
        hub_api(browser, "DELETE", f"/users/carol/servers/{before['id']}", {"remove": True})
    assert stack.wait_state(before["id"], "ended", "carol")["outcome"] == "released"
    home = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/gpudev-home-carol")
    assert home.json()["status"]["phase"] == "Bound", "homes outlive servers"


def test_a_home_is_its_owners_on_every_node(stack: WholeStack, person: People) -> None:
    dave = person("dave")
    dave.run("reserve", "--gpus", "8", "--hours", "1", "--name", "one")
    dave.run("reserve", "--gpus", "8", "--hours", "1", "--name", "two")
    dave.ssh("gpu-one", "echo kept > ~/file; echo gone > /scratch/file")
    assert dave.ssh("gpu-two", "cat ~/file").stdout == "kept\n"
    assert dave.ssh("gpu-two", "cat /scratch/file", check=False).returncode != 0
    shm = dave.ssh("gpu-one", "df --output=size -BM /dev/shm | tail -1").stdout.strip()
    assert shm == "3072M"
