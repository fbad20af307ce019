"""Time to a JupyterLab that answers, on Kubernetes: GpuSpawner compared with the plain KubeSpawner.

On the test cluster, two real hubs with their proxies start the same image with the same share of a node.
Starts come in pairs, as in ``benchmarks.spawn``. Then the steps from a release in a full pool to the next
READY.

``PYTHONPATH=tests/cluster python -m harness run -- python -m benchmarks.cluster_spawn [PAIRS [RELEASES]]``
"""

from __future__ import annotations

import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cluster"))

from benchmarks.spawn import Plain, hub_process, in_pairs, start_ours

from cluster_stack import ADDRESS, ClusterStack, running_cluster
from cluster_users import NAMESPACE
from harness.cluster import Cluster
from harness.server_image import server_image
from hub_users import wait_for

PAIRS, RELEASES = 8, 8
URL = f"http://{ADDRESS}:8200"
CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "{url}"
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_connect_url = "http://{address}:8281"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:8291"
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allowed_users = {{"plain"}}
c.JupyterHub.services = [{{"name": "bench", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    {{
        "name": "bench",
        "services": ["bench"],
        "scopes": ["servers", "access:servers", "read:hub", "read:users"],
    }}
]
s = c.KubeSpawner
s.namespace = {namespace!r}
s.image = {image!r}
s.image_pull_policy = "Never"
s.cmd = ["/opt/gpudev/bin/jupyterhub-singleuser"]
s.default_url = "/lab"
s.notebook_dir = "/home/dev"
s.environment = {{"HOME": "/home/dev"}}
s.service_account = "gpudev-server"
s.uid = s.gid = s.fs_gid = 1000
s.allow_privilege_escalation = False
s.container_security_context = {{"runAsNonRoot": True, "capabilities": {{"drop": ["ALL"]}}}}
s.pod_security_context = {{"seccompProfile": {{"type": "RuntimeDefault"}}}}
s.mem_limit = s.mem_guarantee = "768M"
s.cpu_guarantee = 0.05
s.extra_resource_limits = {{"nvidia.com/gpu": "1"}}
s.volumes = [{{"name": "home", "emptyDir": {{}}}}]
s.volume_mounts = [{{"name": "home", "mountPath": "/home/dev"}}]
"""


@contextmanager
def plain_hub(folder: Path, cluster: Cluster, image: str) -> Iterator[Plain]:
    """Run a hub with the plain KubeSpawner as an administrator: policies refuse pods of no reservation."""
    token = secrets.token_hex(32)
    folder.mkdir()
    config = folder / "config.py"
    config.write_text(CONFIG.format(url=URL, address=ADDRESS, token=token, namespace=NAMESPACE, image=image))
    with hub_process(config, Plain(URL, token), KUBECONFIG=str(cluster.admin)) as plain:
        yield plain


def start_plain(other: Plain, cluster: Cluster, name: str) -> float:
    """Start a server of the plain hub, and end it; return the seconds until it answered."""
    taken = other.start(name)
    other.end(name)
    wait_for("its pod gone", lambda: not [pod for pod in cluster.pods(NAMESPACE) if name in pod])
    return taken


def spawns(stack: ClusterStack, other: Plain, cluster: Cluster, pairs: int) -> dict[str, float]:
    """Measure pairs of starts on the cluster."""
    with stack.client() as client:

        def ours() -> tuple[float, float]:
            taken = start_ours(stack, client)
            wait_for("its pod gone", lambda: not stack.pods())
            return taken

        return in_pairs(pairs, ours, lambda name: start_plain(other, cluster, name))


def release(stack: ClusterStack) -> dict[str, float]:
    """Return milliseconds of each step from a release in a full pool to the next READY."""
    held = [stack.reserve(user, gpus=8) for user in ("alice", "bob")]
    for record in held:
        stack.wait_state(record["id"], "ready", record["owner"])
    following = stack.reserve("carol", gpus=8)
    began = time.time()
    stack.api("DELETE", f"reservations/{held[0]['id']}", None, "alice")
    stack.wait_state(following["id"], "ready", "carol")
    items = stack.api("GET", f"reservations/{following['id']}/history", None, "carol")["items"]
    at = {item["state"]: _seconds(item["at"]) for item in reversed(items)}
    steps = {
        "release → pod seen gone, next committed": at["starting"] - began,
        "→ READY": at["ready"] - at["starting"],
        "all": at["ready"] - began,
    }
    for record in (held[1], following):
        stack.end(record["id"], record["owner"])
    wait_for("no pods", lambda: not stack.pods())
    return {name: 1000 * value for name, value in steps.items()}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main(arguments: list[str]) -> None:
    """Print the figures, one line of JSON each."""
    pairs, releases = (int(n) for n in (*arguments, *(str(PAIRS), str(RELEASES))[len(arguments) :]))
    with (
        Cluster.attach() as cluster,
        tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
    ):
        image = server_image(cluster.layout)
        cluster.load(image)
        with running_cluster(Path(folder), cluster, image.reference) as stack:
            with plain_hub(Path(folder) / "plain", cluster, image.reference) as other:
                print(json.dumps(spawns(stack, other, cluster, pairs)))
            rounds: list[dict[str, Any]] = [release(stack) for _ in range(releases + 1)][1:]
            print(json.dumps({name: round(statistics.median(r[name] for r in rounds)) for name in rounds[0]}))


if __name__ == "__main__":
    main(sys.argv[1:])
