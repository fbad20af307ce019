"""The manifests as plain objects: what they must say, and that they agree with each other and the code."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import msgspec
import pytest

from cluster_world import launch_of, settings_of
from gpudev_hub.cluster.labels import JUPYTER_PORT, POOL, RANKS, RESERVATION, SSHD_PORT
from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.hub import pods
from gpudev_hub.settings import PREFIX
from manifests import (
    MANIFESTS,
    ROOT,
    Object,
    containers,
    key,
    labels_of_the_chart,
    load,
    of_kind,
    one,
    pod_templates,
    read_one,
)

BASE = load()
AWS = load("aws")
SETTINGS = msgspec.json.decode(
    one(BASE, "ConfigMap", "gpudev-config", "gpudev")["data"]["cluster.json"], type=ClusterSettings
)
TEMPLATES = pod_templates(AWS)


def deployment() -> Object:
    return one(BASE, "Deployment", "gpudev-service", "gpudev")


def volumes_of(template: Object) -> dict[str, Object]:
    return {volume["name"]: volume for volume in template["spec"]["volumes"]}


def test_every_file_is_named_and_every_object_is_there_once() -> None:
    for folder in MANIFESTS.iterdir():
        named = read_one(folder / "kustomization.yaml")["resources"]
        files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert files == {name for name in named if not name.startswith("..")}
    assert set(Counter(map(key, AWS)).values()) == {1}
    kinds = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "StorageClass"}
    admission = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    for item in AWS:
        assert (item["metadata"].get("namespace") is None) == (item["kind"] in kinds | admission), key(item)


def test_both_namespaces_refuse_privilege() -> None:
    for name in ("gpudev", SETTINGS.namespace):
        labels = one(BASE, "Namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_workloads_run_as_nobody_special_and_say_what_they_need(name: str) -> None:
    spec = TEMPLATES[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all("hostPath" not in volume for volume in spec.get("volumes", ()))
    for container in containers(spec):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_a_server_passes_the_standard_of_its_namespace() -> None:
    """What ``restricted`` of PodSecurity asks for, of the pods that the spawner makes."""
    spec = pods.pod(launch_of(), 0, settings_of(), "home")["spec"]
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "secret"}
    assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(spec):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_service_is_one_and_moves_soon() -> None:
    """One writer (invariant 11): two would do no harm, but only one is ever wanted."""
    spec = deployment()["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    pod = spec["template"]["spec"]
    assert {t["key"]: t["tolerationSeconds"] for t in pod["tolerations"]} == {
        "node.kubernetes.io/not-ready": 30,
        "node.kubernetes.io/unreachable": 30,
    }
    assert pod["priorityClassName"] == "gpudev-service"
    assert pod["terminationGracePeriodSeconds"] >= 10


def test_the_services_ports_are_the_same_everywhere() -> None:
    service = one(BASE, "Service", "gpudev-service", "gpudev")["spec"]
    (container,) = deployment()["spec"]["template"]["spec"]["containers"]
    wanted = {"public": SETTINGS.public_port, "gate": SETTINGS.gate_port}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == wanted
    assert {port["name"]: port["port"] for port in service["ports"]} == wanted
    assert all(port["targetPort"] == port["name"] for port in service["ports"])
    assert service["selector"].items() <= deployment()["spec"]["template"]["metadata"]["labels"].items()
    assert SETTINGS.service_url == f"http://gpudev-service.gpudev:{wanted['public']}"
    assert SETTINGS.gate_url == f"http://gpudev-service.gpudev:{wanted['gate']}"
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    # SSH must work while the Hub or the store is away.
    live = {"path": f"{PREFIX}health/live", "port": "public"}
    assert probes == {"startup": live, "liveness": live, "readiness": live}
    # It would lead to the old pod on a node that is dead, too, for as long as that is Terminating.
    assert "publishNotReadyAddresses" not in service


def test_the_service_finds_its_files() -> None:
    template = deployment()["spec"]["template"]
    (container,) = template["spec"]["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = volumes_of(template)
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["GPUDEV_SECRETS"] == SETTINGS.secrets
    assert env["GPUDEV_CLUSTER"] == "/etc/gpudev/config/cluster.json"
    sources = volumes[mounts[SETTINGS.secrets]["name"]]["projected"]["sources"]
    assert [source["secret"]["name"] for source in sources] == ["gpudev-shared", "gpudev-service"]
    assert volumes[mounts[SETTINGS.keys]["name"]]["configMap"]["name"] == "gpudev-keys"
    assert volumes[mounts[SETTINGS.state]["name"]]["emptyDir"]["medium"] == "Memory", "it holds the CA's key"
    assert all(mounts[path].get("readOnly") for path in mounts if path.startswith("/etc/"))


def test_the_example_settings_are_the_layers() -> None:
    """The images that are fetched beforehand are those that users may choose from."""
    replaced = {
        image["name"]: f"{image['newName']}:{image['newTag']}"
        for image in read_one(MANIFESTS / "aws" / "kustomization.yaml")["images"]
    }
    fetched = {
        replaced[container["image"]]
        for container in one(BASE, "DaemonSet", "gpudev-prepull", "gpudev")["spec"]["template"]["spec"][
            "initContainers"
        ]
    }
    assert fetched == {image for pool in SETTINGS.pools for image in pool.images}
    values = read_one(ROOT / "hub-config" / "values.yaml")["hub"]
    assert replaced["gpudev-hub"] == f"{values['image']['name']}:{values['image']['tag']}"
    assert SETTINGS.home.storage_class == one(AWS, "StorageClass", "gpudev-home")["metadata"]["name"]
    assert SETTINGS.hub_api == f"{values['config']['JupyterHub']['hub_connect_url']}/hub/api"


def test_images_are_fetched_on_gpu_nodes_and_no_gpu_is_taken() -> None:
    spec = one(BASE, "DaemonSet", "gpudev-prepull", "gpudev")["spec"]["template"]["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms == {"nodeSelectorTerms": [{"matchExpressions": [{"key": POOL, "operator": "Exists"}]}]}
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert gpu in spec["tolerations"]
    for container in containers(spec):
        assert set(container["resources"]["requests"]) | set(container["resources"]["limits"]) == {
            "cpu",
            "memory",
        }


def rules_of(name: str, kind: str = "Role", namespace: str | None = "gpudev-servers") -> set[tuple[str, str]]:
    role = one(BASE, kind, name, namespace)
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    assert all(rule["apiGroups"] == [""] for rule in role["rules"])
    return {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }


def each(resource: str, verbs: str) -> set[tuple[str, str]]:
    return {(resource, verb) for verb in verbs.split()}


def test_rights_are_these_and_no_others() -> None:
    assert rules_of("gpudev-service", "ClusterRole", None) == each("nodes", "get list watch") | each(
        "pods", "get list watch"
    )
    assert rules_of("gpudev-service") == {("pods", "delete"), ("pods/log", "get")}
    assert rules_of("gpudev-hub") == (
        each("pods", "get list watch create delete")
        | each("secrets", "get list create patch delete")
        | each("services", "get create")
        | each("persistentvolumeclaims", "get create")
        | each("events", "get list watch")
    )
    bound = {
        (item["kind"], item["metadata"].get("namespace"), item["roleRef"]["kind"], item["roleRef"]["name"]): [
            (subject["kind"], subject["namespace"], subject["name"]) for subject in item["subjects"]
        ]
        for item in of_kind(BASE, "RoleBinding", "ClusterRoleBinding")
    }
    service, hub = ("ServiceAccount", "gpudev", "gpudev-service"), ("ServiceAccount", "gpudev", "hub")
    assert bound == {
        ("ClusterRoleBinding", None, "ClusterRole", "gpudev-service"): [service],
        ("RoleBinding", "gpudev-servers", "Role", "gpudev-service"): [service],
        ("RoleBinding", "gpudev-servers", "Role", "gpudev-hub"): [hub],
    }
    roles = {key(item) for item in of_kind(BASE, "Role", "ClusterRole")}
    assert roles == {
        ("ClusterRole", None, "gpudev-service"),
        ("Role", "gpudev-servers", "gpudev-service"),
        ("Role", "gpudev-servers", "gpudev-hub"),
    }


def test_each_part_has_an_account_and_only_two_get_a_token() -> None:
    accounts = {key(item)[1:]: item for item in of_kind(BASE, "ServiceAccount")}
    assert {name: item["automountServiceAccountToken"] for name, item in accounts.items()} == {
        ("gpudev", "gpudev-service"): False,
        ("gpudev", "hub"): True,
        ("gpudev", "gpudev-prepull"): False,
        ("gpudev-servers", pods.SERVICE_ACCOUNT): False,
    }
    tokens = {name: template["spec"]["automountServiceAccountToken"] for name, template in TEMPLATES.items()}
    assert tokens == {"Deployment/gpudev-service": True, "DaemonSet/gpudev-prepull": False}
    assert pods.pod(launch_of(), 0, settings_of(), "home")["spec"]["automountServiceAccountToken"] is False


def test_policies_of_admission_are_bound_deny_and_fail_closed() -> None:
    policies = {item["metadata"]["name"]: item for item in of_kind(BASE, "ValidatingAdmissionPolicy")}
    bindings = of_kind(BASE, "ValidatingAdmissionPolicyBinding")
    assert {item["spec"]["policyName"] for item in bindings} == set(policies)
    assert all(item["spec"]["validationActions"] == ["Deny"] for item in bindings)
    assert all(item["spec"]["failurePolicy"] == "Fail" for item in policies.values())
    (deletes,) = policies["gpudev-service-deletes"]["spec"]["validations"]
    assert f"'{RESERVATION}' in oldObject.metadata.labels" in deletes["expression"]
    said = json.dumps(policies["gpudev-hub-pods"]["spec"]["validations"])
    pod = pods.pod(launch_of(), 0, settings_of(), "home")
    for label in (*pod["metadata"]["labels"], pods.SERVICE_ACCOUNT, pods.PRIORITY):
        if label.startswith(("gpudev", "app.kubernetes.io/component")):
            assert label in said


def test_no_server_is_evicted() -> None:
    spec = one(BASE, "PodDisruptionBudget", "servers", "gpudev-servers")["spec"]
    assert isinstance(spec["minAvailable"], int), "Kubernetes takes no percentage for bare pods"
    assert spec["minAvailable"] > 10_000, "more than there ever are"
    assert "maxUnavailable" not in spec
    labels = pods.pod(launch_of(), 0, settings_of(), "home")["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_servers_push_nobody_out_and_nobody_usual_pushes_them() -> None:
    server = one(BASE, "PriorityClass", pods.PRIORITY)
    assert server["preemptionPolicy"] == "Never"
    assert 0 < server["value"] < one(BASE, "PriorityClass", "gpudev-service")["value"]
    classes = of_kind(BASE, "PriorityClass")
    assert not any(item.get("globalDefault") for item in classes)
    used = {template["spec"].get("priorityClassName") for template in TEMPLATES.values()}
    assert used - {None} <= {item["metadata"]["name"] for item in classes}


def selectors(item: Any) -> list[Object]:
    """All label selectors of pods in a policy, with the labels they ask for."""
    if isinstance(item, dict):
        own = [item["podSelector"]] if item.get("podSelector") else []
        return own + [found for value in item.values() for found in selectors(value)]
    if isinstance(item, list):
        return [found for value in item for found in selectors(value)]
    return []


def test_network_policies_ask_for_labels_that_there_are() -> None:
    """A selector that matches nothing denies or opens nothing, silently."""
    server = pods.pod(launch_of(nodes=2), 1, settings_of(), "home")["metadata"]["labels"]
    service = deployment()["spec"]["template"]["metadata"]["labels"]
    known: dict[str, set[str]] = {}
    for labels in (
        server,
        service,
        *map(labels_of_the_chart, ("hub", "proxy")),
        {"app.kubernetes.io/component": "bastion"},  # not there yet
        {"k8s-app": "kube-dns"},
        {RANKS: "1"},
    ):
        for name, value in labels.items():
            known.setdefault(name, set()).add(value)
    values = read_one(ROOT / "hub-config" / "values.yaml")
    charts = [values["hub"]["networkPolicy"], values["proxy"]["chp"]["networkPolicy"]]
    found = selectors([*of_kind(BASE, "NetworkPolicy"), *charts])
    assert len(found) > 10
    for selector in found:
        for name, value in selector.get("matchLabels", {}).items():
            assert value in known[name], (name, value)
        for term in selector.get("matchExpressions", ()):
            assert set(term.get("values", ())) <= known[term["key"]], term


def test_nothing_is_open_that_no_policy_opens() -> None:
    for namespace in ("gpudev", "gpudev-servers"):
        assert one(BASE, "NetworkPolicy", "nothing-else", namespace)["spec"] == {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
        }
    ports = {
        name: {port["port"] for rule in item["spec"]["ingress"] for port in rule["ports"]}
        for name in ("jupyter", "ssh")
        if (item := one(BASE, "NetworkPolicy", name, "gpudev-servers"))
    }
    assert ports == {"jupyter": {JUPYTER_PORT}, "ssh": {SSHD_PORT}}


def test_homes_are_kept_and_are_the_servers_accounts() -> None:
    """Nothing of this can be tried here; these are the fields that the EFS driver's documentation names."""
    home = one(AWS, "StorageClass", "gpudev-home")
    assert home["provisioner"] == "efs.csi.aws.com"
    assert home["reclaimPolicy"] == "Retain"
    assert home["parameters"]["uid"] == home["parameters"]["gid"] == str(pods.UID)
    assert home["parameters"]["directoryPerms"] == "700"


def test_the_page_has_every_secret_right_and_door() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    sources = [
        ROOT / "spawner" / "gpudev_hub" / name for name in ("cluster_service.py", "hub/cluster_setup.py")
    ]
    asked = re.compile(r"settings\.(?:word|secret)\(\"([\w-]+)\"\)")
    files = {name for path in sources for name in asked.findall(path.read_text())}
    assert len(files) > 3
    for name in files:
        assert f"--from-file={name}" in page, name
    for role in of_kind(BASE, "Role", "ClusterRole"):
        for rule in role["rules"]:
            said = f"`{', '.join(rule['resources'])}: {', '.join(rule['verbs'])}`"
            assert said in page, said
    for item in of_kind(BASE, "NetworkPolicy"):
        for rule in [*item["spec"].get("ingress", ()), *item["spec"].get("egress", ())]:
            for port in rule.get("ports", ()):
                assert re.search(rf"^\| .* \| .*\b{port['port']}\b.* \|$", page, re.MULTILINE), port
