"""What the proxy answers by itself: while it knows no routes, and to addresses that are malformed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from gpudev_hub.web.app import make_server
from hub_users import free_port, wait_for


@dataclass
class Proxy:
    port: int
    api: int
    log: Path

    def ask(self, target: bytes, *headers: bytes, method: bytes = b"GET") -> tuple[int, str, str]:
        """Status, media type and body of the answer to a request for exactly this target."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            lines = [
                method + b" " + target + b" HTTP/1.1",
                b"Host: x",
                b"Connection: close",
                *headers,
                b"",
                b"",
            ]
            client.sendall(b"\r\n".join(lines))
            said = b""
            while data := client.recv(65536):
                said += data
        head, _, _ = said.partition(b"\r\n\r\n")
        media = next((x for x in head.lower().split(b"\r\n") if x.startswith(b"content-type: ")), b" ")
        return int(said.split()[1]), media.split(b" ")[1].decode(), said.decode(errors="replace")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    found = Proxy(free_port(), free_port(), tmp_path_factory.mktemp("proxy") / "log")
    command = [str(Path(sys.executable).parent / "configurable-http-proxy"), "--log-level", "warn"]
    command += ["--ip", "127.0.0.1", "--port", str(found.port)]
    command += ["--api-ip", "127.0.0.1", "--api-port", str(found.api)]
    command += ["--error-target", f"http://127.0.0.1:{free_port()}/hub/error"]
    env = os.environ | {"CONFIGPROXY_AUTH_TOKEN": "secret"}
    with found.log.open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for("the proxy", lambda: _listens(found.port))
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


PATHS = [
    b"/services/gpudev/api/v1/me",
    b"/hub/api/user",
    b"/services/gpudev/metrics",
    b"/user/a/b/api/status",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_proxy_that_was_just_restarted_says_503(proxy: Proxy, path: bytes) -> None:
    status, media, said = proxy.ask(path)
    assert (status, media) == (503, "application/json")
    assert '"code":"unavailable"' in said
    assert "Retry-After: " in said
    assert proxy.ask(b"/", b"Accept: text/html,*/*;q=0.8")[0] == 503


def test_a_reader_is_told_that_the_hub_does_not_answer(proxy: Proxy) -> None:
    """Who reloads a page, or has no scripts, comes back by themselves; a form is not sent twice."""
    status, media, said = proxy.ask(b"/hub/spawn/alice/x", b"Accept: text/html,*/*;q=0.8")
    assert (status, media) == (503, "text/html;")
    assert "The Hub does not answer" in said
    assert 'http-equiv="refresh"' in said
    status, media, said = proxy.ask(b"/services/gpudev/new", b"Accept: text/html", method=b"POST")
    assert (status, media) == (503, "text/html;")
    assert "Your request was not carried out" in said
    assert "refresh" not in said


def test_a_part_that_does_not_listen_is_unavailable(proxy: Proxy) -> None:
    route = f"http://127.0.0.1:{proxy.api}/api/routes/user/gone"
    body = {"target": f"http://127.0.0.1:{free_port()}"}
    made = httpx.post(route, json=body, headers={"Authorization": "token secret"}, trust_env=False)
    assert made.status_code == 201
    status, media, said = proxy.ask(b"/user/gone/api/status")
    assert (status, media) == (503, "application/json")
    assert '"code":"unavailable"' in said


async def test_the_service_sees_the_address_that_the_proxy_saw(proxy: Proxy) -> None:
    class Peer(RequestHandler):
        def get(self) -> None:
            self.finish(f"peer={self.request.remote_ip}")

    server = make_server(Application([(".*", Peer)]), behind_proxy=True)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    body = {"target": f"http://127.0.0.1:{sockets[0].getsockname()[1]}"}
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            route = f"http://127.0.0.1:{proxy.api}/api/routes/peer"
            made = await client.post(route, json=body, headers={"Authorization": "token secret"})
            assert made.status_code == 201
            claimed = [
                ("X-Forwarded-For", "10.0.0.1"),
                ("X-Forwarded-For", "10.0.0.2"),
                ("X-Real-Ip", "10.0.0.3"),
            ]
            answer = await client.get(f"http://127.0.0.1:{proxy.port}/peer", headers=claimed)
        assert answer.text == "peer=127.0.0.1"
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.mark.parametrize("path", [b"/%", b"/%zz", b"/hub/api/%E0%A4%A", b"//[", b"/services/gpudev/api/%ff"])
def test_a_malformed_address_is_a_bad_request(proxy: Proxy, path: bytes) -> None:
    status, media, said = proxy.ask(path)
    assert (status, media) == (400, "application/json")
    assert '"code":"invalid_request"' in said
    status, media, _ = proxy.ask(path, b"Accept: text/html")
    assert (status, media) == (400, "application/json" if b"/api/" in path else "text/html")


def test_clients_do_not_fill_its_log(proxy: Proxy) -> None:
    before = proxy.log.stat().st_size
    for _ in range(20):
        proxy.ask(b"/%zz" + b"x" * 8000, b"Accept: text/html")
        proxy.ask(b"/%zz" + b"x" * 8000)
    assert proxy.log.stat().st_size == before
    proxy.ask(b"/" + b"x" * 8000)
    assert proxy.log.stat().st_size - before < 500
