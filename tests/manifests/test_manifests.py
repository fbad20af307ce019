"""The objects of our chart: what they must say, and that they agree with each other and the code."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from chart_schema import SCHEMA, with_settings
from cluster_world import launch_of, settings_of
from gpudev_hub.cluster.labels import (
    ATTEMPT,
    COMPONENT,
    GPU,
    JUPYTER_PORT,
    OWN_POLICY,
    POLICY_PROBE,
    POOL,
    RANK,
    RANKS,
    RESERVATION,
    SSHD_PORT,
)
from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.hub import pods
from gpudev_hub.settings import PREFIX
from manifests import (
    CHART,
    LAYERS,
    ROOT,
    Object,
    containers,
    fingerprint,
    hub_values,
    key,
    labels_of_the_chart,
    load,
    of_kind,
    one,
    pod_templates,
    rendering,
)

BASE = load()
AWS = load("aws")
CONFIG = one(BASE, "ConfigMap", "gpudev-config", "gpudev")["data"]
SETTINGS = msgspec.json.decode(CONFIG["cluster.json"], type=ClusterSettings)
GITHUB = msgspec.json.decode(CONFIG["github.json"], type=GithubSettings)
PROBE = "DaemonSet/gpudev-policy-probe"
"""Only with `policy_probe: true`, as on AWS."""
TEMPLATES = pod_templates(BASE) | {PROBE: pod_templates(AWS)[PROBE]}
DRIVER = "secrets-store.csi.k8s.io"


def deployment() -> Object:
    return one(BASE, "Deployment", "gpudev-service", "gpudev")


def volumes_of(template: Object) -> dict[str, Object]:
    return {volume["name"]: volume for volume in template["spec"]["volumes"]}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_renderings_are_of_the_chart_as_it_is(layer: str) -> None:
    """What helm really makes of it is compared in ``tests/cluster/test_rendering.py``."""
    first = rendering(layer).read_text().partition("\n")[0]
    assert fingerprint(layer) in first, "run: PYTHONPATH=tests/support .venv/bin/python -m chart"


def test_the_schema_of_the_values_has_the_settings_as_the_code_reads_them() -> None:
    schema = json.loads(SCHEMA.read_text())
    assert schema == with_settings(schema), "run: .venv/bin/python tools/chart_schema.py"
    assert "github" not in schema["$defs"]["ClusterSettings"]["properties"]


def test_every_object_is_there_once() -> None:
    for objects in (BASE, AWS):
        assert set(Counter(map(key, objects)).values()) == {1}
    kinds = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "StorageClass"}
    admission = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    for item in AWS:
        assert (item["metadata"].get("namespace") is None) == (item["kind"] in kinds | admission), key(item)


def test_both_namespaces_refuse_privilege() -> None:
    for name in ("gpudev", SETTINGS.namespace):
        labels = one(BASE, "Namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_homes_and_servers_need_is_left_when_the_release_is_removed() -> None:
    kept = {
        key(item)
        for item in AWS
        if item["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }
    of_servers = {
        key(item)
        for item in AWS
        if item["kind"] in ("NetworkPolicy", "PodDisruptionBudget")
        and item["metadata"]["namespace"] == SETTINGS.namespace
        and item["metadata"]["name"] != "policy-probe"
    }
    assert len(of_servers) > 5
    homes = {("Namespace", None, "gpudev-servers"), ("StorageClass", None, "gpudev-home")}
    assert kept == of_servers | homes


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
    inside = {"metrics": SETTINGS.metrics_port}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == wanted | inside
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
    names = ["gpudev-shared", "gpudev-service", "gpudev-bastion"]
    assert [source["secret"]["name"] for source in sources] == names
    # Not the bastion's host key.
    assert sources[2]["secret"]["items"] == [{"key": "bastion-token", "path": "bastion-token"}]
    assert sources[2]["secret"]["optional"] is True, "a cluster need not have a bastion"
    assert volumes[mounts[SETTINGS.state]["name"]]["emptyDir"]["medium"] == "Memory", "it holds the CA's key"
    assert all(mounts[path].get("readOnly") for path in mounts if path.startswith("/etc/"))


def test_the_key_of_the_github_app_is_the_services_alone() -> None:
    """Both have the client secret; each file is where the settings, which both read, look for it."""
    template = deployment()["spec"]["template"]
    (container,) = template["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["GPUDEV_GITHUB"] == "/etc/gpudev/config/github.json"
    (mount,) = [item for item in container["volumeMounts"] if item["name"] == "github"]
    projected = volumes_of(template)["github"]["projected"]
    assert projected["defaultMode"] == 0o440, "the settings refuse files that everyone can read"
    found = {
        f"{mount['mountPath']}/{item['path']}": (source["secret"]["name"], source["secret"].get("optional"))
        for source in projected["sources"]
        for item in source["secret"]["items"]
    }
    assert found == {
        GITHUB.client_secret_file: ("gpudev-github", None),
        GITHUB.private_key_file: ("gpudev-github-app", None),
        "/etc/gpudev/github/webhook-secret": ("gpudev-github-webhook", True),
    }
    hub = hub_values()["hub"]
    assert hub["extraEnv"]["GPUDEV_GITHUB"] == env["GPUDEV_GITHUB"]
    (volume,) = [item for item in hub["extraVolumes"] if item["name"] == "gpudev-github"]
    assert volume["secret"] == {
        "secretName": "gpudev-github",
        "defaultMode": 0o440,
        "items": [{"key": "client-secret", "path": "client-secret"}],
    }
    assert {
        "name": "gpudev-github",
        "mountPath": str(Path(GITHUB.client_secret_file).parent),
        "readOnly": True,
    } in hub["extraVolumeMounts"]
    workloads = {name for name, made in TEMPLATES.items() if "gpudev-github-app" in json.dumps(made)}
    assert workloads == {"Deployment/gpudev-service"}
    assert "gpudev-github-app" not in json.dumps(hub)


def test_the_example_settings_are_the_layers() -> None:
    """The images that are fetched beforehand are those that users may choose from."""
    fetched = {
        container["image"]
        for container in one(BASE, "DaemonSet", "gpudev-prepull", "gpudev")["spec"]["template"]["spec"][
            "initContainers"
        ]
    }
    assert fetched == {image for pool in SETTINGS.pools for image in pool.images}
    values = hub_values(CHART / "example.yaml")["hub"]
    (container,) = deployment()["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{values['image']['name']}:{values['image']['tag']}"
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


def test_a_policy_probe_is_where_servers_are_and_is_none() -> None:
    """On every GPU node, without a GPU, pushing no server out; nothing that looks for servers finds it."""
    assert PROBE not in pod_templates(BASE), "nobody asked for it"
    template, server = TEMPLATES[PROBE], pods.pod(launch_of(), 0, settings_of(), "home")
    spec, labels = template["spec"], template["metadata"]["labels"]
    assert spec["affinity"] == TEMPLATES["DaemonSet/gpudev-prepull"]["spec"]["affinity"]
    assert spec["tolerations"] == TEMPLATES["DaemonSet/gpudev-prepull"]["spec"]["tolerations"]
    assert spec["priorityClassName"] == pods.PRIORITY
    (container,) = containers(spec)
    assert GPU not in container["resources"]["limits"]
    assert labels[COMPONENT] == POLICY_PROBE
    ours = {RESERVATION, ATTEMPT, RANK, RANKS, "component"}
    assert not ours & set(labels)
    assert ours <= set(server["metadata"]["labels"])
    budgets = of_kind(AWS, "PodDisruptionBudget")
    assert not [item for item in budgets if item["spec"]["selector"]["matchLabels"].items() <= labels.items()]


def test_a_policy_probe_tries_what_servers_must_not_reach() -> None:
    (container,) = containers(TEMPLATES[PROBE]["spec"])
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert f"http://{env['GPUDEV_PROBE_ALLOWED']}" == SETTINGS.service_url
    assert env["GPUDEV_PROBE_FORBIDDEN"].split() == [
        "169.254.169.254:80",
        "$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)",
        SETTINGS.gate_url.removeprefix("http://"),
    ]
    service = one(AWS, "Service", env["GPUDEV_PROBE_PEERS"] or "", SETTINGS.namespace)["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True, "who lets in what it must not is not Ready"
    assert service["selector"].items() <= TEMPLATES[PROBE]["metadata"]["labels"].items()
    assert container["command"] == ["/bin/bash", "/usr/lib/gpudev/policy-probe"]
    assert container["readinessProbe"]["exec"]["command"] == [*container["command"], "check"]
    assert container["readinessProbe"]["failureThreshold"] == 1
    settings = json.loads(one(AWS, "ConfigMap", "gpudev-config", "gpudev")["data"]["cluster.json"])
    assert settings["policy_probe"] is True


def rules_of(name: str, kind: str = "Role", namespace: str | None = "gpudev-servers") -> set[tuple[str, str]]:
    role = one(BASE, kind, name, namespace)
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    return {
        (f"{group}/{resource}" if group else resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
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
        | each("networking.k8s.io/networkpolicies", "create")
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
    accounts = {key(item)[1:]: item for item in of_kind(AWS, "ServiceAccount")}
    assert {name: item["automountServiceAccountToken"] for name, item in accounts.items()} == {
        ("gpudev", "gpudev-service"): False,
        ("gpudev", "gpudev-bastion"): False,
        ("gpudev", "hub"): True,
        ("gpudev", "gpudev-prepull"): False,
        ("gpudev-servers", pods.SERVICE_ACCOUNT): False,
        ("gpudev-servers", "gpudev-policy-probe"): False,
    }
    tokens = {name: template["spec"]["automountServiceAccountToken"] for name, template in TEMPLATES.items()}
    assert tokens == {
        "Deployment/gpudev-service": True,
        "Deployment/gpudev-bastion": False,
        "DaemonSet/gpudev-prepull": False,
        PROBE: False,
    }
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
        {RANKS: "2", OWN_POLICY: "true"},
        service,
        *map(labels_of_the_chart, ("hub", "proxy")),
        TEMPLATES["Deployment/gpudev-bastion"]["metadata"]["labels"],
        TEMPLATES[PROBE]["metadata"]["labels"],
        {"k8s-app": "kube-dns"},
        {RANKS: "1"},
    ):
        for name, value in labels.items():
            known.setdefault(name, set()).add(value)
    values = hub_values()
    charts = [values["hub"]["networkPolicy"], values["proxy"]["chp"]["networkPolicy"]]
    found = selectors([*of_kind(AWS, "NetworkPolicy"), *charts])
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


def test_the_bastion_finds_its_files_and_the_gate() -> None:
    template = TEMPLATES["Deployment/gpudev-bastion"]
    (container,) = template["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = volumes_of(template)
    assert mounts[env["GPUDEV_BASTION_SECRETS"]]["readOnly"] is True
    secret = volumes[mounts[env["GPUDEV_BASTION_SECRETS"]]["name"]]["secret"]
    assert secret["defaultMode"] == 0o400
    assert {item["path"] for item in secret["items"]} == {"host_ed25519", "host_ed25519-cert.pub", "token"}
    assert volumes[mounts[env["GPUDEV_BASTION_RUN"]]["name"]]["emptyDir"]["medium"] == "Memory"
    # Without DNS: the address comes from the Service of that name in the same namespace.
    assert env["GPUDEV_GATE"] == f"http://$(GPUDEV_SERVICE_SERVICE_HOST):{SETTINGS.gate_port}"
    assert template["spec"]["enableServiceLinks"] is True
    # With these links the Service of the bastion itself would set this one.
    assert env["GPUDEV_BASTION_PORT"] == str(container["ports"][0]["containerPort"])
    assert env["GPUDEV_BASTION_TARGETS"] == f"*:{SSHD_PORT}", "the second lock"
    assert env["GPUDEV_BASTION_EXEMPT"] == ""


def test_the_balancer_of_the_bastion_may_check_it_as_often_as_it_likes() -> None:
    """Whoever else may connect: with its health checks refused, nobody gets in."""
    (container,) = pod_templates(AWS)["Deployment/gpudev-bastion"]["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["GPUDEV_BASTION_EXEMPT"] == "10.0.0.0/24,10.0.1.0/24"
    (rule,) = one(AWS, "NetworkPolicy", "gpudev-bastion", "gpudev")["spec"]["ingress"]
    allowed = {peer["ipBlock"]["cidr"] for peer in rule["from"]}
    assert allowed == {"0.0.0.0/0", "::/0", "10.0.0.0/24", "10.0.1.0/24"}


def test_the_bastion_keeps_users_addresses_and_moves_without_a_gap() -> None:
    service = one(BASE, "Service", "gpudev-bastion", "gpudev")["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("NodePort", "Local")
    assert service["ports"][0]["nodePort"] == 30022
    labels = TEMPLATES["Deployment/gpudev-bastion"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    spec = one(BASE, "Deployment", "gpudev-bastion", "gpudev")["spec"]
    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = one(BASE, "PodDisruptionBudget", "gpudev-bastion", "gpudev")["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_the_image_of_the_bastion_has_its_scripts() -> None:
    folder = ROOT / "infra" / "images" / "bastion"
    text = (folder / "Dockerfile").read_text()
    scripts = {path.name for path in folder.iterdir()} - {"Dockerfile"}
    assert {name for name in scripts if f"infra/images/bastion/{name}" in text} == scripts
    assert "python" not in text.lower()


def test_homes_are_kept_and_are_the_servers_accounts() -> None:
    """Nothing of this can be tried here; these are the fields that the EFS driver's documentation names."""
    home = one(AWS, "StorageClass", "gpudev-home")
    assert home["provisioner"] == "efs.csi.aws.com"
    assert home["reclaimPolicy"] == "Retain"
    assert home["parameters"]["uid"] == home["parameters"]["gid"] == str(pods.UID)
    assert home["parameters"]["directoryPerms"] == "700"


def secrets_of(name: str) -> dict[str, tuple[str, str]]:
    """Name in Secrets Manager and mode, by file, of a class of the Secrets Store CSI driver."""
    found = one(AWS, "SecretProviderClass", name, "gpudev")["spec"]
    assert found["provider"] == "aws"
    assert found["parameters"]["usePodIdentity"] == "true"
    assert found["parameters"]["region"] == SETTINGS.store.region
    objects = yaml.safe_load(found["parameters"]["objects"])
    assert {item["objectType"] for item in objects} == {"secretsmanager"}
    return {item["objectAlias"]: (item["objectName"], item["filePermission"]) for item in objects}


def test_on_aws_each_part_gets_its_own_secrets_and_no_others() -> None:
    """The same files as from Secrets of Kubernetes."""
    found = {name: secrets_of(name) for name in ("gpudev-service", "gpudev-hub", "gpudev-bastion")}
    assert {mode for files in found.values() for _, mode in files.values()} == {"0440"}
    names = {part: {file: name for file, (name, _) in files.items()} for part, files in found.items()}
    client_secret = {"client-secret": "gpudev-prod/github-client-secret"}
    shared = {name: f"gpudev-prod/{name}" for name in ("gate", "service-token")}
    own = ("service-cookies", "server-tokens", "host-ca", "bastion-token")
    assert names == {
        "gpudev-service": shared
        | client_secret
        | {name: f"gpudev-prod/{name}" for name in own}
        | {"private-key.pem": "gpudev-prod/github-private-key"},
        "gpudev-hub": shared | client_secret,
        "gpudev-bastion": {
            "host_ed25519": "gpudev-prod/bastion-host-key",
            "host_ed25519-cert.pub": "gpudev-prod/bastion-host-certificate",
            "token": "gpudev-prod/bastion-token",
        },
    }


def test_on_aws_the_files_are_where_they_are_elsewhere() -> None:
    templates = pod_templates(AWS)
    wanted = {
        "gpudev-service": {SETTINGS.secrets, "/etc/gpudev/github"},
        "gpudev-bastion": {"/etc/gpudev/bastion"},
    }
    for name, paths in wanted.items():
        spec = templates[f"Deployment/{name}"]["spec"]
        check_driver_volume(spec["volumes"], "secrets", name)
        mounts = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "secrets"]
        assert {mount["mountPath"] for mount in mounts} == paths
        assert all(mount["readOnly"] for mount in mounts)
        # The driver's files are root's and its group's.
        assert spec["securityContext"]["supplementalGroups"] == [0]
    hub = hub_values(CHART / "aws.yaml")["hub"]
    check_driver_volume(hub["extraVolumes"], "gpudev-secrets", "gpudev-hub")
    mounts = [mount for mount in hub["extraVolumeMounts"] if mount["name"] == "gpudev-secrets"]
    assert {mount["mountPath"] for mount in mounts} == {SETTINGS.secrets, "/etc/gpudev/github"}
    assert hub["podSecurityContext"]["supplementalGroups"] == [0]
    assert hub_values()["hub"]["extraVolumes"][0] in hub["extraVolumes"], "the settings"


def check_driver_volume(volumes: list[Object], volume: str, of: str) -> None:
    (found,) = [item["csi"] for item in volumes if item["name"] == volume]
    attributes = {"secretProviderClass": of}
    assert found == {"driver": DRIVER, "readOnly": True, "volumeAttributes": attributes}
    assert not [item for item in volumes if "secret" in item or "projected" in item]


def test_a_changed_setting_restarts_the_service() -> None:
    annotations = [
        pod_templates(objects)["Deployment/gpudev-service"]["metadata"]["annotations"]["checksum/config"]
        for objects in (BASE, AWS)
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in annotations)


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
    for item in of_kind(AWS, "NetworkPolicy"):
        for rule in [*item["spec"].get("ingress", ()), *item["spec"].get("egress", ())]:
            for port in rule.get("ports", ()):
                assert re.search(rf"^\| .* \| .*\b{port['port']}\b.* \|$", page, re.MULTILINE), port
