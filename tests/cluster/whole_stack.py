"""gpudev as operators install it: from its chart, with all parts in pods, used from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import httpx

import chart
from cluster_stack import pool
from cluster_users import ClusterUsers
from dynamodb_local import ENVIRONMENT as AWS
from dynamodb_local import DynamoDBLocal
from dynamodb_proxy import FaultProxy
from enforcement import DNS, Enforcement
from fake_github import make_github
from harness.api import Object
from harness.bastion_image import BASTION, bastion_image
from harness.cluster import Cluster
from harness.hub_image import HUB, PROXY, hub_image, proxy_image
from harness.layout import HOME_CLASS
from harness.server_image import PAUSE
from hub_users import NO_TLS
from manifests import CHART, ROOT, merged
from outside_network import DYNAMODB, GITHUB, outside
from pod_identity import PodIdentity, pod_identity

HOME: Final = "gpudev"
"""The namespace of the release."""
PARTS: Final = {
    "hub": "component=hub",
    "proxy": "component=proxy",
    "service": "app.kubernetes.io/name=gpudev,app.kubernetes.io/component=service",
    "bastion": "app.kubernetes.io/name=gpudev,app.kubernetes.io/component=bastion",
}
"""The label selector of each part's pods."""
TAG: Final = "test"
NEXT_TAG: Final = "test-next"
"""A second tag of the same images, as the target of an upgrade."""
_HTTPS: Final = 443
"""The port that policies let the Hub and the service reach at any address."""
_LITTLE: Final = {"requests": {"cpu": "50m"}}
"""Small requests, because all parts and servers share the two cores of one machine."""
_PAGE: Final = ROOT / "docs" / "kubernetes.md"


class WholeStack(ClusterUsers):
    """One release of the chart; installed, changed and removed with helm."""

    def __init__(self, folder: Path, cluster: Cluster, identity: PodIdentity, image: str) -> None:
        """``image``: the image of the servers."""
        node = cluster.nodes[0].address
        super().__init__(folder, f"http://{node}:30080", cluster)
        self.identity = identity
        self.dynamodb = DynamoDBLocal()
        self.table = self.dynamodb.table()
        self.faults = FaultProxy(self.dynamodb.url, DYNAMODB, _HTTPS)
        self.github = make_github(
            folder=folder / "github",
            address=GITHUB,
            port=_HTTPS,
            callback_urls=[f"{self.url}/hub/oauth_callback"],
        )
        self.github.control.app(hook_url=f"{self.url}/services/gpudev/github/webhook")
        self.github.start()
        self._chart = chart.assemble(folder / "chart", Path(os.environ[chart.VARIABLE]))
        self.values: Object = {
            "global": {
                "settings": {
                    "public_url": self.url,
                    "store": {
                        "table": self.table,
                        "region": AWS["AWS_DEFAULT_REGION"],
                        "endpoint": self.faults.url,
                    },
                    "pools": [pool(image, images=[image])],
                    "home": {"storage_class": HOME_CLASS, "size": "1Gi"},
                    "bastion": {"host": node, "port": 30022},
                    "policy_probe": True,
                    "grace_seconds": 10,
                },
                "github": self._github_settings(),
            },
            "homes": {"create": True, "fileSystemId": "fs-0123456789abcdef0"},
            "images": {
                "bastion": {"name": BASTION, "tag": TAG},
                "pause": dict(zip(("name", "tag"), PAUSE.rsplit(":", 1), strict=True)),
            },
            "service": {"resources": _LITTLE},
            "bastion": {"resources": _LITTLE},
            "jupyterhub": {
                "hub": {
                    "image": {"name": HUB, "tag": TAG},
                    "db": {"pvc": {"storageClassName": HOME_CLASS}},
                    "resources": _LITTLE,
                },
                "proxy": {"chp": {"image": {"name": PROXY, "tag": TAG}, "resources": _LITTLE}},
            },
        }
        """The values of this site, as in ``site.yaml``."""

    def _github_settings(self) -> Object:
        """Return the settings that the fake GitHub wrote, with the paths of secrets in pods."""
        found: Object = json.loads((self.folder / "github" / "github.json").read_text())
        for name in ("client_secret_file", "private_key_file"):
            del found[name]  # the chart's values have them
        return found | {"webhook_secret_file": "/etc/gpudev/github/webhook-secret"}

    # Install and remove

    def prepare(self) -> None:
        """Prepare the first installation with the commands of docs/kubernetes.md, as an operator does."""
        # The chart creates it. The harness creates one for tests without the chart.
        self.cluster.kubectl("delete", "storageclass", HOME_CLASS)
        self.cluster.kubectl("apply", "-f", str(CHART / "namespace.yaml"))
        script = ["set -eu", f"export TMPDIR={self.folder}", *secret_commands(_PAGE.read_text())]
        github = self.folder / "github"
        copies = [
            f"cp {github / 'client-secret'} {github / 'webhook-secret'} .",
            f"cp {github / 'app.pem'} private-key.pem",
        ]
        done = subprocess.run(
            ["bash", "-c", "\n".join([*script[:3], *copies, *script[3:]])], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def install(self, changes: Mapping[str, Any] | None = None) -> None:
        """Install or upgrade with the site's values and these changes, and wait until it works."""
        site = self.folder / "site.yaml"
        site.write_text(json.dumps(merged(self.values, changes or {})))
        self.helm("upgrade", "--install", chart.RELEASE, str(self._chart), f"--values={site}", "--wait")
        self.wait_until_up()

    def helm(self, *arguments: str) -> str:
        """Run helm and return its output. Raises ``CalledProcessError`` with the error text as a note."""
        command = [chart.helm() or "helm", *arguments, f"--namespace={HOME}"]
        if "--wait" in arguments:
            command.append("--timeout=180s")
        done = subprocess.run(command, capture_output=True, text=True)
        try:
            done.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(f"{done.stderr}\n{self.state()}")
            raise
        return done.stdout

    def close(self) -> None:
        """End the processes outside the cluster."""
        self.faults.close()
        self.dynamodb.close()
        self.github.stop()

    # State

    def parts(self, name: str) -> list[Object]:
        """Return the pods of ``hub``, ``proxy``, ``service`` or ``bastion`` that are not ending."""
        answer = self.cluster.api.get(
            f"/api/v1/namespaces/{HOME}/pods", params={"labelSelector": PARTS[name]}
        )
        items: list[Object] = answer.raise_for_status().json()["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def epoch(self) -> int:
        """Return how many services have opened the table so far, from the log of the running service."""
        found = re.findall(r"epoch (\d+)", self.log("service"))
        assert found, self.log("service")
        return int(found[0])

    def revision(self) -> int:
        """Return the revision of the release. Each installation, upgrade and rollback adds one."""
        (newest,) = json.loads(self.helm("history", chart.RELEASE, "--max=1", "--output=json"))
        return int(newest["revision"])

    def lose_hub_database(self) -> None:
        """Empty the Hub's disk, as if its claim was deleted and created again."""
        disk = self.cluster.layout.homes / HOME / "hub-db-dir"
        for path in disk.iterdir():
            path.unlink()

    def kernels(self, reservation: Mapping[str, Any]) -> set[str]:
        """Return the ids of the kernels that run in a server."""
        url = f"{reservation['url'].removesuffix('/lab')}/api/kernels"
        headers = {"Authorization": f"token {self.token_for(reservation['owner'])}"}
        answer = httpx.get(url, headers=headers, trust_env=False, verify=NO_TLS, timeout=30)
        return {kernel["id"] for kernel in answer.raise_for_status().json()}

    def log(self, name: str) -> str:
        """Return the logs of a part's pods."""
        return self.cluster.kubectl(
            "logs", f"--namespace={HOME}", f"--selector={PARTS[name]}", "--tail=-1", "--all-containers"
        )

    def state(self) -> str:
        """Return pods and events of the release, to find out why it is not ready."""
        looks = (["get", "pods", "-owide"], ["get", "events", "--sort-by=.lastTimestamp"])
        return "\n".join(self.cluster.kubectl(f"--namespace={HOME}", *look) for look in looks)


def secret_commands(page: str) -> list[str]:
    """Return the commands in the page's section "Secrets", one text for each block."""
    section = page.partition("\n## Secrets\n")[2].partition("\n### ")[0]
    found = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, "docs/kubernetes.md has no commands for secrets"
    return found


@contextmanager
def running_whole(folder: Path, cluster: Cluster, image: str) -> Iterator[WholeStack]:
    """Install gpudev with enforced network policies, and move this process outside the cluster."""
    layout = cluster.layout
    for made in (
        *(hub_image(layout, tag) for tag in (TAG, NEXT_TAG)),
        *(bastion_image(layout, tag) for tag in (TAG, NEXT_TAG)),
        proxy_image(layout, TAG),
    ):
        cluster.load(made)
    with ExitStack() as stack:
        stack.enter_context(Enforcement(cluster, namespace=None, beside=DNS))
        stack.enter_context(patch.dict(os.environ, AWS))
        identity = stack.enter_context(
            pod_identity(cluster, AWS["AWS_DEFAULT_REGION"], (HOME, "gpudev-service"))
        )
        stack.enter_context(outside())
        running = WholeStack(folder, cluster, identity, image)
        stack.callback(running.close)
        running.prepare()
        running.install()
        yield running
