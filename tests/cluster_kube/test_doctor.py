"""The facts of an installation, collected over HTTP: answers, refusals and silence of each part."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from kubernetes_asyncio import client

from cluster_world import settings_of
from dynamodb_local import ENVIRONMENT
from fake_github import make_github
from gpudev_hub.auth.check import Check
from gpudev_hub.cluster_doctor import Doctor
from gpudev_hub.core.model import HOUR, Node
from gpudev_hub.core.views.doctor import Finding
from gpudev_hub.service.hubclient import HubClient
from gpudev_hub.stores.dynamodb.calls import connect
from manifests import ROOT, Object, load, of_kind, one

NOW = 1_893_456_000_000
DATE = "Tue, 01 Jan 2030 00:00:05 GMT"
AWS = load("aws")
IN_ITS_POD = re.compile(
    r"kubectl -n (\S+) exec deployment/(\S+) -- (gpudev-hub (?:doctor|github-check))$", re.MULTILINE
)
SECRET = re.compile(r"objectAlias: ([^,]+),")


def node(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"gpudev/pool": "h100"}},
        "spec": {},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "32"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(namespace: str, component: str, on: str, number: int = 0) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{component}-{on}-{number}",
            "uid": f"{component}-{on}-{number}",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/component": component, "app.kubernetes.io/managed-by": "gpudev"},
        },
        "spec": {"nodeName": on},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


class Parts:
    """Kubernetes, DynamoDB and the Hub at one address; a test changes what they say."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        """Of what is refused: the first part of the path, and the status."""
        self.recovery = "ENABLED"
        self.pods = [pod("gpudev-servers", "policy-probe", f"node-{n}") for n in (1, 2)]
        self.ours = [pod("gpudev", "prepull", f"node-{n}") for n in (1, 2)]
        self.ours += [pod("gpudev", "bastion", "cpu-1", n) for n in (1, 2)]
        self.asked: list[str] = []
        self.date = DATE

    async def answer(self, request: web.Request) -> web.Response:
        """Any request."""
        part = request.headers.get("X-Amz-Target", request.path).split("/")[1 if request.path != "/" else 0]
        self.asked.append(
            f"{request.method} {request.path} {request.headers.get('X-Amz-Target', '')}".strip()
        )
        if status := self.status.get(part, self.status.get(request.path, 0)):
            return web.json_response({"message": "no", "__type": "x#AccessDeniedException"}, status=status)
        if part.startswith("DynamoDB"):
            return web.json_response(self._table(part))
        if part == "hub":
            return web.json_response({"items": [], "_pagination": {"next": None}})
        items: list[dict[str, Any]] = {
            "/api/v1/nodes": [node("node-1"), node("node-2")],
            "/api/v1/pods": self.pods + self.ours,
            "/api/v1/namespaces/gpudev/pods": self.ours,
        }[request.path]
        metadata = {"resourceVersion": "1"}
        return web.json_response({"items": items, "metadata": metadata}, headers={"Date": self.date})

    def _table(self, target: str) -> dict[str, Any]:
        if target.endswith("DescribeContinuousBackups"):
            recovery = {"PointInTimeRecoveryStatus": self.recovery}
            return {
                "ContinuousBackupsDescription": {
                    "ContinuousBackupsStatus": "ENABLED",
                    "PointInTimeRecoveryDescription": recovery,
                }
            }
        return {}


@pytest_asyncio.fixture
async def address(parts: Parts) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", parts.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


async def look(address: str, known: tuple[Node, ...] | None = None) -> dict[str, Finding]:
    settings = settings_of(
        policy_probe=True, bastion={"host": "ssh.gpudev.example"}, hub_api=f"{address}/hub/api"
    )
    hub = HubClient(settings.hub_api, "service-token")

    async def github() -> list[Check]:
        return [Check("App", "gpudev"), Check("clock", "900 s behind", "Set the clock.")]

    try:
        async with client.ApiClient(client.Configuration(host=address)) as api:
            doctor = Doctor(
                settings,
                client.CoreV1Api(api),
                connect(region="us-east-2", endpoint_url=address, timeout=30.0),
                hub,
                github,
                lambda: NOW,
                None if known is None else lambda: known,
            )
            return {one.id: one for one in await doctor.look()}
    finally:
        await hub.close()


async def test_all_is_well_but_github(parts: Parts, address: str) -> None:
    found = await look(address)
    assert {key for key, one in found.items() if not one.ok} == {"github"}, found
    assert found["github"].found == "1 of 2 facts do not hold: clock"
    assert found["clock"].found == "as at the Kubernetes API"
    assert all(line.startswith(("GET", "POST / DynamoDB")) for line in parts.asked), "it changes nothing"
    writes = ("Put", "Update", "Delete", "Transact")
    assert not [line for line in parts.asked if any(f".{word}" in line for word in writes)], parts.asked


@pytest.mark.parametrize(
    ("refused", "wrong"),
    [
        ("DynamoDB_20120810.GetItem", {"store"}),
        ("hub", {"hub"}),
        (
            "/api/v1/nodes",
            {"cluster", "clock", "nodes", "gpus", "efa", "probes", "prepull", "bastion", "ends"},
        ),
        (
            "/api/v1/namespaces/gpudev/pods",
            {"cluster", "clock", "nodes", "gpus", "efa", "probes", "prepull", "bastion", "ends"},
        ),
        ("DynamoDB_20120810.DescribeContinuousBackups", set()),
    ],
)
async def test_a_part_that_refuses(parts: Parts, address: str, refused: str, wrong: set[str]) -> None:
    parts.status[refused] = 400 if refused.startswith("DynamoDB") else 403
    found = await look(address)
    assert {key for key, one in found.items() if not one.ok} == wrong | {"github"}, found
    assert all(one.todo for one in found.values() if not one.ok)


async def test_what_the_cluster_shows(parts: Parts, address: str) -> None:
    parts.recovery = "DISABLED"
    parts.pods[1]["status"]["conditions"][0]["status"] = "False"
    parts.ours[0]["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    parts.ours[3]["status"]["conditions"] = []
    found = await look(address)
    assert {key for key, one in found.items() if not one.ok} >= {"backups", "probes", "prepull", "bastion"}
    assert "node-2" in found["probes"].found
    assert "node-1" in found["prepull"].found
    assert found["nodes"].found == "node-2 is drained (its policy probe is not ready)"
    assert found["bastion"].found == "1 of at least 2 pods are ready"


async def test_what_the_service_knows_of_nodes(parts: Parts, address: str) -> None:
    """For one, when their capacity blocks end, which only the service asks for."""
    nodes = tuple(Node(f"node-{n}", "h100", 8, "", until=NOW + n * HOUR) for n in (1, 2))
    assert "node-1 at 01:00 UTC, node-2 at 02:00 UTC" in (await look(address, nodes))["ends"].found


# In its pod, as the pages say


def deployment(namespace: str = "gpudev", name: str = "gpudev-service") -> Object:
    spec: Object = one(AWS, "Deployment", name, namespace)["spec"]["template"]["spec"]
    return spec


def environment_of_the_pod(folder: Path, address: str) -> dict[str, str]:
    """The files and variables of the service's pod on AWS; all parts are at ``address``, but for GitHub."""
    (container,) = deployment()["containers"]
    assert container["command"][0] == "gpudev-hub", "the pages run this program in it"
    mounts = [
        (mount["name"], folder / mount["mountPath"].removeprefix("/")) for mount in container["volumeMounts"]
    ]
    for _, path in mounts:
        path.mkdir(parents=True)
    # The secrets that the driver gives the pod, and no others.
    (volume,) = [volume for volume in deployment()["volumes"] if volume["name"] == "secrets"]
    provider = volume["csi"]["volumeAttributes"]["secretProviderClass"]
    objects = one(AWS, "SecretProviderClass", provider, "gpudev")["spec"]["parameters"]["objects"]
    github = folder / "fake"
    for alias in SECRET.findall(objects):
        known = {"client-secret": "client-secret", "private-key.pem": "app.pem"}.get(alias)
        text = (github / known).read_text() if known else f"the {alias}"
        for path in (path for name, path in mounts if name == "secrets"):
            (path / alias).write_text(text)
            (path / alias).chmod(0o440)
    files = one(AWS, "ConfigMap", "gpudev-config", "gpudev")["data"]
    settings = json.loads(files["cluster.json"])
    settings |= {"hub_api": f"{address}/hub/api", "store": settings["store"] | {"endpoint": address}}
    access = json.loads(files["github.json"])
    fake = json.loads((github / "github.json").read_text())
    access |= {name: value for name, value in fake.items() if not name.endswith("_file")}
    access |= {
        name: str(folder / value.removeprefix("/"))
        for name, value in access.items()
        if name.endswith("_file")
    }
    for name, content in (("cluster.json", settings), ("github.json", access)):
        (dict(mounts)["config"] / name).write_text(json.dumps(content))
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "here", "cluster": {"server": address}}],
                "users": [{"name": "service", "user": {"token": "x"}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "service"}}],
                "current-context": "here",
            }
        )
    )
    variables = {entry["name"]: str(folder / entry["value"][1:]) for entry in container["env"]}
    machine = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}
    return machine | ENVIRONMENT | variables


def rules(account: str) -> Iterator[tuple[str | None, Object]]:
    """What the chart lets an account of ``gpudev`` do: where (``None``: everywhere), and the rule."""
    for binding in of_kind(AWS, "ClusterRoleBinding", "RoleBinding"):
        who = [(subject["namespace"], subject["name"]) for subject in binding["subjects"]]
        if ("gpudev", account) in who:
            namespace = binding["metadata"].get("namespace")
            kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
            role = one(AWS, kind, name, None if kind == "ClusterRole" else namespace)
            yield from ((namespace, rule) for rule in role["rules"])


def may(account: str, verb: str, path: str) -> bool:
    """Whether an account may ask the Kubernetes API for a list of this path."""
    found = re.fullmatch(r"/api/v1(?:/namespaces/([^/]+))?/([a-z]+)", path)
    assert found, path
    return any(
        namespace in (None, found[1])
        and "" in rule["apiGroups"]
        and found[2] in rule["resources"]
        and verb in rule["verbs"]
        for namespace, rule in rules(account)
    )


def test_the_pages_name_a_pod_that_is_there() -> None:
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/aws/*.md")]
    commands = {found for page in pages for found in IN_ITS_POD.findall(page.read_text())}
    assert {command for _, _, command in commands} == {"gpudev-hub doctor", "gpudev-hub github-check"}
    for namespace, name, _ in commands:
        assert len(deployment(namespace, name)["containers"]) == 1, "kubectl exec needs no -c"


@pytest.mark.parametrize("command", ["doctor", "github-check"])
async def test_a_command_of_the_pages_runs_in_its_pod(
    parts: Parts, address: str, tmp_path: Path, command: str
) -> None:
    """With the pod's settings, secrets and variables, and no more rights than its account has."""
    parts.date = formatdate(usegmt=True)
    github = make_github(folder=tmp_path / "fake")
    github.start()
    try:
        running = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "gpudev-hub",
            command,
            env=environment_of_the_pod(tmp_path, address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await running.communicate()
    finally:
        github.stop()
    lines = out.decode().splitlines()
    assert (running.returncode, errors) == (0, b""), f"{lines} {errors.decode()}"
    assert len(lines) > 8
    assert all(line.startswith("ok      ") for line in lines), lines
    account = deployment()["serviceAccountName"]
    of_kubernetes = [line.split() for line in parts.asked if "/api/v1/" in line]
    assert {method for method, _ in of_kubernetes} <= {"GET"}
    paths = {path for _, path in of_kubernetes}
    assert bool(paths) == (command == "doctor")
    assert [path for path in paths if not may(account, "list", path)] == []
    assert not may(account, "list", "/api/v1/namespaces/gpudev/secrets")
    assert not any(may("gpudev-bastion", "list", path) for path in paths)
