"""gpudev's chart without the JupyterHub chart: what helm renders and refuses, and what Kubernetes accepts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import chart
from harness.cluster import Cluster
from manifests import LAYERS, load, of_kind, one, pod_templates, rendering, surroundings

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(chart.no_helm() is not None, reason=chart.no_helm() or ""),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_helm_makes_what_the_other_tests_read(layer: str) -> None:
    assert rendering(layer).read_text() == chart.rendered(layer), (
        "run: PYTHONPATH=tests/support .venv/bin/python -m chart"
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_kubernetes_takes_every_object(cluster: Cluster, layer: str) -> None:
    """Kubernetes also refuses unknown fields, which helm does not check. The driver's kind is left out."""
    cluster.apply(*surroundings())
    objects = [item for item in load(layer) if item["kind"] != "SecretProviderClass"]
    for item in of_kind(objects, "StorageClass"):
        item["metadata"]["name"] += "-on-aws"  # this cluster has an object of that name, for its own disks
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    said = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", given=given)
    assert len(said.splitlines()) == len(objects)


NO_IMAGES = "{name: a, gpus_per_node: 8, cpus_per_node: 8, memory_gib_per_node: 8}"
BAD = {
    "an address without a scheme": ("global: {settings: {public_url: gpudev.example.org}}", "public_url"),
    "a field that does not exist": ("global: {settings: {grace: 5}}", "'grace' not allowed"),
    "no pools": ("global: {settings: {pools: []}}", "pools"),
    "a pool without images": (
        f"global: {{settings: {{pools: [{NO_IMAGES}]}}}}",
        "missing property 'images'",
    ),
    "no App": ("global: {github: {app_id: 0}}", "app_id"),
    "secrets of the Hub among the settings": ("global: {settings: {github: {}}}", "'github' not allowed"),
    "another source of secrets": ("secrets: {from: vault}", "'kubernetes', 'aws'"),
    "homes without a file system": ("homes: {create: true}", "fileSystemId"),
    "another kind of file system": ("homes: {create: true, fileSystemId: vol-0123456789}", "fileSystemId"),
    "a port that is no NodePort": ("bastion: {nodePort: 22}", "nodePort"),
    "a bastion that nobody may reach": ("bastion: {allowFrom: []}", "allowFrom"),
    "a name for a network": ("bastion: {allowFrom: [office]}", "allowFrom"),
    "a name for a scraper": ("service: {scrapers: [prometheus]}", "scrapers"),
    "no bastion": ("bastion: {replicas: 0}", "replicas"),
    "an image without a tag": ("images: {bastion: {tag: ''}}", "tag"),
    "a misspelled group": ("bastions: {replicas: 3}", "'bastions' not allowed"),
    "the Hub's image left out": ("jupyterhub: {hub: {image: {name: ''}}}", "/jupyterhub/hub/image/name"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused(name: str, tmp_path: Path) -> None:
    values, said = BAD[name]
    assert said in refused(tmp_path, values)


def refused(folder: Path, values: str, *flags: str) -> str:
    """Return helm's error for the example with these values."""
    file = folder / "values.yaml"
    file.write_text(values)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        chart.render(None, [chart.EXAMPLE, file], *flags)
    return "\n".join(caught.value.__notes__)


def test_what_a_site_must_set_is_asked_for() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        chart.render(None, [])
    said = "\n".join(caught.value.__notes__)
    for name in (
        "public_url",
        "store",
        "pools",
        "app_id",
        "client_id",
        "/images/bastion/name",
        "/hub/image/tag",
    ):
        assert name in said, said


def test_another_namespace_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "{}", "--namespace=jupyter")
    assert "The namespace of the release is jupyter. Install it into gpudev" in said


def test_the_hubs_volumes_and_the_source_of_secrets_must_agree(tmp_path: Path) -> None:
    said = refused(tmp_path, "secrets: {from: aws, prefix: gpudev-test}")
    assert "secrets.from is aws" in said
    assert "add --values infra/chart/aws.yaml" in said
    file = tmp_path / "back.yaml"
    file.write_text("secrets: {from: kubernetes}")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        chart.render(None, [*LAYERS["aws"], file])
    assert "secrets.from is kubernetes" in "\n".join(caught.value.__notes__)


def test_sudo_needs_a_weaker_standard_for_servers_alone(tmp_path: Path) -> None:
    file = tmp_path / "sudo.yaml"
    file.write_text("global: {settings: {sudo: true}}")
    made = chart.render(None, [chart.EXAMPLE, file])
    labels = one(made, "Namespace", "gpudev-servers")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert not [item for item in of_kind(made, "Namespace") if item["metadata"]["name"] == "gpudev"]


def test_each_image_of_the_pools_is_pulled_once(tmp_path: Path) -> None:
    file = tmp_path / "pools.yaml"
    file.write_text(
        "global:\n"
        "  settings:\n"
        "    pools:\n"
        "      - {name: a, gpus_per_node: 8, cpus_per_node: 8, memory_gib_per_node: 8, images: [x:1, x:2]}\n"
        "      - {name: b, gpus_per_node: 8, cpus_per_node: 8, memory_gib_per_node: 8, images: [x:1, x:3]}\n"
    )
    template = pod_templates(chart.render(None, [chart.EXAMPLE, file]))["DaemonSet/gpudev-prepull"]
    assert [item["image"] for item in template["spec"]["initContainers"]] == ["x:1", "x:2", "x:3"]


def test_a_webhooks_secret_is_read_where_the_settings_name_it(tmp_path: Path) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text("global: {github: {webhook_secret_file: /etc/gpudev/github/webhook-secret}}")
    made = chart.render(None, [*LAYERS["aws"], file])
    objects = one(made, "SecretProviderClass", "gpudev-service", "gpudev")["spec"]["parameters"]["objects"]
    assert "gpudev-prod/github-webhook-secret" in objects
    before = one(load("aws"), "SecretProviderClass", "gpudev-service", "gpudev")["spec"]["parameters"]
    assert "webhook" not in before["objects"]
