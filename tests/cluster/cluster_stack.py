"""gpudev on the test cluster: hub, proxy and service run as processes beside it, each with its own account.

They run in the cluster's namespaces, on an address that pods can reach. They are not pods, so that a test can
kill each process and read its output.
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
"""The machine's address, as pods see it."""
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
"""Addresses for parts beside the cluster. These settings change nothing that the product relies on.

``GPUDEV_TEST_HTTP_TIMEOUT``: seconds in which Jupyter must answer, so that a test need not wait for minutes.
"""


MISSING: Final = "localhost/is-nowhere:1"
"""An image of the pool that no node has."""


def pool(image: str, **fields: Any) -> dict[str, Any]:
    """Return the pool of the test cluster's nodes. Servers are small, because all share one machine."""
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
    """An installation beside the cluster. A test can start and stop it, and each part, at any time."""

    def __init__(
        self, folder: Path, cluster: Cluster, image: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        """``settings``: fields of ``ClusterSettings`` that differ from the defaults of the tests."""
        super().__init__(folder, f"http://{ADDRESS}:8000", cluster)
        self._hub_config = HERE / "hub_config.py"
        self._hub_environment = {"GPUDEV_TEST_OVERRIDES": OVERRIDES}
        if package := os.environ.get(chart.VARIABLE):
            # With the JupyterHub chart's package, use the chart's configuration, else only gpudev's.
            files = chart.unpack_hub(chart.render(package), folder / "chart", OVERRIDES)
            self._hub_config = files.config
            self._hub_environment = dict(files.env)
        self.dynamodb = DynamoDBLocal()
        self.faults = FaultProxy(self.dynamodb.url)
        """A proxy between the service and its table, in which a test can set faults."""
        self.ec2 = FakeEc2()
        """An EC2 with capacity blocks. It has none until a test adds some."""
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
        """If set, returns the kubeconfig file that a starting part gets instead of its own."""

    # Start and stop

    def start(self) -> None:
        """Start everything and wait until it works."""
        for name in ("proxy", "hub", "service"):
            self.start_part(name)
        self.wait_until_up()
        # Log the users in now: the first login needs every part, and a test may kill one.
        for user in ("alice", "bob", "carol", "dave"):
            self.token_for(user)

    def answers(self, name: str) -> bool:
        """Return whether users get an answer from the part, which must run."""
        assert self.runs(name), "it ended"
        return super().answers(name)

    def start_part(
        self,
        name: str,
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Start ``proxy``, ``hub``, ``service``, or a second service (``service-2``); return at once.

        ``settings``: fields that differ for this part only.
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
        """Return the kubeconfig file of the Hub's or the service's account."""
        account = {"hub": "hub", "service": "gpudev-service"}[name.partition("-")[0]]
        # Get the token once, because a part must also start while the API server is down.
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
        """Send a signal to a part, for example to suspend or resume it."""
        self._parts[name].send_signal(number)

    def runs(self, name: str) -> bool:
        """Return whether the part's process runs."""
        return self._parts[name].poll() is None

    def end_extra(self, name: str) -> None:
        """Kill and forget an extra part, if it was started."""
        if name in self._parts:
            if self.runs(name):
                self.kill(name)
            del self._parts[name]

    def lose_hub_database(self) -> None:
        """Delete the Hub's database. The Hub must not run."""
        for path in self.folder.glob("jupyterhub.sqlite*"):
            path.unlink()
        self.forget_tokens()

    def restart(self, *names: str) -> None:
        """Kill and start these parts, and wait until everything works."""
        for name in names:
            self.kill(name)
        for name in names:
            self.start_part(name)
        self.wait_until_up()

    def told_time(self) -> datetime:
        """Return the time of the service's clock."""
        answer = httpx.get(f"{self.url}/services/gpudev/health/live", trust_env=False, timeout=5)
        return parsedate_to_datetime(answer.headers["Date"])

    def log(self, name: str) -> str:
        """Return the whole log of a part."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End every part, and delete all objects of users."""
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
        """Start parts that do not run, then end all reservations."""
        for name in [name for name in self._parts if not self.runs(name)]:
            self.start_part(name)
        super().clean()


@contextmanager
def running_cluster(folder: Path, cluster: Cluster, image: str) -> Iterator[ClusterStack]:
    """Run gpudev on the cluster, and end it afterwards."""
    cluster.apply(*surroundings())
    with patch.dict(os.environ, AWS):
        stack = ClusterStack(folder, cluster, image)
        try:
            stack.start()
            yield stack
        finally:
            stack.close()
