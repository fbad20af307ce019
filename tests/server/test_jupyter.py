"""JupyterLab itself in a server's container, with a Hub that answers what it asks at its start."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pod_world import UID, Pod, Pods, within
from ssh_world import eventually
from terminals import Terminal

pytestmark = [pytest.mark.integration, pytest.mark.root]


TOKEN = "t" * 32
PREFIX = "/user/me/gj1/"
SCOPE = "access:servers!server=me/gj1"
USER = {"kind": "user", "name": "me", "groups": [], "scopes": [SCOPE], "server": PREFIX}


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of the API of a Hub that knows its version and its user, and takes reports of activity."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(USER if self.path.endswith("/user") else {"version": "6.1.0"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 (http.server's names)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hub/api"
    server.shutdown()
    server.server_close()


@pytest.fixture
def lab(pods: Pods, hub: str) -> Pod:
    """A server with JupyterLab, not started yet."""
    (pod,) = pods.make("gj1", name="lab")
    pod.spec["jupyter"] = ["jupyterhub-singleuser"]
    pod.spec["env"] |= {
        "JUPYTERHUB_API_TOKEN": TOKEN,
        "JUPYTERHUB_API_URL": hub,
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-me-gj1",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([SCOPE]),
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{PREFIX}oauth_callback",
        "JUPYTERHUB_SERVER_NAME": "gj1",
        "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
        "JUPYTERHUB_USER": "me",
    }
    return pod


def start(pods: Pods, pod: Pod) -> None:
    """Until all of it answers."""
    reports = pods.world.service.reports
    before = len(reports)
    pod.start()
    eventually(lambda: any(one["jupyter"] and one["sshd"] for one in reports[before:]), 60)


def test_jupyterlab_answers_and_ends_in_order(pods: Pods, lab: Pod) -> None:
    pod = lab
    start(pods, pod)
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.jupyter_port}{PREFIX}api", timeout=10) as answer:
        assert "version" in json.load(answer)
    assert TOKEN not in pod.log()
    left = pods.world.run("ssh", "gpu-lab", "find ~ -name '*gj1*' -o -name 'jpserver-*'")
    assert (left.stdout, left.returncode) == ("", 0), "nothing of this server lies in the shared home"
    pod.terminate()
    code, said = within(15, pod.ended)
    assert (code, said["reason"]) == (0, "it was asked to stop")


def test_a_jupyterlab_that_its_configuration_ends_runs_without(pods: Pods, lab: Pod) -> None:
    """The server gets ready, its user is told which file and why, and a corrected file counts again."""
    file = lab.home / ".jupyter" / "jupyter_server_config.py"
    file.parent.mkdir()
    os.chown(file.parent, UID, UID)
    file.write_text("c.ServerApp.root_dir = '/nope'\n")
    (file.parent / "jupyter_lab_config.py").write_text("c.LabApp.collaborative = False\n")
    start(pods, lab)
    reports = pods.world.service.reports
    told = "JupyterLab runs without your configuration: with ~/.jupyter/jupyter_server_config.py it ended"
    why = "Bad config encountered during initialization: No such directory: ''/nope''"
    again = "kill $(cat $JUPYTER_RUNTIME_DIR/jupyterlab.pid)"
    assert reports[-1]["notice"] == (
        f"{told} with exit code 1: {why}. Fix the configuration, then restart JupyterLab with: {again}"
    )
    headers = {"Authorization": f"token {TOKEN}"}
    api = f"http://127.0.0.1:{lab.jupyter_port}{PREFIX}api"
    terminal = Terminal(pods.world, "-tt", "gpu-lab")
    try:
        terminal.read_until(told)
        file.write_text("c.ServerApp.root_dir = '/home/dev/.jupyter'\n")
        terminal.type(again)
        eventually(lambda: reports[-1]["jupyter"] and "notice" not in reports[-1], 60)
        asked = urllib.request.Request(f"{api}/contents/jupyter_server_config.py", headers=headers)
        urllib.request.urlopen(asked, timeout=10).close()
        terminal.type("echo on$((1 + 1))on")
        terminal.read_until("on2on")
    finally:
        terminal.close()
    end = urllib.request.Request(f"{api}/shutdown", data=b"", headers=headers)
    urllib.request.urlopen(end, timeout=10).close()
    _, said = within(15, lab.ended)
    assert (said["by_user"], said["reason"]) == (True, "JupyterLab was shut down from inside")


BUSY = """
import os, pathlib, signal, time
def save(*_):
    time.sleep(4)
    pathlib.Path("~/saved").expanduser().touch()
    os._exit(0)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, save)
pathlib.Path("~/busy").expanduser().touch()
while True:
    time.sleep(1)
"""
"""What a kernel runs that saves its work when it is told to end, and does nothing else."""


def test_a_busy_kernel_has_most_of_the_grace_to_save_its_work(pods: Pods, lab: Pod) -> None:
    """By default Jupyter would kill it after five seconds, whatever the grace."""
    lab.spec["grace"] = 12
    start(pods, lab)
    folder = "~/.ipython/profile_default/startup"
    done = pods.world.run("ssh", "gpu-lab", f"mkdir -p {folder} && cat >{folder}/00.py", input=BUSY)
    assert done.returncode == 0, done.stderr
    request = urllib.request.Request(
        f"http://127.0.0.1:{lab.jupyter_port}{PREFIX}api/kernels",
        data=b"{}",
        headers={"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=20).close()
    eventually(lambda: pods.world.run("ssh", "gpu-lab", "test -e ~/busy").returncode == 0, 30)
    lab.terminate()
    within(20, lab.ended)
    assert (lab.home / "saved").exists()
