"""What a real API server allows and refuses each account: rights, admission, eviction."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest

from cluster_world import launch_of, settings_of
from gpudev_hub.hub import pods
from harness.cluster import Cluster
from harness.waiting import wait_for
from manifests import LAYERS, Object, load, of_kind, policy_probe, surroundings

pytestmark = pytest.mark.cluster

SERVERS = "/api/v1/namespaces/gpudev-servers"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/gpudev-servers/networkpolicies"
HOME = "/api/v1/namespaces/gpudev"
SYSTEM = "/api/v1/namespaces/kube-system"
NAMESPACES = ("gpudev", "gpudev-servers", "kube-system", "default")
DRY = {"dryRun": "All"}
"""Check rights and admission as in a real request, but store nothing."""

SERVICE = ("gpudev", "gpudev-service")
HUB = ("gpudev", "hub")
SERVER = ("gpudev-servers", "gpudev-server")
PREPULL = ("gpudev", "gpudev-prepull")
PROBE = ("gpudev-servers", "gpudev-policy-probe")
BASTION = ("gpudev", "gpudev-bastion")
Account = tuple[str, str]
Rights = set[tuple[str, str]]


class Accounts:
    """Clients of the API, one for each account."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._clients: dict[Account, httpx.Client] = {}

    def __getitem__(self, account: Account) -> httpx.Client:
        if account not in self._clients:
            self._clients[account] = self._cluster.client(self._cluster.kubeconfig(*account))
        return self._clients[account]

    def rights(self, account: Account, namespace: str) -> Rights:
        """Return (resource, verb) of all rights there that not every account has."""
        mine = self._reviewed(account, namespace)
        return mine - self._reviewed(("default", "default"), namespace)

    def _reviewed(self, account: Account, namespace: str) -> Rights:
        answer = self[account].post(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json={"spec": {"namespace": namespace}}
        )
        rules = answer.raise_for_status().json()["status"]["resourceRules"]
        return {
            (f"{group}/{resource}" if group else resource, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }


@pytest.fixture(scope="module")
def accounts(cluster: Cluster) -> Accounts:
    """Return the accounts once the manifests are applied and the policies in force."""
    cluster.apply(*surroundings(), *of_kind(policy_probe("localhost/bastion"), "ServiceAccount"))
    found = Accounts(cluster)
    wait_for(
        "the policies of admission are in force",
        lambda: all(
            found[HUB].post(path, params=DRY, json=body).status_code == 422
            for path, body in (
                (f"{SERVERS}/pods", changed(server(), lambda pod: pod["metadata"]["labels"].clear())),
                (f"{SERVERS}/services", headless() | {"spec": {"ports": [{"port": 80}]}}),
                (f"{SERVERS}/secrets", opaque() | {"type": "example.org/other"}),
                (POLICIES, changed(policy(), lambda policy: policy["metadata"].update(name="other"))),
            )
        ),
    )
    return found


def server() -> Object:
    """Return a pod as the spawner makes it, for a node that does not exist."""
    made: Object = pods.pod(launch_of(), 0, settings_of(), "home")
    made["spec"]["schedulerName"] = "nobody"
    return made


def changed(body: Object, change: Any) -> Object:
    copy = deepcopy(body)
    change(copy)
    return copy


RANK_0 = {"apiVersion": "v1", "kind": "Pod", "name": "a1-3", "uid": "u"}


def headless() -> Object:
    return pods.service(launch_of(nodes=2), RANK_0)


def policy() -> Object:
    return pods.network_policy(launch_of(nodes=2), RANK_0)


def opaque() -> Object:
    return pods.secret(launch_of(), settings_of(), {}, [])


def each(resource: str, verbs: str) -> Rights:
    return {(resource, verb) for verb in verbs.split()}


LOOK = each("nodes", "get list watch") | each("pods", "get list watch")
ALLOWED = {
    (SERVICE, "gpudev-servers"): LOOK | {("pods", "delete"), ("pods/log", "get")},
    (SERVICE, "gpudev"): LOOK,
    (SERVICE, "kube-system"): LOOK,
    (SERVICE, "default"): LOOK,
    (HUB, "gpudev-servers"): (
        each("pods", "get list watch create delete")
        | each("secrets", "get list create patch delete")
        | each("services", "get create")
        | each("persistentvolumeclaims", "get create")
        | each("networking.k8s.io/networkpolicies", "create")
        | each("events", "get list watch")
    ),
}


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize(
    "account", [SERVICE, HUB, SERVER, PREPULL, PROBE, BASTION], ids=lambda account: account[1]
)
def test_each_account_may_do_this_and_no_more(accounts: Accounts, account: Account, namespace: str) -> None:
    assert accounts.rights(account, namespace) == ALLOWED.get((account, namespace), set())


REFUSED = [
    # A user in a server who got a token of the server's account.
    (SERVER, "GET", f"{SERVERS}/secrets"),
    (SERVER, "GET", f"{SERVERS}/secrets/a1-3"),
    (SERVER, "GET", f"{SERVERS}/pods"),
    (SERVER, "GET", f"{SERVERS}/pods/a1-3"),
    (SERVER, "GET", f"{SERVERS}/pods/a1-3/log"),
    (SERVER, "DELETE", f"{SERVERS}/pods/a1-3"),
    (SERVER, "GET", f"{SERVERS}/services"),
    (SERVER, "GET", f"{HOME}/secrets"),
    (SERVER, "GET", f"{HOME}/configmaps/gpudev-config"),
    (SERVER, "GET", "/api/v1/nodes"),
    (SERVER, "GET", "/api/v1/namespaces"),
    (PREPULL, "GET", f"{HOME}/secrets"),
    (PREPULL, "GET", "/api/v1/nodes"),
    (PROBE, "GET", f"{SERVERS}/pods"),
    (PROBE, "GET", "/api/v1/nodes"),
    # An attacker who has broken out of the bastion's sshd.
    (BASTION, "GET", f"{HOME}/secrets"),
    (BASTION, "GET", f"{HOME}/secrets/gpudev-bastion"),
    (BASTION, "GET", f"{HOME}/pods"),
    (BASTION, "GET", f"{SERVERS}/pods"),
    (BASTION, "POST", f"{SERVERS}/pods"),
    (BASTION, "GET", "/api/v1/nodes"),
    # The service observes and deletes. It creates nothing, and reads no secret through the API.
    (SERVICE, "POST", f"{SERVERS}/pods"),
    (SERVICE, "PATCH", f"{SERVERS}/pods/a1-3"),
    (SERVICE, "DELETE", f"{SERVERS}/pods"),
    (SERVICE, "POST", f"{SERVERS}/pods/a1-3/eviction"),
    (SERVICE, "POST", f"{SERVERS}/pods/a1-3/exec?command=id"),
    (SERVICE, "GET", f"{SERVERS}/secrets/a1-3"),
    (SERVICE, "GET", f"{SERVERS}/secrets"),
    (SERVICE, "GET", f"{HOME}/secrets"),
    (SERVICE, "GET", f"{SYSTEM}/secrets"),
    (SERVICE, "GET", f"{HOME}/configmaps"),
    (SERVICE, "DELETE", f"{HOME}/pods/hub"),
    (SERVICE, "DELETE", f"{SYSTEM}/pods/kube-dns"),
    (SERVICE, "GET", f"{SYSTEM}/pods/kube-dns/log"),
    (SERVICE, "PATCH", "/api/v1/nodes/node-1"),
    (SERVICE, "DELETE", "/api/v1/nodes/node-1"),
    (SERVICE, "POST", f"{SERVERS}/serviceaccounts/gpudev-server/token"),
    # The Hub creates servers in their namespace, and has no rights elsewhere.
    (HUB, "GET", f"{HOME}/secrets"),
    (HUB, "GET", f"{HOME}/secrets/gpudev-service"),
    (HUB, "GET", f"{HOME}/pods"),
    (HUB, "POST", f"{HOME}/pods"),
    (HUB, "DELETE", f"{HOME}/pods/gpudev-service"),
    (HUB, "GET", f"{HOME}/configmaps"),
    (HUB, "GET", f"{SYSTEM}/secrets"),
    (HUB, "GET", "/api/v1/secrets"),
    (HUB, "GET", "/api/v1/pods"),
    (HUB, "GET", "/api/v1/nodes"),
    (HUB, "PATCH", "/api/v1/nodes/node-1"),
    (HUB, "PATCH", f"{SERVERS}/pods/a1-3"),
    (HUB, "DELETE", f"{SERVERS}/pods"),
    (HUB, "POST", f"{SERVERS}/pods/a1-3/exec?command=id"),
    (HUB, "POST", f"{SERVERS}/pods/a1-3/eviction"),
    (HUB, "PATCH", f"{SERVERS}/pods/a1-3/ephemeralcontainers"),
    (HUB, "DELETE", f"{SERVERS}/persistentvolumeclaims/gpudev-home-alice"),
    (HUB, "DELETE", f"{SERVERS}/services/a1"),
    (HUB, "POST", f"{SERVERS}/serviceaccounts/gpudev-server/token"),
    (HUB, "POST", f"{SERVERS}/serviceaccounts"),
    (HUB, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/gpudev-servers/rolebindings"),
    # It creates policies in the servers' namespace only and changes none: they are deleted with the pods.
    (HUB, "GET", POLICIES),
    (HUB, "PATCH", f"{POLICIES}/nothing-else"),
    (HUB, "DELETE", f"{POLICIES}/nothing-else"),
    (HUB, "DELETE", f"{POLICIES}/gang-a1-3"),
    (HUB, "POST", "/apis/networking.k8s.io/v1/namespaces/gpudev/networkpolicies"),
    (SERVICE, "POST", POLICIES),
]


@pytest.mark.parametrize(("account", "method", "path"), REFUSED, ids=lambda part: str(part)[-60:])
def test_refused(accounts: Accounts, account: Account, method: str, path: str) -> None:
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    body: Object | None = None if method == "GET" else {}
    answer = accounts[account].request(
        method, path, json=body, headers=headers, params=httpx.URL(path).params
    )
    assert answer.status_code == 403, answer.text
    assert "cannot" in answer.json()["message"], "by its rights, whatever the object"


# What the Hub may create


def test_the_hub_makes_servers(accounts: Accounts) -> None:
    """Admission accepts them exactly as the spawner writes them."""
    for nodes in (1, 2):
        for rank in range(nodes):
            pod: Object = changed(
                pods.pod(launch_of(nodes=nodes), rank, settings_of(), "home"),
                lambda pod: pod["spec"].update(schedulerName="nobody"),
            )
            answer = accounts[HUB].post(f"{SERVERS}/pods", params=DRY, json=pod)
            assert answer.status_code == 201, answer.text
            assert "warning" not in answer.headers, answer.headers.get("warning")
    for path, body in (
        (f"{SERVERS}/services", headless()),
        (f"{SERVERS}/secrets", opaque()),
        (POLICIES, policy()),
    ):
        answer = accounts[HUB].post(path, params=DRY, json=body)
        assert answer.status_code == 201, answer.text


def _host_path(pod: Object) -> None:
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})


def _container(**fields: Any) -> Any:
    return lambda pod: pod["spec"]["containers"][0]["securityContext"].update(fields)


NOT_SERVERS = {
    "without labels": (lambda pod: pod["metadata"].pop("labels"), "must have the labels"),
    "without its attempt": (
        lambda pod: pod["metadata"]["labels"].pop("gpudev/attempt"),
        "must have the labels",
    ),
    "out of the policies' sight": (
        lambda pod: pod["metadata"]["labels"].update({"app.kubernetes.io/component": "other"}),
        "by which network policies find it",
    ),
    "another account": (
        lambda pod: pod["spec"].update(serviceAccountName="default"),
        "account must be gpudev-server",
    ),
    "a token": (
        lambda pod: pod["spec"].update(automountServiceAccountToken=True),
        "its token must not be mounted",
    ),
    "a token by default": (
        lambda pod: pod["spec"].pop("automountServiceAccountToken"),
        "its token must not be mounted",
    ),
    "more important": (
        lambda pod: pod["spec"].update(priorityClassName="gpudev-service"),
        "priority class must be gpudev-server",
    ),
    "no priority": (lambda pod: pod["spec"].pop("priorityClassName"), "priority class must be gpudev-server"),
    "privileged": (_container(privileged=True, allowPrivilegeEscalation=True), "privileged"),
    "capabilities": (_container(capabilities={"add": ["SYS_ADMIN"]}), "unrestricted capabilities"),
    "root": (lambda pod: pod["spec"]["securityContext"].update(runAsUser=0), "runAsUser=0"),
    "a host's folder": (_host_path, "hostPath"),
    "the host's network": (lambda pod: pod["spec"].update(hostNetwork=True), "host namespaces"),
}


@pytest.mark.parametrize("what", NOT_SERVERS)
def test_the_hub_can_not_make_other_pods(accounts: Accounts, what: str) -> None:
    change, said = NOT_SERVERS[what]
    answer = accounts[HUB].post(f"{SERVERS}/pods", params=DRY, json=changed(server(), change))
    assert answer.status_code in (403, 422), answer.text
    assert said in answer.json()["message"]


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("services", {"type": "LoadBalancer", "ports": [{"port": 22}]}, "must be headless"),
        ("services", {"type": "ClusterIP", "ports": [{"port": 22}]}, "must be headless"),
        ("services", {"type": "ExternalName", "externalName": "example.org"}, "must be headless"),
        (
            "services",
            {"clusterIP": "None", "ports": [{"port": 22}], "externalIPs": ["192.0.2.1"]},
            "must not have external addresses",
        ),
    ],
)
def test_the_hub_can_not_open_doors(accounts: Accounts, kind: str, body: Object, said: str) -> None:
    answer = accounts[HUB].post(f"{SERVERS}/{kind}", params=DRY, json=headless() | {"spec": body})
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["message"]


def _spec(**fields: Any) -> Any:
    return lambda policy: policy["spec"].update(fields)


ANYBODY: Object = {"podSelector": {}}
OTHERS: Object = {"podSelector": {"matchLabels": {"gpudev/reservation": "b2"}}}
NOT_OF_ONE_RESERVATION = {
    "for all pods": (_spec(podSelector={}), "must select the pods of one reservation"),
    "for pods by another label": (
        _spec(podSelector={"matchLabels": {"gpudev/reservation": "a1", "gpudev/rank": "0"}}),
        "must select the pods of one reservation",
    ),
    "for pods by an expression": (
        _spec(podSelector={"matchExpressions": [{"key": "gpudev/reservation", "operator": "Exists"}]}),
        "must select the pods of one reservation",
    ),
    "for pods by both": (
        lambda policy: policy["spec"]["podSelector"].update(
            matchExpressions=[{"key": "gpudev/rank", "operator": "Exists"}]
        ),
        "must select the pods of one reservation",
    ),
    "of another's name": (lambda policy: policy["metadata"].update(name="gang-b2-3"), "must be gang-"),
    "without an attempt": (lambda policy: policy["metadata"].update(name="gang-a1-x"), "must be gang-"),
    "from another reservation": (
        _spec(ingress=[{"from": [OTHERS]}]),
        "must only let the pods that it selects",
    ),
    "from a second peer": (
        lambda policy: policy["spec"]["ingress"][0]["from"].append(OTHERS),
        "must only let the pods that it selects",
    ),
    "from all pods": (_spec(ingress=[{"from": [ANYBODY]}]), "must only let the pods that it selects"),
    "from everywhere": (_spec(ingress=[{}]), "must only let the pods that it selects"),
    "from a network": (
        _spec(ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
        "must only let the pods that it selects",
    ),
    "from another namespace": (
        lambda policy: policy["spec"]["ingress"][0]["from"][0].update(namespaceSelector={}),
        "must only let the pods that it selects",
    ),
    "by a second rule": (
        lambda policy: policy["spec"]["ingress"].append({}),
        "must only let the pods that it selects",
    ),
    "to everywhere": (_spec(egress=[{}]), "must only let the pods that it selects"),
    "to a network": (
        _spec(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
        "must only let the pods that it selects",
    ),
    "to a second peer": (
        lambda policy: policy["spec"]["egress"][0]["to"].append(ANYBODY),
        "must only let the pods that it selects",
    ),
    "for ever": (lambda policy: policy["metadata"].pop("ownerReferences"), "must have a pod as its owner"),
    "of a ConfigMap": (
        lambda policy: policy["metadata"]["ownerReferences"][0].update(kind="ConfigMap"),
        "must have a pod as its owner",
    ),
}


@pytest.mark.parametrize("what", NOT_OF_ONE_RESERVATION)
def test_the_hub_can_not_make_other_policies(accounts: Accounts, what: str) -> None:
    change, said = NOT_OF_ONE_RESERVATION[what]
    answer = accounts[HUB].post(POLICIES, params=DRY, json=changed(policy(), change))
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["message"]


def test_the_hub_can_not_have_a_token_made(accounts: Accounts) -> None:
    body: Object = opaque() | {"type": "kubernetes.io/service-account-token", "data": {}}
    body["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
    answer = accounts[HUB].post(f"{SERVERS}/secrets", params=DRY, json=body)
    assert answer.status_code == 422, answer.text
    assert "the type Opaque" in answer.json()["message"]


WORKLOADS = {
    f"{layer} {item['metadata']['name']}": item
    for layer in LAYERS
    for item in of_kind(load(layer), "Deployment", "DaemonSet")
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_our_workloads_pass_the_standard_of_their_namespace(
    cluster: Cluster, accounts: Accounts, name: str
) -> None:
    workload = WORKLOADS[name]
    body = {"apiVersion": "v1", "kind": "Pod", **workload["spec"]["template"]}
    body["metadata"] = {**body["metadata"], "generateName": "dry-"}
    path = f"/api/v1/namespaces/{workload['metadata']['namespace']}/pods"
    answer = cluster.api.post(path, params=DRY, json=body)
    assert answer.status_code == 201, answer.text


# What may be deleted, and by whom


@pytest.fixture
def pod(cluster: Cluster) -> Iterator[Object]:
    """Create a server's pod as the admin, for a node that does not exist."""
    yield from _made(cluster, server())


@pytest.fixture
def stranger(cluster: Cluster) -> Iterator[Object]:
    """Create a pod in the servers' namespace that is not a server."""
    yield from _made(cluster, changed(server(), lambda pod: pod["metadata"].update(name="other", labels={})))


def _made(cluster: Cluster, body: Object) -> Iterator[Object]:
    # Use a unique name, because the cluster may have servers.
    body["metadata"]["name"] = f"rights-{body['metadata']['name']}"
    path = f"{SERVERS}/pods/{body['metadata']['name']}"
    cluster.api.post(f"{SERVERS}/pods", json=body).raise_for_status()
    try:
        yield body
    finally:
        cluster.api.request("DELETE", path, json={"gracePeriodSeconds": 0})
        wait_for("the pod is gone", lambda: cluster.api.get(path).status_code == 404)


def test_the_service_ends_servers_and_no_other_pod(accounts: Accounts, pod: Object, stranger: Object) -> None:
    path = f"{SERVERS}/pods/{stranger['metadata']['name']}"
    answer = accounts[SERVICE].delete(path)
    assert answer.status_code == 422, answer.text
    assert "only pods of gpudev-servers with the label gpudev/reservation" in answer.json()["message"]
    assert accounts[SERVICE].get(path).is_success, "it is still there"
    accounts[SERVICE].delete(f"{SERVERS}/pods/{pod['metadata']['name']}").raise_for_status()


def test_others_are_not_bound_by_that(cluster: Cluster, stranger: Object, accounts: Accounts) -> None:
    cluster.api.delete(f"{SERVERS}/pods/{stranger['metadata']['name']}").raise_for_status()


@pytest.fixture
def unlabelled(cluster: Cluster) -> Iterator[Object]:
    """Remove the reservation's label from a pod, so that no running service deletes it as an orphan."""
    without = changed(server(), lambda pod: pod["metadata"]["labels"].pop("gpudev/reservation"))
    yield from _made(cluster, without)


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """Create a node that exists only in the API."""
    name = "to-be-drained"
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    cluster.api.post("/api/v1/nodes", json=body).raise_for_status()
    yield name
    cluster.api.delete(f"/api/v1/nodes/{name}").raise_for_status()


@pytest.mark.usefixtures("accounts")
def test_not_even_an_admin_evicts_a_server(cluster: Cluster, unlabelled: Object, node: str) -> None:
    """``kubectl drain`` as documented waits until the reservation has ended."""
    path = f"{SERVERS}/pods/{unlabelled['metadata']['name']}"
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": unlabelled["metadata"]["name"]},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    cluster.api.post(f"{path}/binding", json=binding).raise_for_status()
    # Kubernetes ignores the budget for a pod that does not run.
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    merge = {"Content-Type": "application/merge-patch+json"}
    cluster.api.patch(f"{path}/status", json=status, headers=merge).raise_for_status()
    budget = "/apis/policy/v1/namespaces/gpudev-servers/poddisruptionbudgets/servers"
    wait_for(
        "the budget has seen the server",
        lambda: cluster.api.get(budget).json().get("status", {}).get("currentHealthy"),
    )
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.kubectl(
            *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=5s")
        )
    assert "violate the pod's disruption budget" in refused.value.stderr
    assert "deletionTimestamp" not in cluster.api.get(path).json()["metadata"]
