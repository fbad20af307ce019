"""The running cluster in a test's hands: clients of any account, objects, each part's death and return."""

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
    """This process does not run in the cluster's namespaces."""


class Cluster:
    """Use as a context manager, in a process that ``python -m harness run`` started."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.nodes = load_nodes(layout)
        self.processes = Processes(layout)
        self._open = ExitStack()
        self.api = self.client(self.admin)
        """As the admin. Calls of tests are told from those of what is tested by the user in the audit log."""

    @classmethod
    def attach(cls) -> Cluster:
        """The cluster around this process; NotInsideError where there is none."""
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
        """The admin's kubeconfig file."""
        return self.layout.kubeconfigs / f"{ADMIN}.conf"

    def kubeconfig(self, namespace: str, account: str, seconds: int = 3600) -> Path:
        """A kubeconfig file for a ServiceAccount, with a token that the API server issued (TokenRequest)."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = self.api.post(path, json={"spec": {"expirationSeconds": seconds}}).raise_for_status()
        token = answer.json()["status"]["token"]
        return write_kubeconfig(self.layout, f"{namespace}.{account}", token, namespace)

    def client(self, kubeconfig: Path) -> httpx.Client:
        """An HTTP client under that account, closed with the cluster object."""
        return self._open.enter_context(client(self.layout, kubeconfig))

    # Objects

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, given: str | None = None) -> str:
        """What kubectl prints; CalledProcessError, with its words in the notes, when it fails."""
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
        """Create or change objects, as the admin."""
        self.kubectl(
            "apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )

    @contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """A new namespace; afterwards its pods are gone, and the rest of it goes."""
        name = f"test-{secrets.token_hex(4)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        path = f"/api/v1/namespaces/{name}"
        wait_for(
            f"{name} has its account", lambda: self.api.get(f"{path}/serviceaccounts/default").is_success
        )
        try:
            yield name
        finally:
            # The namespace itself goes in its own time: what matters to the next test are GPUs.
            self.api.delete(f"{path}/pods", params={"gracePeriodSeconds": 1}).raise_for_status()
            wait_for(f"the pods of {name} are gone", lambda: not self.pods(name))
            self.api.delete(path).raise_for_status()

    def pods(self, namespace: str) -> dict[str, Object]:
        """Pods by name."""
        found = self.api.get(f"/api/v1/namespaces/{namespace}/pods").raise_for_status().json()
        return {pod["metadata"]["name"]: pod for pod in found["items"]}

    def wait_for_pod(self, namespace: str, name: str, phase: str = "Running") -> Object:
        """The pod once it is in that phase (Running: its containers ready too)."""

        def look() -> Object | None:
            pod = self.pods(namespace).get(name)
            if not pod or pod["status"].get("phase") != phase:
                return None
            ready = all(c["ready"] for c in pod["status"].get("containerStatuses", ()))
            return pod if phase != "Running" or ready else None

        return wait_for(f"the pod {namespace}/{name} is {phase}", look)

    def execute(self, namespace: str, pod: str, *command: str) -> str:
        """What a command prints in the pod's first container."""
        return self.kubectl("exec", f"--namespace={namespace}", pod, "--", *command)

    def load(self, image: Image) -> None:
        """Bring an image to every node; only the layers that a node lacks."""
        for node in self.nodes:
            nodes.import_image(self.layout, node, image)

    @contextmanager
    def without_image(self, name: str, reference: str) -> Iterator[None]:
        """A node that has not got an image, as far as its kubelet can tell."""
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
        """By its name; KeyError for one that is not of this cluster."""
        return {node.name: node for node in self.nodes}[name]

    def kill_kubelet(self, name: str) -> None:
        """SIGKILL; its pods' containers run on, as on a lost node."""
        self.processes.end(nodes.kubelet(self.node(name)))

    def start_kubelet(self, name: str) -> None:
        """Start it again, over what it left."""
        node = self.node(name)
        self.processes.start(nodes.kubelet(node), nodes.kubelet_command(self.layout, node))

    def wait_for_node(self, name: str, *, ready: bool = True) -> None:
        """Until the node is Ready with all its GPUs, or until it is not any more."""
        node = self.node(name)
        wait_for(
            f"{name} {'is ready' if ready else 'is not ready'}",
            lambda: node_is_ready(self.api, node) is ready,
        )

    def delete_node(self, name: str) -> None:
        """Delete the object. The kubelet does not register again by itself: ``register_again`` makes it."""
        self.api.delete(f"/api/v1/nodes/{name}").raise_for_status()

    def register_again(self, name: str) -> None:
        """Restart a kubelet whose node object was deleted, and wait for the node and its GPUs."""
        self.kill_kubelet(name)
        self.start_kubelet(name)
        self.wait_for_node(name)

    def cordon(self, name: str, cordoned: bool = True) -> None:
        """Let nothing new onto the node, or again."""
        self._patch_node(name, {"spec": {"unschedulable": cordoned}})

    def taint(self, name: str, *taints: Object) -> None:
        """Set the node's taints (dicts of key, value and effect) to just these."""
        self._patch_node(name, {"spec": {"taints": list(taints) or None}})

    def set_allocatable(self, name: str, resource: str, count: int) -> None:
        """As a device plugin that calls devices unhealthy, or well again.

        The kubelet, which knows of no plugin here, writes the whole capacity back within two seconds.
        """
        self._patch_node(name, {"status": {"allocatable": {resource: str(count)}}}, "/status")

    def label(self, name: str, **labels: str | None) -> None:
        """Set labels ``gpudev/…`` of the node, ``-`` for ``_``, or remove them."""
        named = {f"gpudev/{key.replace('_', '-')}": value for key, value in labels.items()}
        self._patch_node(name, {"metadata": {"labels": named}})

    def set_condition(self, name: str, type: str, status: str, reason: str) -> None:
        """As the EKS node monitoring agent: the kubelet leaves conditions alone that it does not know."""
        condition = {"type": type, "status": status, "reason": reason, "message": f"{reason} was detected"}
        self._patch_node(name, {"status": {"conditions": [condition]}}, "/status", STRATEGIC_MERGE)

    def _patch_node(
        self, name: str, change: Object, part: str = "", headers: Mapping[str, str] = MERGE
    ) -> None:
        self.api.patch(f"/api/v1/nodes/{name}{part}", json=change, headers=headers).raise_for_status()

    # The control plane

    def stop_api_server(self) -> None:
        """SIGKILL: connections are refused until ``start_api_server``."""
        self.processes.end(control_plane.API_SERVER)

    def start_api_server(self) -> None:
        """Start it again and wait until it is ready.

        With all else of Kubernetes new, too: after several outages in a row its parts ask again after 30 to
        60 s only (client-go's reflectors back off), and until then nothing starts.
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
        """SIGSTOP: connections are taken and never answered, until ``resume_api_server``."""
        self.processes.send(control_plane.API_SERVER, signal.SIGSTOP)
        # Its other threads stop a moment later, and may answer until then.
        wait_for("the API server stands still", lambda: self.processes.stands_still(control_plane.API_SERVER))

    def resume_api_server(self) -> None:
        """SIGCONT, and wait until it is ready."""
        self.processes.send(control_plane.API_SERVER, signal.SIGCONT)
        wait_for_api(self.api, self.processes)

    def restart_controller_manager(self, flags: Sequence[str] = ()) -> None:
        """With other settings, e.g. ``--node-monitor-grace-period=3s``; without any, with the usual ones."""
        self.processes.end(control_plane.CONTROLLER_MANAGER)
        self.processes.start(
            control_plane.CONTROLLER_MANAGER, control_plane.controller_manager(self.layout, flags)
        )

    # What was asked of the API server

    def audit(self) -> Iterator[dict[str, Any]]:
        """The requests so far, oldest first (audit.k8s.io/v1 Event, metadata only)."""
        with self.layout.audit_log.open() as file:
            for line in file:
                if line.endswith("\n"):  # the last one may be half written
                    yield json.loads(line)

    def calls(self, user: str) -> Counter[tuple[str, str]]:
        """How often a user asked for what: as (verb, resource). A watch counts once, as it begins."""
        return Counter(
            (event["verb"], event.get("objectRef", {}).get("resource", event["requestURI"]))
            for event in self.audit()
            if event["user"]["username"] == user
            and (event["verb"] != "watch" or event["stage"] == "ResponseStarted")
        )
