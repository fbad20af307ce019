"""Time to a JupyterLab that answers: gpudev's local spawner against JupyterHub's SimpleLocalProcessSpawner.

Two real hubs with their proxies use the same JupyterLab environment. Starts come in pairs, one of each hub,
in alternating order. The result is the median of the ratios of the pairs, so that other load hits both
sides alike. The time of gpudev includes the queue, the durable commit, sshd and the agent. ``ready`` is the
time until READY, which also needs a key exchange with sshd.

``python -m benchmarks.spawn [PAIRS]``
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import httpx

from hub_users import HubUsers, free_port, wait_for
from stack import Stack, running_stack

PAIRS = 15
CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/homes/{{username}}"
c.Spawner.cmd = [{python!r}, "-I", "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/lab"
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
"""


class Plain:
    """JupyterHub with its default spawner."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"token {token}"}, trust_env=False, timeout=60
        )

    def start(self, name: str) -> float:
        """Return the seconds until a new server answers."""
        began = time.monotonic()
        self.http.post(f"/hub/api/users/plain/servers/{name}")
        address = f"/user/plain/{name}/api/status"
        wait_for("a plain JupyterLab", lambda: self.http.get(address).status_code == 200)
        return time.monotonic() - began

    def end(self, name: str) -> None:
        """Stop the server."""
        self.http.request("DELETE", f"/hub/api/users/plain/servers/{name}", json={"remove": True})
        wait_for("its end", lambda: name not in self._servers())

    def _servers(self) -> dict[str, object]:
        found: dict[str, object] = self.http.get("/hub/api/users/plain").json()["servers"]
        return found


@contextmanager
def plain_hub(folder: Path, stack: Stack) -> Iterator[Plain]:
    """Run a hub with the plain spawner and the same JupyterLab."""
    port, token = free_port(), secrets.token_hex(32)
    folder.mkdir()
    config = folder / "config.py"
    python = str(stack.settings.server_python)
    config.write_text(
        CONFIG.format(port=port, hub=free_port(), api=free_port(), folder=folder, python=python, token=token)
    )
    with hub_process(config, Plain(f"http://127.0.0.1:{port}", token)) as plain:
        yield plain


@contextmanager
def hub_process(config: Path, plain: Plain, **variables: str) -> Iterator[Plain]:
    """Run a hub with a configuration file. If the measurement fails, show the hub's output."""
    programs = Path(sys.executable).parent
    folder = config.parent
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [programs / "jupyterhub", "-f", config],
            cwd=folder,
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"} | variables,
            stdout=log,
            stderr=log,
        )

    def up() -> bool:
        try:
            return plain.http.get("/hub/api/info").is_success
        except httpx.TransportError:
            return False

    try:
        wait_for("the plain hub", up)
        yield plain
    except AssertionError:
        said = [line for line in (folder / "log").read_text().splitlines() if "/api/status" not in line]
        print("\n".join(said[-40:]), file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait()


def start_ours(stack: HubUsers, client: httpx.Client) -> tuple[float, float]:
    """Return the seconds until a new server of gpudev answers, and until READY. End the server."""
    began = time.monotonic()
    asked = client.post("reservations", json={"gpus": 1, "hours": 1}).json()
    address = f"{stack.url}/user/{stack.user}/{asked['id']}/api/status"
    wait_for("our JupyterLab", lambda: client.get(address).status_code == 200)
    answered = time.monotonic() - began
    while asked["state"] != "ready":
        asked = client.get(
            f"reservations/{asked['id']}", params={"wait": 10, "version": asked["version"]}
        ).json()
    ready = time.monotonic() - began
    client.delete(f"reservations/{asked['id']}")
    stack.wait_state(asked["id"], "ended")
    return answered, ready


def start_plain(other: Plain, name: str) -> float:
    """Return the seconds until a new server of the plain hub answers. End the server."""
    taken = other.start(name)
    other.end(name)
    return taken


def measure(pairs: int) -> dict[str, float]:
    """Measure both hubs on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_stack(Path(folder) / "ours") as stack,
        plain_hub(Path(folder) / "plain", stack) as other,
        stack.client() as client,
    ):
        return in_pairs(pairs, lambda: start_ours(stack, client), lambda name: start_plain(other, name))


def in_pairs(
    pairs: int, start_ours: Callable[[], tuple[float, float]], start_plain: Callable[[str], float]
) -> dict[str, float]:
    """Return the medians in seconds and of the ratios. An extra first pair warms the disk cache."""
    found: list[tuple[float, float, float]] = []
    for pair in range(pairs + 1):
        if pair % 2:
            ours, ready = start_ours()
            plain = start_plain(f"pair-{pair}")
        else:
            plain = start_plain(f"pair-{pair}")
            ours, ready = start_ours()
        found.append((plain, ours, ready))
    ratios = sorted(ours / plain for plain, ours, _ in found[1:])
    names = ("plain_s", "ours_s", "ours_ready_s")
    medians = [statistics.median(column) for column in zip(*found[1:], strict=True)]
    return {name: round(value, 2) for name, value in zip(names, medians, strict=True)} | {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quarter": round(ratios[len(ratios) // 4], 3),
        "ratio_three_quarters": round(ratios[-1 - len(ratios) // 4], 3),
        "pairs": pairs,
    }


def main() -> None:
    """Print the figures as one line of JSON."""
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)))


if __name__ == "__main__":
    main()
