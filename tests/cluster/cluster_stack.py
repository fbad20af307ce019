"""gpudev on the test cluster: hub, proxy and service as processes beside it, each under its own account.

They run in the cluster's namespaces, on an address that pods reach, and not in pods, so that a test can kill
each of them like any process and read what it says.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import httpx

import chart
from cluster_users import NAMESPACE, ClusterUsers
from dynamodb_local import ENVIRONMENT as AWS
from dynamodb_local import DynamoDBLocal
from dynamodb_proxy import FaultProxy
from fake_ec2 import FakeEc2
from fake_github import make_github
from gpudev_hub.server.isolation import die_with_parent
from gpudev_hub.ssh.keygen import new_pair
from harness.cluster import Cluster
from harness.layout import API_ADDRESS, HOME_CLASS
from hub_users import wait_for
from manifests import surroundings

ADDRESS: Final = API_ADDRESS
"""Of the machine, as pods see it."""
BIN: Final = Path(sys.executable).parent
HERE: Final = Path(__file__).parent


OVERRIDES: Final = f"""
c.JupyterHub.bind_url = "http://{ADDRESS}:8000"
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_connect_url = "http://{ADDRESS}:8081"
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://{ADDRESS}:8001"

import os
if patience := os.environ.get("GPUDEV_TEST_HTTP_TIMEOUT"):
    c.GpuSpawner.http_timeout = int(patience)
"""
"""Where things are beside the cluster; nothing of what the product relies on.

``GPUDEV_TEST_HTTP_TIMEOUT``: seconds that a Jupyter has to answer, for a test that would wait for minutes.
"""


MISSING: Final = "localhost/is-nowhere:1"
"""An image of the pool that no node has."""


def pool(image: str, **fields: Any) -> dict[str, Any]:
    """The pool of the test cluster's nodes; small servers, since all of them share one machine."""
    return {
        "name": "h100",
        "label": "8 simulated GPUs",
        "gpus_per_node": 8,
        "images": [image, MISSING],
        "cpus_per_node": 0.4,
        "memory_gib_per_node": 6,
        "disk_gib_per_node": 4,
        "startup_seconds": 120,
        "teardown_seconds": 30,
        "simulated": True,
        **fields,
    }


class ClusterStack(ClusterUsers):
    """Started and stopped as often as a test likes; its parts, too."""

    def __init__(
        self, folder: Path, cluster: Cluster, image: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        """``settings``: fields of ``ClusterSettings`` that differ."""
        super().__init__(folder, f"http://{ADDRESS}:8000", cluster)
        self._hub_config = HERE / "hub_config.py"
        self._hub_environment = {"GPUDEV_TEST_OVERRIDES": OVERRIDES}
        if package := os.environ.get(chart.VARIABLE):
            # As the chart configures it; without its package the same function does it alone.
            files = chart.unpack_hub(chart.render(package), folder / "chart", OVERRIDES)
            self._hub_config = files.config
            self._hub_environment = dict(files.env)
        self.dynamodb = DynamoDBLocal()
        self.faults = FaultProxy(self.dynamodb.url)
        """Between the service and its table: what it does to requests is a test's to say."""
        self.ec2 = FakeEc2()
        """Capacity blocks; there are none until a test makes some."""
        self.ec2.start()
        self.secrets = folder / "secrets"
        self.secrets.mkdir(parents=True)
        self.github = make_github(folder=folder / "github", callback_urls=[f"{self.url}/hub/oauth_callback"])
        self.github.control.app(hook_url=f"{self.url}/services/gpudev/github/webhook")
        self.github.start()
        self._proxy_token = secrets.token_urlsafe(16)
        for name in ("gate", "service-token", "service-cookies", "bastion-token"):
            (self.secrets / name).write_text(secrets.token_urlsafe(32))
        (self.secrets / "server-tokens").write_bytes(secrets.token_bytes(32))
        (self.secrets / "host-ca").write_text(new_pair("gpudev-host-ca", folder)[0])
        self.settings: dict[str, Any] = {
            "public_url": self.url,
            "hub_api": f"http://{ADDRESS}:8081/hub/api",
            "service_url": f"http://{ADDRESS}:8100",
            "gate_url": f"http://{ADDRESS}:8101",
            "store": {
                "table": self.dynamodb.table(),
                "region": AWS["AWS_DEFAULT_REGION"],
                "endpoint": self.faults.url,
            },
            "ec2": {"endpoint": self.ec2.url},
            "pools": [pool(image)],
            "home": {"storage_class": HOME_CLASS, "size": "1Gi"},
            "namespace": NAMESPACE,
            "image_pull_policy": "Never",
            "grace_seconds": 10,
            "stuck_seconds": 15,
            "state": str(folder / "state"),
            "secrets": str(self.secrets),
            **(settings or {}),
        }
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._kubeconfigs: dict[str, Path] = {}
        self.lead: Callable[[Path], Path] | None = None
        """What parts that start from now on get in place of their kubeconfig file."""

    # Life

    def start(self) -> None:
        """Start everything and wait until it works."""
        for name in ("proxy", "hub", "service"):
            self.start_part(name)
        self.wait_until_up()
        # Their first log-in needs every part, also where a test lets one of them die first.
        for user in ("alice", "bob", "carol", "dave"):
            self.token_for(user)

    def answers(self, name: str) -> bool:
        """The same of a part that must run."""
        assert self.runs(name), "it ended"
        return super().answers(name)

    def start_part(
        self,
        name: str,
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Start ``proxy``, ``hub`` or ``service``, or one more service (``service-2``); returns at once.

        ``settings``: fields that differ for this part.
        """
        config = self.folder / f"{name}.json"
        config.write_text(json.dumps(self.settings | {**(settings or {})}))
        common = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "HOME")}
        common |= {"GPUDEV_CLUSTER": str(config), "GPUDEV_SECRETS": str(self.secrets)} | AWS
        common["GPUDEV_GITHUB"] = str(self.folder / "github" / "github.json")
        if name != "proxy":
            direct = self.kubeconfig(name)
            common["KUBECONFIG"] = str(self.lead(direct) if self.lead is not None else direct)
        self._run(name, self._command(name), {**self._environment(name), **common, **(environment or {})})

    def kubeconfig(self, name: str) -> Path:
        """Of the Hub's account, or of a service's."""
        account = {"hub": "hub", "service": "gpudev-service"}[name.partition("-")[0]]
        # One token for all of its life: a part starts while the API server is away, too.
        if account not in self._kubeconfigs:
            self._kubeconfigs[account] = self.cluster.kubeconfig("gpudev", account, 3 * 3600)
        return self._kubeconfigs[account]

    def _run(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        assert name not in self._parts or self._parts[name].poll() is not None, f"{name} runs"
        with (self.folder / f"{name}.log").open("ab") as log:
            self._parts[name] = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def _command(self, name: str) -> list[str]:
        match name:
            case "proxy":
                ports = ["--port", "8000", "--api-port", "8001"]
                return [
                    str(BIN / "configurable-http-proxy"),
                    "--ip",
                    ADDRESS,
                    "--api-ip",
                    ADDRESS,
                    *ports,
                    "--error-target",
                    f"http://{ADDRESS}:8081/hub/error",
                ]
            case "hub":
                return [str(BIN / "jupyterhub"), "-f", str(self._hub_config)]
            case _:
                return [str(BIN / "gpudev-hub"), "service"]

    def _environment(self, name: str) -> dict[str, str]:
        token = {"CONFIGPROXY_AUTH_TOKEN": self._proxy_token}
        return {"proxy": token, "hub": self._hub_environment | token}.get(name, {})

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a part and wait until it is gone."""
        self._parts[name].send_signal(number)
        self._parts[name].wait(60)

    def send(self, name: str, number: signal.Signals) -> None:
        """Stop or continue a part."""
        self._parts[name].send_signal(number)

    def runs(self, name: str) -> bool:
        """Whether the part's process lives."""
        return self._parts[name].poll() is None

    def end_extra(self, name: str) -> None:
        """Kill a part that is one too many, if it was started, and forget it."""
        if name in self._parts:
            if self.runs(name):
                self.kill(name)
            del self._parts[name]

    def lose_hub_database(self) -> None:
        """While the Hub does not run."""
        for path in self.folder.glob("jupyterhub.sqlite*"):
            path.unlink()
        self.forget_tokens()

    def restart(self, *names: str) -> None:
        """Kill and start parts, and wait until all works."""
        for name in names:
            self.kill(name)
        for name in names:
            self.start_part(name)
        self.wait_until_up()

    def told_time(self) -> datetime:
        """What time the service thinks it is."""
        answer = httpx.get(f"{self.url}/services/gpudev/health/live", trust_env=False, timeout=5)
        return parsedate_to_datetime(answer.headers["Date"])

    def log(self, name: str) -> str:
        """All that a part has said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End every part, and everything of users."""
        for process in self._parts.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self.faults.close()
        self.dynamodb.close()
        self.ec2.close()
        self.github.stop()
        api = self.cluster.api
        for kind in ("pods", "services", "secrets", "persistentvolumeclaims"):
            path = f"/api/v1/namespaces/{NAMESPACE}/{kind}"
            selector = {} if kind == "persistentvolumeclaims" else {"labelSelector": "gpudev/reservation"}
            api.delete(path, params={**selector, "gracePeriodSeconds": "0"})
        wait_for("the pods' end", lambda: not self.pods())

    def clean(self) -> None:
        """Start what does not run, too."""
        for name in [name for name in self._parts if not self.runs(name)]:
            self.start_part(name)
        super().clean()


@contextmanager
def running_cluster(folder: Path, cluster: Cluster, image: str) -> Iterator[ClusterStack]:
    """gpudev on the cluster, up; ended afterwards."""
    cluster.apply(*surroundings())
    with patch.dict(os.environ, AWS):
        stack = ClusterStack(folder, cluster, image)
        try:
            stack.start()
            yield stack
        finally:
            stack.close()
