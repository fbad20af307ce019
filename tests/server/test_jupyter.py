"""JupyterLab itself in a server's container, with a Hub that answers what it asks at its start."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pod_world import Pods, within
from ssh_world import eventually

pytestmark = [pytest.mark.integration, pytest.mark.root]


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of the API of a Hub that knows its version and takes reports of activity."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps({"version": "6.1.0"}).encode()
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


def test_jupyterlab_answers_and_ends_in_order(pods: Pods, hub: str) -> None:
    (pod,) = pods.make("gj1", name="lab")
    prefix = "/user/me/gj1/"
    pod.spec["jupyter"] = ["jupyterhub-singleuser"]
    pod.spec["env"] |= {
        "JUPYTERHUB_API_TOKEN": "t" * 32,
        "JUPYTERHUB_API_URL": hub,
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-me-gj1",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!server=me/gj1"]',
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{prefix}oauth_callback",
        "JUPYTERHUB_SERVER_NAME": "gj1",
        "JUPYTERHUB_SERVICE_PREFIX": prefix,
        "JUPYTERHUB_USER": "me",
    }
    pod.start()
    eventually(lambda: any(one["jupyter"] and one["sshd"] for one in pods.world.service.reports), 60)
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.jupyter_port}{prefix}api", timeout=10) as answer:
        assert "version" in json.load(answer)
    assert "t" * 32 not in pod.log()
    left = pods.world.run("ssh", "gpu-lab", "find ~ -name '*gj1*' -o -name 'jpserver-*'")
    assert (left.stdout, left.returncode) == ("", 0), "nothing of this server lies in the shared home"
    pod.terminate()
    code, said = within(15, pod.ended)
    assert (code, said["reason"]) == (0, "it was told to end")
