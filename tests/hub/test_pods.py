"""The objects that a launch becomes on Kubernetes, as plain objects."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from cluster_world import launch_of, settings_of
from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.core.gate import Launch
from gpudev_hub.hub import pods


def flat(value: object) -> str:
    return json.dumps(value)


def test_a_share_of_a_node() -> None:
    body = pods.pod(launch_of(gpus=2), 0, settings_of(), "home-alice")
    (container,) = body["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "44000m", "memory": "460800Mi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "460800Mi", "nvidia.com/gpu": "2"},
    }
    shm = next(volume for volume in body["spec"]["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "230400Mi"}


def test_a_share_of_a_disk_where_the_pool_says_its_size() -> None:
    settings = settings_of()
    (pool,) = settings.pools
    bounded = msgspec.structs.replace(
        settings, pools=(msgspec.structs.replace(pool, disk_gib_per_node=1000),)
    )
    (container,) = pods.pod(launch_of(gpus=2), 0, bounded, "c")["spec"]["containers"]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["ephemeral-storage"] == "256000Mi"


def test_it_is_pinned_through_the_scheduler() -> None:
    spec = pods.pod(launch_of(), 0, settings_of(), "c")["spec"]
    assert "nodeName" not in spec
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = terms["nodeSelectorTerms"]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}


def test_a_silent_node_does_not_evict_it() -> None:
    spec = pods.pod(launch_of(), 0, settings_of(), "c")["spec"]
    forever = {(t["key"], t["effect"]) for t in spec["tolerations"] if "tolerationSeconds" not in t}
    assert ("node.kubernetes.io/unreachable", "NoExecute") in forever
    assert ("node.kubernetes.io/not-ready", "NoExecute") in forever


def test_a_cordon_does_not_keep_a_server_from_coming_back() -> None:
    spec = pods.pod(launch_of(), 0, settings_of(), "c")["spec"]
    assert {
        "key": "node.kubernetes.io/unschedulable",
        "operator": "Exists",
        "effect": "NoSchedule",
    } in spec["tolerations"]


def test_it_has_no_rights_and_no_privilege() -> None:
    spec = pods.pod(launch_of(), 0, settings_of(), "c")["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not any("hostPath" in volume for volume in spec["volumes"])
    sudo = pods.pod(launch_of(), 0, settings_of(sudo=True), "c")["spec"]["containers"][0]
    assert sudo["securityContext"] == {"allowPrivilegeEscalation": True}


def test_nothing_secret_stands_in_a_pod_or_service() -> None:
    launch = launch_of(nodes=2)
    owner = {"name": "x", "uid": "u"}
    shown = flat([pods.pod(launch, 1, settings_of(), "c", owner), pods.service(launch, owner)])
    for word in ("hub-token", launch.token, launch.ssh[0].host_key, "gang-key"):
        assert word not in shown
    secret = pods.secret(launch, settings_of(), {"JUPYTERHUB_API_TOKEN": "hub-token"}, ["jupyter"])
    spec = json.loads(base64.b64decode(secret["data"]["spec.json"]))
    assert spec["launch"] == json.loads(msgspec.json.encode(launch))
    assert pods.token_in(secret) == "hub-token"


def spec_of(launch: Launch, settings: ClusterSettings) -> Any:
    secret = pods.secret(launch, settings, {"JUPYTERHUB_API_TOKEN": "t"}, ["jupyter"])
    return json.loads(base64.b64decode(secret["data"]["spec.json"]))


@pytest.mark.parametrize(("asked", "forbidden"), [(True, ["gpudev-service.gpudev:8101"]), (False, [])])
def test_a_server_checks_its_policies_where_the_settings_ask(asked: bool, forbidden: list[str]) -> None:
    spec = spec_of(launch_of(), settings_of(policy_probe=asked))
    assert spec["forbidden"] == forbidden


def test_a_server_knows_the_hub_that_its_token_belongs_to() -> None:
    secret = pods.secret(launch_of(), settings_of(), {"JUPYTERHUB_PUBLIC_HUB_URL": ""}, ["jupyter"])
    env = json.loads(base64.b64decode(secret["data"]["spec.json"]))["env"]
    assert env["JUPYTERHUB_PUBLIC_HUB_URL"] == f"{env['GPUDEV_URL']}/hub/"


def test_a_pair_finds_itself_by_names() -> None:
    launch = launch_of(nodes=2)
    spec = spec_of(launch, settings_of())
    domain = "gang-a1-3.gpudev-servers.svc.cluster.local"
    assert [peer["host"] for peer in spec["peers"]] == [f"a1.{domain}", f"a1-1.{domain}"]
    assert (spec["env"]["MASTER_ADDR"], spec["env"]["NNODES"]) == (f"a1.{domain}", "2")
    second = pods.pod(launch, 1, settings_of(), "c", {"uid": "u"})
    assert (second["spec"]["hostname"], second["spec"]["subdomain"]) == ("a1-1", "gang-a1-3")
    assert second["spec"]["dnsConfig"] == {"searches": [domain]}
    assert second["metadata"]["ownerReferences"] == [{"uid": "u"}]
    service = pods.service(launch, {"uid": "u"})
    assert service["metadata"]["name"] == "gang-a1-3"
    labels = second["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_a_pair_has_a_policy_of_its_own_for_as_long_as_its_first_pod() -> None:
    launch, owner = launch_of(nodes=2), {"uid": "u"}
    policy = pods.network_policy(launch, owner)
    assert policy["metadata"]["name"] == "gang-a1-3"
    assert policy["metadata"]["ownerReferences"] == [owner]
    ranks = {"podSelector": {"matchLabels": {"gpudev/reservation": "a1"}}}
    assert policy["spec"] == {
        **ranks,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [ranks]}],
        "egress": [{"to": [ranks]}],
    }
    for rank in range(2):
        labels = pods.pod(launch, rank, settings_of(), "c")["metadata"]["labels"]
        assert labels["gpudev/reservation"] == "a1"
        assert labels["gpudev/own-policy"] == "true", "the policy of earlier versions leaves it out"
    assert "gpudev/own-policy" not in pods.pod(launch_of(), 0, settings_of(), "c")["metadata"]["labels"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_devices_only_for_whole_nodes_and_as_they_are(nodes: int) -> None:
    devices = ({"vpc.amazonaws.com/efa": "32", "hugepages-2Mi": "5120Mi"}, {}) if nodes == 2 else ()
    launch = launch_of(nodes=nodes, devices=devices)
    found: list[Any] = [pods.pod(launch, rank, settings_of(), "c") for rank in range(nodes)]
    resources = [body["spec"]["containers"][0]["resources"] for body in found]
    if nodes == 1:
        assert set(resources[0]["limits"]) == {"memory", "nvidia.com/gpu"}
        return
    for part in ("requests", "limits"):
        assert resources[0][part]["vpc.amazonaws.com/efa"] == "32"
        assert resources[0][part]["hugepages-2Mi"] == "5120Mi"
        assert "vpc.amazonaws.com/efa" not in resources[1][part]
    assert any(volume["name"] == "hugepages" for volume in found[0]["spec"]["volumes"])
    assert not any(volume["name"] == "hugepages" for volume in found[1]["spec"]["volumes"])
