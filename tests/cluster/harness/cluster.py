"""The running cluster for tests: clients for any account, objects, and stops and restarts of each part."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from . import control_plane, nodes
from .api import MERGE, STRATEGIC_MERGE, Object, client
from .credentials import ADMIN, write_kubeconfig
from .layout import Layout, Node, load_nodes
from .leader import node_is_ready, wait_for_api
from .oci import Image
from .processes import Processes
from .waiting import wait_for

INSIDE = "GPUDEV_CLUSTER_INSIDE"


class NotInsideError(Exception):
    """The process does not run in the cluster's namespaces."""


class Cluster:
    """The running cluster. Use it as a context manager in a process that ``harness run`` started."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.nodes = load_nodes(layout)
        self.processes = Processes(layout)
        self._open = ExitStack()
        self.api = self.client(self.admin)
        """Client of the admin. In the audit log, the user tells calls of tests from calls of gpudev."""

    @classmethod
    def attach(cls) -> Cluster:
        """Return the cluster around this process. Raises ``NotInsideError`` without one."""
        if INSIDE not in os.environ:
            raise NotInsideError(
                "no cluster here: run these tests with `make test-cluster`, or start them with"
                " `PYTHONPATH=tests/cluster .venv/bin/python -m harness run --keep -- COMMAND` (as root)"
            )
        return cls(Layout.default())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    # Accounts

    @property
    def admin(self) -> Path:
        """Return the admin's kubeconfig file."""
        return self.layout.kubeconfigs / f"{ADMIN}.conf"

    def kubeconfig(self, namespace: str, account: str, seconds: int = 3600) -> Path:
        """Return a kubeconfig file for a ServiceAccount, with a token from the API server (TokenRequest)."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = self.api.post(path, json={"spec": {"expirationSeconds": seconds}}).raise_for_status()
        token = answer.json()["status"]["token"]
        return write_kubeconfig(self.layout, f"{namespace}.{account}", token, namespace)

    def client(self, kubeconfig: Path) -> httpx.Client:
        """Return an HTTP client with that account. It is closed with the cluster object."""
        return self._open.enter_context(client(self.layout, kubeconfig))

    # Objects

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, given: str | None = None) -> str:
        """Run kubectl and return its output. Raises ``CalledProcessError`` with the error text as a note."""
        command = [
            str(self.layout.binaries / "kubectl"),
            f"--kubeconfig={kubeconfig or self.admin}",
            *arguments,
        ]
        done = subprocess.run(command, input=given or "", capture_output=True, text=True)
        try:
            done.check_returncode()
        except subprocess.CalledProcessError as error:
            error.add_note(done.stderr)
            raise
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Create or change objects as the admin."""
        self.kubectl(
            "apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    @contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """Create a namespace. At the end, wait until its pods are deleted; the rest is deleted later."""
        name = f"test-{secrets.token_hex(4)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        path = f"/api/v1/namespaces/{name}"
        wait_for(
            f"{name} has its account", lambda: self.api.get(f"{path}/serviceaccounts/default").is_success
        )
        try:
            yield name
        finally:
            # The namespace is deleted in the background. The next test needs only the GPUs.
            self.api.delete(f"{path}/pods", params={"gracePeriodSeconds": 1}).raise_for_status()
            wait_for(f"the pods of {name} are gone", lambda: not self.pods(name))
            self.api.delete(path).raise_for_status()

    def pods(self, namespace: str) -> dict[str, Object]:
        """Return the pods of a namespace by name."""
        found = self.api.get(f"/api/v1/namespaces/{namespace}/pods").raise_for_status().json()
        return {pod["metadata"]["name"]: pod for pod in found["items"]}

    def wait_for_pod(self, namespace: str, name: str, phase: str = "Running") -> Object:
        """Wait until the pod has that phase, and return it. If Running, its containers must also be ready."""

        def look() -> Object | None:
            pod = self.pods(namespace).get(name)
            if not pod or pod["status"].get("phase") != phase:
                return None
            ready = all(c["ready"] for c in pod["status"].get("containerStatuses", ()))
            return pod if phase != "Running" or ready else None

        return wait_for(f"the pod {namespace}/{name} is {phase}", look)

    def execute(self, namespace: str, pod: str, *command: str) -> str:
        """Run a command in the pod's first container and return its output."""
        return self.kubectl("exec", f"--namespace={namespace}", pod, "--", *command)

    def load(self, image: Image) -> None:
        """Load an image on every node. Only layers that a node lacks are copied."""
        for node in self.nodes:
            nodes.import_image(self.layout, node, image)

    @contextmanager
    def without_image(self, name: str, reference: str) -> Iterator[None]:
        """Hide an image from a node's kubelet, as if the node did not have it."""
        images = [*nodes.ctr(self.layout, self.node(name)), "images"]
        kept = "localhost/kept:test"
        for command in (["tag", reference, kept], ["rm", "--sync", reference]):
            subprocess.run([*images, *command], check=True, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            for command in (["tag", kept, reference], ["rm", kept]):
                subprocess.run([*images, *command], check=True, stdout=subprocess.DEVNULL)

    # Nodes

    def node(self, name: str) -> Node:
        """Return the node of that name. Raises ``KeyError`` if the cluster does not have it."""
        return {node.name: node for node in self.nodes}[name]

    def kill_kubelet(self, name: str) -> None:
        """Kill the kubelet (SIGKILL). The containers of its pods keep running, as on a lost node."""
        self.processes.end(nodes.kubelet(self.node(name)))

    def start_kubelet(self, name: str) -> None:
        """Restart the kubelet with its previous files."""
        node = self.node(name)
        self.processes.start(nodes.kubelet(node), nodes.kubelet_command(self.layout, node))

    def wait_for_node(self, name: str, *, ready: bool = True) -> None:
        """Wait until the node is Ready with all its GPUs, or until it is no longer Ready."""
        node = self.node(name)
        wait_for(
            f"{name} {'is ready' if ready else 'is not ready'}",
            lambda: node_is_ready(self.api, node) is ready,
        )

    def delete_node(self, name: str) -> None:
        """Delete the node object. The kubelet registers it again only after ``register_again``."""
        self.api.delete(f"/api/v1/nodes/{name}").raise_for_status()

    def register_again(self, name: str) -> None:
        """Restart a kubelet whose node object was deleted, and wait for the node and its GPUs."""
        self.kill_kubelet(name)
        self.start_kubelet(name)
        self.wait_for_node(name)

    def cordon(self, name: str, cordoned: bool = True) -> None:
        """Cordon or uncordon the node."""
        self._patch_node(name, {"spec": {"unschedulable": cordoned}})

    def taint(self, name: str, *taints: Object) -> None:
        """Replace the node's taints with these (dicts of key, value and effect)."""
        self._patch_node(name, {"spec": {"taints": list(taints) or None}})

    def set_allocatable(self, name: str, resource: str, count: int) -> None:
        """Set the allocatable GPUs, like a device plugin that reports devices as unhealthy or healthy.

        No plugin is registered here, so the kubelet restores the full capacity within two seconds.
        """
        self._patch_node(name, {"status": {"allocatable": {resource: str(count)}}}, "/status")

    def label(self, name: str, **labels: str | None) -> None:
        """Set or remove labels ``gpudev/…`` of the node. ``_`` in a name becomes ``-``."""
        named = {f"gpudev/{key.replace('_', '-')}": value for key, value in labels.items()}
        self._patch_node(name, {"metadata": {"labels": named}})

    def set_condition(self, name: str, type: str, status: str, reason: str) -> None:
        """Set a condition like the EKS node monitoring agent. The kubelet keeps conditions of others."""
        condition = {"type": type, "status": status, "reason": reason, "message": f"{reason} was detected"}
        self._patch_node(name, {"status": {"conditions": [condition]}}, "/status", STRATEGIC_MERGE)

    def _patch_node(
        self, name: str, change: Object, part: str = "", headers: Mapping[str, str] = MERGE
    ) -> None:
        self.api.patch(f"/api/v1/nodes/{name}{part}", json=change, headers=headers).raise_for_status()

    # The control plane

    def stop_api_server(self) -> None:
        """Kill the API server (SIGKILL). Connections are refused until ``start_api_server``."""
        self.processes.end(control_plane.API_SERVER)

    def start_api_server(self) -> None:
        """Restart the API server and wait until it is ready.

        The other parts of Kubernetes are restarted, too. After several outages, client-go's reflectors back
        off for 30 to 60 s, and until then nothing would start.
        """
        self.processes.start(control_plane.API_SERVER, control_plane.api_server(self.layout))
        wait_for_api(self.api, self.processes)
        self.processes.end(control_plane.SCHEDULER)
        self.processes.start(control_plane.SCHEDULER, control_plane.scheduler(self.layout))
        self.restart_controller_manager()
        for node in self.nodes:
            self.kill_kubelet(node.name)
            self.start_kubelet(node.name)

    def pause_api_server(self) -> None:
        """Suspend the API server (SIGSTOP): it accepts connections, but answers none until it is resumed."""
        self.processes.send(control_plane.API_SERVER, signal.SIGSTOP)
        # Its other threads stop a moment later and may still answer until then.
        wait_for("the API server stands still", lambda: self.processes.stands_still(control_plane.API_SERVER))

    def resume_api_server(self) -> None:
        """Resume the API server (SIGCONT), and wait until it is ready."""
        self.processes.send(control_plane.API_SERVER, signal.SIGCONT)
        wait_for_api(self.api, self.processes)

    def restart_controller_manager(self, flags: Sequence[str] = ()) -> None:
        """Restart the controller manager, with ``flags`` such as ``--node-monitor-grace-period=3s``."""
        self.processes.end(control_plane.CONTROLLER_MANAGER)
        self.processes.start(
            control_plane.CONTROLLER_MANAGER, control_plane.controller_manager(self.layout, flags)
        )

    # Requests to the API server

    def audit(self) -> Iterator[dict[str, Any]]:
        """Return the requests so far, oldest first (audit.k8s.io/v1 Event, metadata only)."""
        with self.layout.audit_log.open() as file:
            for line in file:
                if line.endswith("\n"):  # the last line may be incomplete
                    yield json.loads(line)

    def calls(self, user: str) -> Counter[tuple[str, str]]:
        """Count a user's requests by (verb, resource). A watch counts once, when it begins."""
        return Counter(
            (event["verb"], event.get("objectRef", {}).get("resource", event["requestURI"]))
            for event in self.audit()
            if event["user"]["username"] == user
            and (event["verb"] != "watch" or event["stage"] == "ResponseStarted")
        )
