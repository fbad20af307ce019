"""Process 1 of the cluster's namespaces: boots the cluster, then reaps. The whole cluster ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx

from . import control_plane, nodes
from .api import client
from .cgroups import make_cgroups
from .credentials import ADMIN, HARNESS, make_credentials
from .isolation import isolate
from .layout import GPU, Layout, Node, load_nodes
from .oci import Image
from .processes import Processes
from .server_image import base_image, pause_image
from .waiting import wait_for


def lead(layout: Layout, lock: int) -> None:
    """Boot the cluster; never return. The file descriptor ``lock`` shows others that this cluster runs."""
    os.set_inheritable(lock, False)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started = time.monotonic()
    boot(layout, load_nodes(layout))
    layout.ready.write_text(f"{time.monotonic() - started:.1f}")
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()


def boot(layout: Layout, members: list[Node]) -> None:
    """Start everything, until all nodes are ready and have their GPUs."""
    images = [pause_image(layout), base_image(layout)]
    isolate(layout, members)
    make_cgroups(layout, members)
    make_credentials(layout, members)
    processes = Processes(layout)
    processes.start(control_plane.ETCD, control_plane.etcd(layout))
    processes.start(control_plane.API_SERVER, control_plane.api_server(layout))
    with (
        ThreadPoolExecutor(len(members)) as pool,
        client(layout, layout.kubeconfigs / f"{HARNESS}.conf") as api,
    ):
        runtimes = [pool.submit(_start_containerd, layout, processes, node, images) for node in members]
        wait_for_api(api, processes)
        processes.start(control_plane.SCHEDULER, control_plane.scheduler(layout))
        processes.start(control_plane.CONTROLLER_MANAGER, control_plane.controller_manager(layout))
        _create_base(layout)
        processes.start(control_plane.PROXY, control_plane.proxy(layout))
        processes.start(control_plane.DNS, control_plane.dns(layout))
        module_path = {"PYTHONPATH": os.pathsep.join(sys.path)}
        processes.start(
            "controllers", [sys.executable, "-m", "harness", "controllers"], _state(layout) | module_path
        )
        for node, runtime in zip(members, runtimes, strict=True):
            runtime.result()
            processes.start(nodes.kubelet(node), nodes.kubelet_command(layout, node))
        for node in members:
            wait_for(f"{node.name} is ready and has {node.gpus} GPUs", partial(node_is_ready, api, node))
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_for("the namespace default has its account", lambda: api.get(path).is_success)


def wait_for_api(api: httpx.Client, processes: Processes) -> None:
    """Wait until the API server is ready. Raises ``RuntimeError`` with its last output if it ends instead."""

    def ready() -> bool:
        if not processes.runs(control_plane.API_SERVER):
            raise RuntimeError(f"the API server has ended: {processes.last_words(control_plane.API_SERVER)}")
        try:
            return api.get("/readyz").is_success
        except httpx.TransportError:
            return False

    wait_for("the API server is ready", ready)


def node_is_ready(api: httpx.Client, node: Node) -> bool:
    """Return whether the node is registered and Ready, and has its GPUs."""
    answer = api.get(f"/api/v1/nodes/{node.name}")
    if not answer.is_success:
        return False
    status = answer.json()["status"]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
    return ready and status["allocatable"].get(GPU) == str(node.gpus)


def _start_containerd(layout: Layout, processes: Processes, node: Node, images: list[Image]) -> None:
    name = nodes.containerd(node)
    processes.start(name, nodes.containerd_command(layout, node))
    wait_for(f"{name} answers", layout.containerd_socket(node).exists)
    for image in images:
        nodes.import_image(layout, node, image)


def _create_base(layout: Layout) -> None:
    """Create the roles and classes that every test needs."""
    kubectl = [str(layout.binaries / "kubectl"), f"--kubeconfig={layout.kubeconfigs / ADMIN}.conf"]
    base = str(Path(__file__).with_name("base.json"))
    subprocess.run(
        [*kubectl, "create", "--validate=false", "-f", base], check=True, stdout=subprocess.DEVNULL
    )


def _state(layout: Layout) -> dict[str, str]:
    return {"GPUDEV_CLUSTER_STATE": str(layout.root)}
