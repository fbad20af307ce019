"""What ``infra/aws/platform`` installs: each chart rendered by helm with the values of the plans.

Our own chart is in this repository. Those of others are rendered, and the tests of them are there, only where
``GPUDEV_CHARTS`` names a folder with them, unpacked and named as the charts are.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml

import chart
from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.github_settings import GithubSettings
from manifests import Object, containers, hub_values, of_kind, one, pod_templates
from tofu import ENVIRONMENTS, Json
from tofu_plan import planned

Plan = Callable[[str, str], Json]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(chart.no_helm() is not None, reason=chart.no_helm() or ""),
]
CHARTS = os.environ.get("GPUDEV_CHARTS", "")
GPU_NODES = {"key": "gpudev/pool", "operator": "Exists"}


def release(plan: Json, name: str) -> Json:
    """The ``helm_release`` of a chart."""
    (found,) = [
        each.values for each in planned(plan, "helm_release") if Path(each.values["chart"]).name == name
    ]
    return found


def values_of(found: Json, folder: Path) -> list[Path]:
    """The values of a release as files, in their order."""
    files = []
    for number, text in enumerate(found["values"]):
        files.append(folder / f"values-{number}.yaml")
        files[-1].write_text(text)
    return files


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    """Each of them."""
    return str(request.param)


@pytest.fixture(scope="module")
def objects(plan: Plan, environment: str, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What helm makes of our chart."""
    found = release(plan("platform", environment), "chart")
    assert (found["name"], found["namespace"]) == (chart.RELEASE, chart.NAMESPACE)
    return chart.render(None, values_of(found, tmp_path_factory.mktemp("values")))


def test_hub_and_service_can_read_their_settings(objects: list[Object], environment: str) -> None:
    data = one(objects, "ConfigMap", "gpudev-config", "gpudev")["data"]
    settings = msgspec.json.decode(data["cluster.json"], type=ClusterSettings)
    github = msgspec.json.decode(data["github.json"], type=GithubSettings)
    assert settings.public_url == f"https://gpudev{'-test' * (environment == 'test')}.example.org"
    assert settings.bastion is not None
    assert settings.bastion.host == f"ssh.{settings.public_url.removeprefix('https://')}"
    assert settings.store.region == "us-east-2"
    assert settings.balancer_networks()
    assert [(pool.name, pool.gpus_per_node) for pool in settings.pools] == {
        "test": [("t4", 4)],
        "prod": [("h100", 8)],
    }[environment]
    assert [pool.max_gang for pool in settings.make_policy().pools] == [2]
    assert github.operator_teams


def test_every_image_is_of_our_registry_and_pinned(objects: list[Object]) -> None:
    images = {
        container["image"]
        for template in pod_templates(objects).values()
        for container in containers(template["spec"])
    }
    assert len(images) >= 4
    for image in images:
        name, _, tag = image.rpartition(":")
        assert ".dkr.ecr.us-east-2.amazonaws.com/gpudev-" in name, image
        assert tag not in ("", "latest"), image


def test_secrets_are_those_that_the_account_has(plan: Plan, objects: list[Object], environment: str) -> None:
    """A name that Secrets Manager does not know keeps a pod from starting."""
    wanted = {
        entry["objectName"]
        for item in of_kind(objects, "SecretProviderClass")
        for entry in yaml.safe_load(item["spec"]["parameters"]["objects"])
    }
    made = {
        each.values["name"] for each in planned(plan("cluster", environment), "aws_secretsmanager_secret")
    }
    assert made - wanted == {f"gpudev-{environment}/github-webhook-secret"}, "optional"
    assert wanted <= made


def test_balancers_find_their_ports(plan: Plan, objects: list[Object], environment: str) -> None:
    ports = {each.values["port"] for each in planned(plan("cluster", environment), "aws_lb_target_group")}
    bastion = one(objects, "Service", "gpudev-bastion", "gpudev")["spec"]["ports"][0]["nodePort"]
    hub = hub_values()["proxy"]["service"]["nodePorts"]["http"]
    assert ports == {bastion, hub}


def test_homes_are_on_the_file_system(objects: list[Object]) -> None:
    home = one(objects, "StorageClass", "gpudev-home")
    assert home["parameters"]["fileSystemId"].startswith("fs-")


def check_calico(objects: list[Object]) -> None:
    (installation,) = of_kind(objects, "Installation")
    spec = installation["spec"]
    assert (spec["cni"], spec["calicoNetwork"]) == ({"type": "AmazonVPC"}, {"bgp": "Disabled"})
    assert not of_kind(objects, "APIServer", "Goldmane", "Whisker")
    for template in pod_templates(objects).values():
        assert all("/quay/" in container["image"] for container in containers(template["spec"]))


def check_nvidia(objects: list[Object]) -> None:
    (spec,) = [item["spec"] for name, item in pod_templates(objects).items() if "mps" not in name]
    check_nodes(spec)
    (container,) = containers(spec)
    assert {"name": "MOFED_ENABLED", "value": "false"} in container["env"]


def check_efa(objects: list[Object]) -> None:
    (template,) = pod_templates(objects).values()
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in template["spec"][
        "tolerations"
    ]
    terms = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    types = {
        value
        for term in terms["nodeSelectorTerms"]
        for each in term["matchExpressions"]
        for value in each["values"]
    }
    assert {"p5.48xlarge", "g4dn.12xlarge"} <= types


def check_dcgm(objects: list[Object]) -> None:
    (template,) = pod_templates(objects).values()
    check_nodes(template["spec"])
    (container,) = containers(template["spec"])
    assert container["securityContext"]["capabilities"]["add"] == []
    assert [port["name"] for port in container["ports"]] == ["metrics"], "the scraper asks for this port"
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "dcgm-exporter"
    (metrics,) = [item["data"]["metrics"] for item in of_kind(objects, "ConfigMap")]
    assert "DCGM_FI_DEV_XID_ERRORS" in metrics
    assert "PROF" not in metrics


def check_nodes(spec: Object) -> None:
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms == {"nodeSelectorTerms": [{"matchExpressions": [GPU_NODES]}]}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


EFFECTS: dict[str, Callable[[list[Object]], None]] = {
    "tigera-operator": check_calico,
    "nvidia-device-plugin": check_nvidia,
    "aws-efa-k8s-device-plugin": check_efa,
    "dcgm-exporter": check_dcgm,
}


if CHARTS:

    @pytest.mark.parametrize("name", EFFECTS)
    def test_charts_of_others_take_our_values(
        plan: Plan, environment: str, name: str, tmp_path: Path
    ) -> None:
        """Their fields are checked by their effect: a misspelt value is silent."""
        folder = Path(CHARTS) / name
        found = release(plan("platform", environment), name)
        about = yaml.safe_load((folder / "Chart.yaml").read_text())
        assert about["version"].lstrip("v") == found["version"].lstrip("v")
        files = [f"--values={path}" for path in values_of(found, tmp_path)]
        command = [
            chart.helm() or "helm",
            "template",
            found["name"],
            folder,
            f"--namespace={found['namespace']}",
        ]
        done = subprocess.run(
            [*command, "--kube-version=1.35.0", *files], capture_output=True, text=True, check=True
        )
        made = [item for item in yaml.safe_load_all(done.stdout) if item]
        EFFECTS[name](made)
