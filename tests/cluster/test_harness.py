"""The test cluster behaves like a real one: it counts GPUs, connects pods, and its parts can be restarted."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from harness.api import Object
from harness.cluster import Cluster
from harness.images import Layer, ensure_image
from harness.layout import API_SERVICE, EFA, GPU, HOME_CLASS
from harness.server_image import BASE, base_image, server_layers
from harness.waiting import wait_for

pytestmark = pytest.mark.cluster


def pod(namespace: str, name: str, node: str, *command: str, gpus: int = 0, **spec: object) -> Object:
    """Return a pod for one node, selected by label, so that scheduler and kubelet both count its GPUs."""
    container: Object = {
        "name": "main",
        "image": BASE,
        "imagePullPolicy": "Never",
        "command": [*(command or ("sleep", "infinity"))],
    }
    if gpus:
        container["resources"] = {"limits": {GPU: str(gpus)}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "containers": [container],
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            **spec,
        },
    }


def service(namespace: str, name: str, **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8000}], **spec},
    }


def test_nodes_have_their_gpus_and_labels(cluster: Cluster) -> None:
    found = {node["metadata"]["name"]: node for node in cluster.api.get("/api/v1/nodes").json()["items"]}
    assert [*found] == ["node-1", "node-2"]
    for node in cluster.nodes:
        status = found[node.name]["status"]
        for kind in ("capacity", "allocatable"):
            assert (status[kind][GPU], status[kind][EFA]) == ("8", "32")
        assert found[node.name]["metadata"]["labels"].items() >= node.labels.items()
        assert {"type": "InternalIP", "address": node.address} in status["addresses"]


def test_a_fifth_pod_of_2_gpus_waits_for_room(cluster: Cluster, namespace: str) -> None:
    cluster.apply(*(pod(namespace, f"p{number}", "node-1", gpus=2) for number in range(4)))
    for number in range(4):
        cluster.wait_for_pod(namespace, f"p{number}")
    cluster.apply(pod(namespace, "p4", "node-1", gpus=2))

    def refused() -> str:
        conditions = cluster.pods(namespace)["p4"]["status"].get("conditions", [])
        return next((c["message"] for c in conditions if c.get("reason") == "Unschedulable"), "")

    assert f"Insufficient {GPU}" in wait_for("the scheduler refuses the fifth", refused)
    cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/p0").raise_for_status()
    cluster.wait_for_pod(namespace, "p4")


def test_pods_of_two_nodes_talk_by_address_name_and_service(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        service(namespace, "web", clusterIP="None"),
        service(namespace, "web-ip", selector={"app": "web"}),
        pod(namespace, "web", "node-1", "python3", "-m", "http.server", hostname="rank-0", subdomain="web"),
        pod(namespace, "asker", "node-2"),
    )
    address = cluster.wait_for_pod(namespace, "web")["status"]["podIP"]
    cluster.wait_for_pod(namespace, "asker")
    path = f"/api/v1/namespaces/{namespace}/services/web-ip"
    virtual = cluster.api.get(path).json()["spec"]["clusterIP"]
    name = f"rank-0.web.{namespace}.svc.cluster.local"
    wait_for("the server listens", lambda: listens(address))

    def by_name() -> bool:
        resolving = ("getent", "hosts", "rank-0.web")
        try:
            return address in cluster.execute(namespace, "asker", *resolving)
        except subprocess.CalledProcessError:
            return False

    wait_for("the pod's name is known to its neighbour", by_name)
    assert socket.gethostbyname(name) == address
    wait_for("the service has its rules", lambda: listens(virtual))
    for host in (address, "rank-0.web", virtual, "web-ip"):
        asking = f"import urllib.request as r; print(r.urlopen('http://{host}:8000/').status)"
        assert cluster.execute(namespace, "asker", "python3", "-c", asking) == "200\n"
    for host in (address, name, virtual):
        assert httpx.get(f"http://{host}:8000/", trust_env=False).status_code == httpx.codes.OK
    assert "GET / HTTP" in cluster.kubectl("logs", f"--namespace={namespace}", "web")


def listens(address: str) -> bool:
    try:
        socket.create_connection((address, 8000), timeout=1).close()
    except OSError:
        return False
    return True


def test_the_api_server_is_reached_from_a_pod(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, "asker", "node-1"))
    cluster.wait_for_pod(namespace, "asker")
    script = f"import socket; socket.create_connection(('{API_SERVICE}', 443), 5); print('yes')"
    assert cluster.execute(namespace, "asker", "python3", "-c", script) == "yes\n"


def test_a_home_is_made_when_claimed_and_the_same_when_claimed_again(
    cluster: Cluster, namespace: str
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "home-alice", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": HOME_CLASS,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": "home-alice"}}]

    def user_pod(name: str, node: str) -> Object:
        made = pod(namespace, name, node, volumes=volumes, securityContext={"runAsUser": 1000})
        made["spec"]["containers"][0]["volumeMounts"] = [{"name": "home", "mountPath": "/home/alice"}]
        return made

    cluster.apply(claim, user_pod("one", "node-1"), user_pod("two", "node-2"))
    for name in ("one", "two"):
        cluster.wait_for_pod(namespace, name)
    cluster.execute(namespace, "one", "sh", "-c", "echo kept >/home/alice/file")
    assert cluster.execute(namespace, "two", "cat", "/home/alice/file") == "kept\n"
    cluster.kubectl("delete", f"--namespace={namespace}", "pod/one", "pod/two", "pvc/home-alice")
    cluster.apply(claim, user_pod("three", "node-2"))
    cluster.wait_for_pod(namespace, "three")
    assert cluster.execute(namespace, "three", "cat", "/home/alice/file") == "kept\n"


def test_an_account_may_what_its_role_says_and_its_calls_are_counted(
    cluster: Cluster, namespace: str
) -> None:
    about = {"name": "reader", "namespace": namespace}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": about,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", **about}],
        },
    )
    reader = cluster.client(cluster.kubeconfig(namespace, "reader"))
    path = f"/api/v1/namespaces/{namespace}"
    wait_for("the role is known", lambda: reader.get(f"{path}/pods").is_success)
    before = cluster.calls(f"system:serviceaccount:{namespace}:reader")
    assert reader.get(f"{path}/pods").is_success
    assert reader.get(f"{path}/secrets").status_code == httpx.codes.FORBIDDEN
    calls = cluster.calls(f"system:serviceaccount:{namespace}:reader")
    assert calls - before == {("list", "pods"): 1, ("list", "secrets"): 1}


def test_a_node_without_its_kubelet_is_unknown_and_comes_back(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, "stays", "node-2", gpus=8))
    uid = cluster.wait_for_pod(namespace, "stays")["metadata"]["uid"]
    cluster.kill_kubelet("node-2")
    cluster.wait_for_node("node-2", ready=False)
    assert cluster.pods(namespace)["stays"]["status"]["phase"] == "Running"
    cluster.start_kubelet("node-2")
    cluster.wait_for_node("node-2")
    after = cluster.wait_for_pod(namespace, "stays")
    assert after["metadata"]["uid"] == uid
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_deleted_node_registers_again_with_its_gpus(cluster: Cluster) -> None:
    cluster.delete_node("node-2")
    assert cluster.api.get("/api/v1/nodes/node-2").status_code == httpx.codes.NOT_FOUND
    cluster.register_again("node-2")


def test_cordon_taint_and_unhealthy_devices(cluster: Cluster) -> None:
    taint = {"key": "test", "value": "yes", "effect": "NoSchedule"}
    cluster.cordon("node-1")
    cluster.taint("node-1", taint)
    cluster.set_allocatable("node-1", GPU, 7)
    found = cluster.api.get("/api/v1/nodes/node-1").json()
    assert found["spec"]["unschedulable"]
    assert taint in found["spec"]["taints"]
    assert (found["status"]["allocatable"][GPU], found["status"]["capacity"][GPU]) == ("7", "8")
    cluster.cordon("node-1", False)
    cluster.taint("node-1")
    cluster.set_allocatable("node-1", GPU, 8)
    cluster.wait_for_node("node-1")


def test_the_api_server_stops_and_returns(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(namespace, "stays", "node-1"))
    cluster.wait_for_pod(namespace, "stays")
    cluster.stop_api_server()
    try:
        with pytest.raises((httpx.ConnectError, httpx.RemoteProtocolError)):
            cluster.api.get("/readyz")
    finally:
        cluster.start_api_server()
    cluster.pause_api_server()
    try:
        with pytest.raises(httpx.TimeoutException):
            cluster.api.get("/readyz", timeout=0.5)
    finally:
        cluster.resume_api_server()
    assert "stays" in cluster.pods(namespace)
    for name in ("node-1", "node-2"):
        cluster.wait_for_node(name)


def test_the_controller_manager_takes_other_settings(cluster: Cluster) -> None:
    cluster.restart_controller_manager(["--node-monitor-grace-period=5s"])
    assert cluster.processes.runs("kube-controller-manager")
    cluster.restart_controller_manager()


def test_a_changed_top_layer_is_all_that_is_brought_to_the_nodes(cluster: Cluster, namespace: str) -> None:
    def labelled(text: str) -> Layer:
        def fill(root: Path) -> None:
            (root / "opt/text").write_text(text)

        return Layer("test-top", text, fill)

    below = base_image(cluster.layout)
    for text in ("first", "second"):
        image = ensure_image(
            cluster.layout, "localhost/test-top:test", [*server_layers(cluster.layout), labelled(text)]
        )
        assert image.digests[:-1] == below.digests
        cluster.load(image)
        made = pod(namespace, text, "node-1")
        made["spec"]["containers"][0]["image"] = image.reference
        cluster.apply(made)
        cluster.wait_for_pod(namespace, text)
        assert cluster.execute(namespace, text, "cat", "/opt/text") == text
