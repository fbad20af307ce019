"""The script of the policy probe, as a process: what it calls enforced, and what it finds wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hub_users import free_port, wait_for
from manifests import ROOT

pytestmark = pytest.mark.integration
SCRIPT = ROOT / "infra" / "images" / "bastion" / "policy-probe"
ELSEWHERE = "127.0.0.9"
"""An address of the probe that is not among those of the name ``localhost``."""


class Probe:
    """One probe: its listener, and its checks."""

    def __init__(self, run: Path, allowed: int, forbidden: list[int], **environment: str) -> None:
        self.run = run
        self._environment = {
            "PATH": os.environ["PATH"],
            "GPUDEV_PROBE_RUN": str(run),
            "GPUDEV_PROBE_ALLOWED": f"127.0.0.1:{allowed}",
            "GPUDEV_PROBE_FORBIDDEN": " ".join(f"127.0.0.1:{port}" for port in forbidden),
            "GPUDEV_PROBE_ADDRESS": ELSEWHERE,
            **environment,
        }

    def check(self) -> tuple[int, str]:
        """Exit status and what was said."""
        done = subprocess.run(
            ["/bin/bash", str(SCRIPT), "check"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.strip()

    @contextmanager
    def listening(self, port: int) -> Iterator[subprocess.Popen[bytes]]:
        """With its listener at that port of all addresses."""
        environment = self._environment | {"GPUDEV_PROBE_PORT": str(port)}
        self._environment = environment
        with (self.run / "stderr").open("wb") as log:
            process = subprocess.Popen(["/bin/bash", str(SCRIPT)], env=environment, stderr=log)
        try:
            wait_for("it listens", lambda: listens(port))
            yield process
        finally:
            process.terminate()
            process.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


Serve = Callable[[], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an HTTP server; its port."""
    with ExitStack() as stack:

        def start() -> int:
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Answer))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server.server_port

        yield start


def test_enforced(tmp_path: Path, serve: Serve) -> None:
    assert Probe(tmp_path, serve(), [free_port(), free_port()]).check() == (0, "")


def test_a_forbidden_target_that_can_be_reached(tmp_path: Path, serve: Serve) -> None:
    open_port = serve()
    code, said = Probe(tmp_path, serve(), [free_port(), open_port]).check()
    assert (code, said) == (1, f"127.0.0.1:{open_port} can be reached from here.")


def test_no_network_proves_nothing(tmp_path: Path) -> None:
    port = free_port()
    assert Probe(tmp_path, port, [free_port()]).check() == (1, f"127.0.0.1:{port} does not answer.")


def test_a_port_that_says_nothing_is_no_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        assert Probe(tmp_path, port, []).check() == (1, f"127.0.0.1:{port} does not answer.")


def test_a_service_that_restarts_changes_nothing_for_a_minute(tmp_path: Path, serve: Serve) -> None:
    port, forbidden = free_port(), serve()
    (tmp_path / "answered").write_text(f"{int(time.time()) - 30}\n")
    assert Probe(tmp_path, port, []).check() == (0, "")
    code, said = Probe(tmp_path, port, [forbidden]).check()
    assert (code, said) == (1, f"127.0.0.1:{forbidden} can be reached from here."), "that counts at once"
    (tmp_path / "answered").write_text(f"{int(time.time()) - 70}\n")
    assert Probe(tmp_path, port, []).check() == (1, f"127.0.0.1:{port} does not answer.")


def test_a_connection_that_is_let_in_is_noted_where_it_arrives(tmp_path: Path, serve: Serve) -> None:
    probe = Probe(tmp_path, serve(), [], GPUDEV_PROBE_PEERS="localhost")
    with probe.listening(free_port()) as listener:
        probe.check()
        wait_for("the connection is noted", (tmp_path / "arrived").exists)
        wrong = "A connection from the probe 127.0.0.1 was let in."
        assert probe.check() == (1, wrong)
        wait_for("it is logged", lambda: wrong in (tmp_path / "stderr").read_text())
        assert probe.check() == (1, wrong)
        assert (tmp_path / "stderr").read_text().count(wrong) == 1, "only what is new is logged"
        assert listener.poll() is None
    assert listener.returncode == 0


def test_it_counts_for_a_while(tmp_path: Path, serve: Serve) -> None:
    probe = Probe(tmp_path, serve(), [])
    (tmp_path / "arrived").write_text(f"{int(time.time()) - 10} 127.0.0.1\n")
    assert probe.check()[0] == 1
    (tmp_path / "arrived").write_text(f"{int(time.time()) - 30} 127.0.0.1\n")
    assert probe.check() == (0, "")


def test_connections_of_others_than_probes_are_not_counted(tmp_path: Path, serve: Serve) -> None:
    """The node's own, for one, which Kubernetes lets in whatever policies say."""
    probe = Probe(tmp_path, serve(), [])
    with probe.listening(free_port()):  # finding out whether it listens is such a connection
        assert probe.check() == (0, "")
        assert not (tmp_path / "arrived").exists()


def test_each_probe_tries_the_next_two_of_a_ring(tmp_path: Path) -> None:
    """By the addresses of a name, so with names of its own."""
    names = tmp_path / "hosts"
    names.write_text("".join(f"198.18.7.{number} probes\n" for number in (1, 2, 3, 4)))
    script = f"mount --bind {names} /etc/hosts; set -- check; . {SCRIPT} > /dev/null 2>&1; peers"
    for own, others in (("1", "2 3"), ("3", "4 1"), ("4", "1 2"), ("9", "1 2")):
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", script],
            env={
                "PATH": os.environ["PATH"],
                "GPUDEV_PROBE_RUN": str(tmp_path),
                "GPUDEV_PROBE_ALLOWED": "127.0.0.1:1",
                "GPUDEV_PROBE_PEERS": "probes",
                "GPUDEV_PROBE_ADDRESS": f"198.18.7.{own}",
            },
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == [f"198.18.7.{number}" for number in others.split()], done.stderr


def test_it_ends_when_it_is_told_and_when_its_listener_dies(tmp_path: Path, serve: Serve) -> None:
    probe = Probe(tmp_path, serve(), [])
    with probe.listening(free_port()) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with probe.listening(free_port()) as process:
        subprocess.run(["pkill", "-P", str(process.pid), "sshd"], check=True)
        assert process.wait(10) == 1, "so that Kubernetes starts it again"
